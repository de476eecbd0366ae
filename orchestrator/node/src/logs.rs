//! What containers wrote, asked by managers and answered by agents beside their process: a hung
//! runtime or a slow reader holds up neither heartbeats nor anybody else's logs.
//!
//! A question and its answer travel as a stream between nodes, in CBOR: first [`Part::Open`] or
//! [`Part::Failed`], then what was written, in parts that fit into one piece each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wavetank_model::InstanceId;
use wavetank_port::{
    ContainerRuntime, ErrorClass, LogChunk, LogOptions, LogStream, OutputStream, RuntimeError,
    WallTime,
};

use crate::platform::Platform;
use crate::transport::{Answer, PIECE_BYTES_MAX, StreamWriter, Unwanted};

/// What a part needs around what was written, at most.
const OVERHEAD_BYTES: usize = 128;
/// The longest part of an error's message that is passed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Which log to read, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuestion {
    /// Whose log.
    pub instance: InstanceId,
    /// Go on with what is yet to be written, until the process has ended.
    pub follow: bool,
    /// Only so many last lines of each output.
    pub tail: Option<u32>,
}

/// A part of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The runtime has the log; what it holds follows.
    Open,
    /// Something that was written.
    Written(Written),
    /// The runtime refuses, or broke off.
    Failed(RuntimeError),
}

/// Bytes exactly as a process wrote them, cut anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Where it was written.
    pub stream: OutputStream,
    /// When, if the runtime keeps times.
    pub at: Option<WallTime>,
    /// What.
    pub bytes: Bytes,
}

/// A part, or a question, as it travels.
pub fn encode(value: &impl Serialize) -> Bytes {
    let mut out = BytesMut::new().writer();
    ciborium::into_writer(value, &mut out).expect("plain data always serializes");
    out.into_inner().freeze()
}

/// Reads a part or a question back; the error is for people.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    ciborium::from_reader(bytes).map_err(|error| error.to_string())
}

/// Answers from a container runtime.
pub(crate) struct LogSource<P> {
    pub platform: P,
    pub runtime: Arc<dyn ContainerRuntime>,
    /// Longest that the runtime may take for a step.
    pub within: Duration,
}

#[async_trait]
impl<P: Platform> Answer for LogSource<P> {
    async fn answer(&self, question: Bytes, writer: StreamWriter) {
        let question: LogQuestion = match decode(&question) {
            Ok(question) => question,
            Err(error) => {
                return writer.finish(Some(format!("the question cannot be read: {error}")));
            }
        };
        let answered = match self.read(&question, &writer).await {
            Ok(()) => Ok(()),
            Err(Broken::Runtime(error)) => {
                writer.write(encode(&Part::Failed(shortened(error)))).await
            }
            Err(Broken::Unwanted) => Err(Unwanted),
        };
        // Whoever no longer wants an answer is not told how it ended.
        if answered.is_ok() {
            writer.finish(None);
        }
    }
}

/// Why an answer is not complete.
enum Broken {
    Runtime(RuntimeError),
    Unwanted,
}

impl From<Unwanted> for Broken {
    fn from(Unwanted: Unwanted) -> Self {
        Broken::Unwanted
    }
}

impl From<RuntimeError> for Broken {
    fn from(error: RuntimeError) -> Self {
        Broken::Runtime(error)
    }
}

impl<P: Platform> LogSource<P> {
    async fn read(&self, question: &LogQuestion, writer: &StreamWriter) -> Result<(), Broken> {
        let mut log = self.open(question).await?;
        writer.write(encode(&Part::Open)).await?;
        while let Some(chunk) = self.next(log.as_mut(), question.follow).await? {
            for part in parts(&chunk) {
                writer.write(encode(&part)).await?;
            }
        }
        Ok(())
    }

    async fn open(&self, question: &LogQuestion) -> Result<Box<dyn LogStream>, RuntimeError> {
        let container = question.instance.container_id();
        let options = LogOptions {
            follow: question.follow,
            tail_lines: question.tail.map(|lines| lines as usize),
            ..LogOptions::default()
        };
        let opened = self.runtime.logs(&container, &options, self.within);
        // The runtime keeps to its deadlines; one that hangs must not hold a place for ever.
        let opened = self.platform.within(self.within * 2, opened).await;
        opened.unwrap_or_else(|| Err(silent()))
    }

    /// A log that is followed may have nothing to say for as long as it likes.
    async fn next(
        &self,
        log: &mut dyn LogStream,
        follow: bool,
    ) -> Result<Option<LogChunk>, RuntimeError> {
        if follow {
            return log.next().await;
        }
        let next = self.platform.within(self.within, log.next()).await;
        next.unwrap_or_else(|| Err(silent()))
    }
}

fn silent() -> RuntimeError {
    RuntimeError::new(
        ErrorClass::DeadlineExceeded,
        "the container runtime does not answer",
    )
}

fn shortened(mut error: RuntimeError) -> RuntimeError {
    let end = error.message.floor_char_boundary(MESSAGE_BYTES_MAX);
    error.message.truncate(end);
    error
}

/// A chunk, cut so that each part fits into one piece.
fn parts(chunk: &LogChunk) -> impl Iterator<Item = Part> {
    let pieces = chunk.bytes.chunks(PIECE_BYTES_MAX - OVERHEAD_BYTES);
    pieces.map(|bytes| {
        Part::Written(Written {
            stream: chunk.stream,
            at: chunk.at,
            bytes: Bytes::copy_from_slice(bytes),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_fits_into_a_piece_and_nothing_is_lost() {
        let chunk = LogChunk {
            stream: OutputStream::Stderr,
            at: Some(WallTime(u64::MAX)),
            bytes: (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect(),
        };
        let mut read = Vec::new();
        for part in parts(&chunk) {
            let piece = encode(&part);
            assert!(piece.len() <= PIECE_BYTES_MAX, "{} bytes", piece.len());
            match decode::<Part>(&piece) {
                Ok(Part::Written(written)) => read.extend_from_slice(&written.bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, chunk.bytes);
        let error = RuntimeError::new(ErrorClass::Unknown, "é".repeat(20_000));
        assert!(encode(&Part::Failed(shortened(error))).len() <= PIECE_BYTES_MAX);
    }
}
