//! Logs: what a container's process has written, selected, and followed.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use wavetank_port::{
    ContainerId, ContainerStatus, LogChunk, LogOptions, LogStream, OutputStream, RuntimeError,
};
use wavetank_world::Written;

use crate::runtime::Shared;

/// A log being read.
pub struct SimLog {
    shared: Weak<Shared>,
    id: ContainerId,
    options: LogOptions,
    /// Selected and not yet said.
    ready: VecDeque<LogChunk>,
    /// Pieces of the container's log that were looked at.
    seen: usize,
}

impl SimLog {
    /// What `options` select of the log of `id`.
    pub fn new(shared: &Arc<Shared>, id: &ContainerId, options: &LogOptions) -> Self {
        let mut log = SimLog {
            shared: Arc::downgrade(shared),
            id: id.clone(),
            options: options.clone(),
            ready: VecDeque::new(),
            seen: 0,
        };
        log.look(shared);
        if let Some(lines) = options.tail_lines {
            keep_last_lines(&mut log.ready, lines);
        }
        log
    }

    /// Takes what is new. True if there can be more.
    fn look(&mut self, shared: &Shared) -> bool {
        let state = shared.lock();
        let written = state.world.log(&self.id).unwrap_or_default();
        for piece in written.iter().skip(self.seen) {
            if is_selected(piece, &self.options) {
                self.ready.push_back(LogChunk {
                    stream: piece.stream,
                    at: Some(piece.at),
                    bytes: piece.bytes.clone(),
                });
            }
        }
        self.seen = self.seen.max(written.len());
        let container = state.world.state(&self.id);
        container.is_some_and(|state| state.status != ContainerStatus::Exited)
    }
}

#[async_trait]
impl LogStream for SimLog {
    async fn next(&mut self) -> Result<Option<LogChunk>, RuntimeError> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            let Some(shared) = self.shared.upgrade().filter(|_| self.options.follow) else {
                return Ok(None);
            };
            let news = shared.news.notified();
            let more = self.look(&shared);
            if self.ready.is_empty() {
                if !more {
                    return Ok(None);
                }
                news.await;
            }
        }
    }
}

fn is_selected(piece: &Written, options: &LogOptions) -> bool {
    options.since.is_none_or(|since| piece.at >= since)
        && options.until.is_none_or(|until| piece.at < until)
}

/// Drops all but the last lines of each output. A line without an end is a line.
fn keep_last_lines(chunks: &mut VecDeque<LogChunk>, lines: usize) {
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        let of_stream = || chunks.iter().filter(|chunk| chunk.stream == stream);
        let bytes: Vec<u8> = of_stream().flat_map(|chunk| chunk.bytes.clone()).collect();
        let starts = bytes.split_inclusive(|byte| *byte == b'\n');
        let lengths: Vec<usize> = starts.map(<[u8]>::len).collect();
        let dropped = lengths.len().saturating_sub(lines);
        let mut drop: usize = lengths[..dropped].iter().sum();
        for chunk in chunks.iter_mut().filter(|chunk| chunk.stream == stream) {
            let cut = drop.min(chunk.bytes.len());
            chunk.bytes.drain(..cut);
            drop -= cut;
        }
    }
    chunks.retain(|chunk| !chunk.bytes.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_apart_for_each_output_and_across_pieces() {
        let chunk = |stream, text: &str| LogChunk {
            stream,
            at: None,
            bytes: text.as_bytes().to_vec(),
        };
        let all = [
            chunk(OutputStream::Stdout, "a\nb"),
            chunk(OutputStream::Stderr, "x\n"),
            chunk(OutputStream::Stdout, "c\nd"),
        ];
        let last = |lines| {
            let mut chunks = VecDeque::from(all.clone());
            keep_last_lines(&mut chunks, lines);
            let text = chunks.iter().flat_map(|chunk| chunk.bytes.clone());
            String::from_utf8(text.collect()).expect("the pieces are text")
        };
        assert_eq!(
            [last(0), last(1), last(2), last(3)],
            ["", "x\nd", "bx\nc\nd", "a\nbx\nc\nd"]
        );
    }
}
