//! What a container's process wrote.
//!
//! Podman keeps lines; conmon cuts long ones and marks the pieces, so that the bytes come back as
//! they were written. Over the API each piece is a frame, led by its time in whole seconds.
//!
//! Podman learns the end of a followed log from its file of events. So such a log ends too early
//! where another process has half written a line of that file, and never where the end was written
//! just before Podman looked there (`ReadLog` in `libpod/container_log.go`). Here a log ends with
//! its container: what is left is then read without following. A log only grows, so what was given
//! out already is passed over by its number of frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wavetank_port::{
    ContainerId, ContainerStatus, LogChunk, LogOptions, LogStream, OutputStream, RuntimeError,
    WallTime,
};

use crate::buffers::Frame;
use crate::error::{Error, Result};
use crate::lifecycle::OUR_POLL;
use crate::service::Service;
use crate::transport::{Call, FrameReader};
use crate::wire;

/// How long the service may take to hand over what it has of a log whose container has ended.
const REST_WITHIN: Duration = Duration::from_secs(1);

impl Service {
    pub(crate) async fn logs(
        self: &Arc<Self>,
        id: &ContainerId,
        options: &LogOptions,
    ) -> Result<Log> {
        let seen = self.observe(id).await?;
        let mut log = Log {
            service: Arc::clone(self),
            id: id.clone(),
            podman_id: seen.podman_id,
            since: options.since,
            until: options.until,
            reading: Reading::Over,
            frames_read: 0,
            left_out: BTreeMap::new(),
        };
        let (status, follow) = (seen.state.status, options.follow);
        if status == ContainerStatus::Created && !follow {
            return Ok(log);
        }
        // Podman counts the last lines of both outputs together, we of each: the first pass counts
        // them, the second leaves out the ones before.
        if let Some(kept) = options.tail_lines {
            log.left_out = count_lines(log.open(false).await?)
                .await?
                .into_iter()
                .map(|(stream, lines)| (stream, lines.saturating_sub(kept)))
                .collect();
        }
        match follow && status != ContainerStatus::Exited {
            true => log.follow().await?,
            false => log.reading = Reading::ToItsEnd(log.open(false).await?),
        }
        Ok(log)
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
    service: Arc<Service>,
    id: ContainerId,
    /// Podman's own id: another one under the same name is another container.
    podman_id: String,
    since: Option<WallTime>,
    until: Option<WallTime>,
    reading: Reading,
    /// How many frames were read, wanted or not.
    frames_read: usize,
    /// How many more lines of each output are not wanted.
    left_out: BTreeMap<OutputStream, usize>,
}

/// How far a log has come.
enum Reading {
    /// It grows.
    Followed {
        frames: FrameReader,
        /// How many frames to pass over.
        known: usize,
        /// Waits for the container; nothing once it has ended.
        end: Option<End>,
    },
    /// The stream ended, for whatever reason.
    Interrupted,
    /// It is whole.
    ToItsEnd(FrameReader),
    Over,
}

/// Waits for a container; dropped, it no longer does.
struct End(JoinHandle<()>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Log {
    async fn open(&self, follow: bool) -> Result<FrameReader> {
        let mut call = Call::get(format!("/containers/{}/logs", self.podman_id))
            .query("stdout", "true")
            .query("stderr", "true")
            .query("timestamps", "true")
            .query("follow", if follow { "true" } else { "false" });
        if let Some(since) = self.since {
            // Podman leaves out what was written at that very time, we do not.
            call = call.query("since", &rfc3339(WallTime(since.0.saturating_sub(1))));
        }
        if let Some(until) = self.until {
            call = call.query("until", &rfc3339(until));
        }
        Ok(self.service.client.send(call).await?.frames())
    }

    async fn follow(&mut self) -> Result<()> {
        let frames = self.open(true).await?;
        let (service, id) = (Arc::clone(&self.service), self.id.clone());
        let wait = async move {
            while let Err(error) = service.wait(&id).await
                && !error.is_not_found()
            {
                sleep(OUR_POLL).await;
            }
        };
        self.reading = Reading::Followed {
            frames,
            known: self.frames_read,
            end: Some(End(tokio::spawn(wait))),
        };
        Ok(())
    }

    /// The next frame that was not read before; nothing at the end. Cancel-safe.
    async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            match &mut self.reading {
                Reading::Followed { frames, known, end } => {
                    let next = match end {
                        Some(waiting) => tokio::select! {
                            biased;
                            next = frames.next() => next?,
                            _ = &mut waiting.0 => {
                                *end = None;
                                continue;
                            }
                        },
                        // What is on its way is taken, because the container may be removed.
                        None => match timeout(REST_WITHIN, frames.next()).await {
                            Ok(next) => next?,
                            Err(_) => None,
                        },
                    };
                    match next {
                        Some(_) if *known > 0 => *known -= 1,
                        Some(frame) => {
                            self.frames_read += 1;
                            return Ok(Some(frame));
                        }
                        None => self.reading = Reading::Interrupted,
                    }
                }
                Reading::Interrupted => match self.go_on().await {
                    // The log went with its container.
                    Err(error) if error.is_not_found() => self.reading = Reading::Over,
                    gone_on => gone_on?,
                },
                Reading::ToItsEnd(frames) => match frames.next().await? {
                    Some(frame) => return Ok(Some(frame)),
                    None => self.reading = Reading::Over,
                },
                Reading::Over => return Ok(None),
            }
        }
    }

    /// Follows again what still runs, else reads the rest.
    async fn go_on(&mut self) -> Result<()> {
        let seen = self.service.observe(&self.id).await?;
        if seen.podman_id == self.podman_id && seen.state.exit.is_none() {
            sleep(OUR_POLL).await;
            return self.follow().await;
        }
        let mut frames = self.open(false).await?;
        for _ in 0..self.frames_read {
            if frames.next().await?.is_none() {
                break;
            }
        }
        self.reading = Reading::ToItsEnd(frames);
        Ok(())
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
        while let Some(frame) = self.frame().await? {
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
