//! Cuts a stream of bytes into lines or frames, whatever pieces it comes in. No IO.

use wavetank_port::OutputStream;

/// The longest line taken. An event repeats all labels of its container, so it can be long.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// The longest frame taken. Podman's are at most a line of a log, which conmon cuts at 8 KiB.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

/// A frame's head: one byte for the stream, three unused, four for the length (big-endian). Known
/// as the attach protocol from Docker's API, which Podman keeps.
const HEAD_BYTES: usize = 8;

/// A piece of the stream that breaks a limit or the protocol; nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooLong {
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    Line,
    #[error("a frame claims {0} bytes, {FRAME_BYTES_MAX} are the most")]
    Frame(u32),
    #[error("a frame is for output {0}, there are 1 and 2")]
    Output(u8),
}

/// Lines being collected.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    /// How much of `bytes` was given out.
    taken: usize,
    /// How far we looked for the next end without finding one.
    searched: usize,
}

impl Lines {
    /// Takes more of the stream. Fails if what is left of the last line is too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
        let last_end = self.bytes.iter().rposition(|it| *it == b'\n');
        let tail = self.bytes.len() - last_end.map_or(0, |at| at + 1);
        if tail > LINE_BYTES_MAX {
            return Err(TooLong::Line);
        }
        Ok(())
    }

    /// The next whole line, without its end.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let found = self.bytes[self.searched..]
            .iter()
            .position(|it| *it == b'\n');
        let Some(offset) = found else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + offset;
        let line = self.bytes[self.taken..end].to_vec();
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }

    /// What came after the last end, once the stream is over.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.split_off(self.taken);
        *self = Lines::default();
        (!rest.is_empty()).then_some(rest)
    }
}

/// What one frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: OutputStream,
    pub(crate) bytes: Vec<u8>,
}

/// Frames being collected.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Takes more of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// True if nothing of an unfinished frame is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The next whole frame.
    pub(crate) fn pop(&mut self) -> Result<Option<Frame>, TooLong> {
        let unread = &self.bytes[self.taken..];
        let Some((head, body)) = unread.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let stream = match head[0] {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            other => return Err(TooLong::Output(other)),
        };
        let claimed = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::try_from(claimed)
            .ok()
            .filter(|it| *it <= FRAME_BYTES_MAX)
            .ok_or(TooLong::Frame(claimed))?;
        let Some(bytes) = body.get(..length) else {
            return Ok(None);
        };
        let bytes = bytes.to_vec();
        self.taken += HEAD_BYTES + length;
        Ok(Some(Frame { stream, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wavetank_port::OutputStream;

    use super::{Frame, Frames, LINE_BYTES_MAX, Lines, TooLong};

    /// `bytes` in pieces of the lengths that `cuts` says, over and over.
    fn pieces<'a>(mut bytes: &'a [u8], cuts: &'a [usize]) -> Vec<&'a [u8]> {
        let mut out = Vec::new();
        for cut in cuts.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            let (piece, rest) = bytes.split_at((*cut).clamp(1, bytes.len()));
            out.push(piece);
            bytes = rest;
        }
        out
    }

    fn encode(frame: &Frame) -> Vec<u8> {
        let stream = match frame.stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        let length = u32::try_from(frame.bytes.len()).expect("a short frame");
        let mut out = vec![stream, 0, 0, 0];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&frame.bytes);
        out
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let stream = prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)];
        let bytes = proptest::collection::vec(any::<u8>(), 0..50);
        (stream, bytes).prop_map(|(stream, bytes)| Frame { stream, bytes })
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut lines = Lines::default();
        let block = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines.push(&block), Ok(()));
        assert_eq!(lines.push(b"x"), Err(TooLong::Line));
    }

    #[test]
    fn a_frame_cannot_claim_too_much_nor_another_output() {
        let mut frames = Frames::default();
        frames.push(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.pop(), Err(TooLong::Frame(u32::MAX)));
        let mut frames = Frames::default();
        frames.push(&[3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frames.pop(), Err(TooLong::Output(3)));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            lines in proptest::collection::vec("[a-z]{0,9}", 0..9),
            rest in "[a-z]{0,9}",
            cuts in proptest::collection::vec(1_usize..9, 1..5),
        ) {
            let text: String = lines.iter().map(|it| format!("{it}\n")).collect();
            let text = text + &rest;
            let mut buffer = Lines::default();
            let mut found = Vec::new();
            for piece in pieces(text.as_bytes(), &cuts) {
                buffer.push(piece).expect("short lines");
                found.extend(std::iter::from_fn(|| buffer.pop()));
            }
            let lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(found, lines);
            prop_assert_eq!(buffer.rest().unwrap_or_default(), rest.into_bytes());
        }

        #[test]
        fn frames_do_not_depend_on_the_pieces(
            frames in proptest::collection::vec(any_frame(), 0..6),
            cuts in proptest::collection::vec(1_usize..20, 1..5),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
            let mut buffer = Frames::default();
            let mut found = Vec::new();
            for piece in pieces(&bytes, &cuts) {
                buffer.push(piece);
                while let Some(frame) = buffer.pop().expect("good frames") {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_end_in_frames_or_an_error(bytes: Vec<u8>) {
            let mut buffer = Frames::default();
            buffer.push(&bytes);
            let mut total = 0;
            while let Ok(Some(frame)) = buffer.pop() {
                total += frame.bytes.len();
            }
            prop_assert!(total <= bytes.len());
        }
    }
}
