//! What a container's process wrote.
//!
//! Podman keeps lines; conmon cuts long ones and marks the pieces, so that the bytes come back as
//! they were written. Over the API each piece is a frame, led by its time in whole seconds.

use std::collections::BTreeMap;

use async_trait::async_trait;
use wavetank_port::{
    ContainerId, ContainerStatus, LogChunk, LogOptions, LogStream, OutputStream, RuntimeError,
    WallTime,
};

use crate::buffers::Frame;
use crate::error::{Error, Result};
use crate::service::Service;
use crate::transport::{Call, FrameReader};
use crate::wire;

impl Service {
    pub(crate) async fn logs(&self, id: &ContainerId, options: &LogOptions) -> Result<Log> {
        let seen = self.observe(id).await?;
        if seen.state.status == ContainerStatus::Created && !options.follow {
            return Ok(Log::empty());
        }
        // Podman counts the last lines of both outputs together, we of each: the first pass counts
        // them, the second leaves out the ones before. A log only grows, so the count holds.
        let left_out = match options.tail_lines {
            Some(kept) => {
                let all = LogOptions {
                    follow: false,
                    ..options.clone()
                };
                count_lines(self.open_log(id, &all).await?)
                    .await?
                    .into_iter()
                    .map(|(stream, lines)| (stream, lines.saturating_sub(kept)))
                    .collect()
            }
            None => BTreeMap::new(),
        };
        Ok(Log {
            frames: Some(self.open_log(id, options).await?),
            left_out,
        })
    }

    async fn open_log(&self, id: &ContainerId, options: &LogOptions) -> Result<FrameReader> {
        let mut call = Call::get(self.container_path(id, "/logs")?)
            .query("stdout", "true")
            .query("stderr", "true")
            .query("timestamps", "true")
            .query("follow", if options.follow { "true" } else { "false" });
        if let Some(since) = options.since {
            // Podman leaves out what was written at that very time, we do not.
            call = call.query("since", &rfc3339(WallTime(since.0.saturating_sub(1))));
        }
        if let Some(until) = options.until {
            call = call.query("until", &rfc3339(until));
        }
        Ok(self.client.send(call).await?.frames())
    }
}

fn rfc3339(at: WallTime) -> String {
    let nanos = i64::try_from(at.0).unwrap_or(i64::MAX);
    let at = chrono::DateTime::from_timestamp_nanos(nanos);
    at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// How many lines there are of each output; one without an end counts.
async fn count_lines(mut frames: FrameReader) -> Result<BTreeMap<OutputStream, usize>> {
    let mut lines = BTreeMap::new();
    let mut is_open = BTreeMap::new();
    while let Some(frame) = frames.next().await? {
        let open = is_open.entry(frame.stream).or_insert(false);
        if !*open {
            *lines.entry(frame.stream).or_insert(0) += 1;
        }
        *open = !frame.bytes.ends_with(b"\n");
    }
    Ok(lines)
}

/// A log being read.
pub(crate) struct Log {
    /// `None` once it is over.
    frames: Option<FrameReader>,
    /// How many more lines of each output are not wanted.
    left_out: BTreeMap<OutputStream, usize>,
}

impl Log {
    fn empty() -> Self {
        Log {
            frames: None,
            left_out: BTreeMap::new(),
        }
    }

    /// Counts a piece of an unwanted line. A wanted one is false.
    fn leaves_out(&mut self, frame: &Frame) -> bool {
        match self.left_out.get_mut(&frame.stream) {
            Some(lines) if *lines > 0 => {
                if frame.bytes.ends_with(b"\n") {
                    *lines -= 1;
                }
                true
            }
            _ => false,
        }
    }
}

#[async_trait]
impl LogStream for Log {
    async fn next(&mut self) -> Result<Option<LogChunk>, RuntimeError> {
        while let Some(frames) = &mut self.frames {
            let Some(frame) = frames.next().await? else {
                self.frames = None;
                break;
            };
            if !self.leaves_out(&frame) {
                return Ok(Some(chunk(&frame)?));
            }
        }
        Ok(None)
    }
}

/// Takes the time off the front of a piece.
fn chunk(frame: &Frame) -> Result<LogChunk> {
    let end = frame.bytes.iter().position(|it| *it == b' ');
    let split = end.and_then(|end| {
        let at = std::str::from_utf8(&frame.bytes[..end]).ok()?;
        Some((wire::wall_time(at)?, end))
    });
    match split {
        Some((at, end)) => Ok(LogChunk {
            stream: frame.stream,
            at: Some(at),
            bytes: frame.bytes[end + 1..].to_vec(),
        }),
        None => Err(Error::Malformed {
            call: "logs".to_owned(),
            problem: "a piece of the log does not begin with its time".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wavetank_port::{OutputStream, WallTime};

    use super::{chunk, rfc3339};
    use crate::buffers::Frame;
    use crate::wire::wall_time;

    #[test]
    fn a_piece_keeps_its_bytes() {
        let frame = |bytes: &[u8]| Frame {
            stream: OutputStream::Stderr,
            bytes: bytes.to_vec(),
        };
        let piece = chunk(&frame(b"2026-11-21T09:28:49Z  a\xff\r\n")).expect("a piece");
        assert_eq!(piece.bytes, b" a\xff\r\n");
        assert_eq!(piece.at, Some(WallTime(1_795_253_329_000_000_000)));
        assert!(chunk(&frame(b"hello")).is_err());
        assert!(chunk(&frame(b"hello world")).is_err());
    }

    proptest! {
        #[test]
        fn times_survive_being_written(nanos in 1..i64::MAX as u64) {
            prop_assert_eq!(wall_time(&rfc3339(WallTime(nanos))), Some(WallTime(nanos)));
        }
    }
}
