//! JSON Lines in and out: a header line, then one event a line.

use std::io::{BufRead, Write};

use crate::event::{Event, Header};

/// The version of the format that this crate writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Longest line that is read: a snapshot of a large plan fits, a hostile file does not.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Writes a trace.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts a trace with its header.
    pub fn new(mut out: W, header: &Header) -> std::io::Result<Self> {
        write_line(&mut out, header)?;
        Ok(Writer { out })
    }

    /// Adds one event.
    pub fn write(&mut self, event: &Event) -> std::io::Result<()> {
        write_line(&mut self.out, event)
    }

    /// Flushes and gives the output back.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

fn write_line<W: Write>(out: &mut W, value: &impl serde::Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Why a stored trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("line {line}: cannot be read")]
    Io {
        /// Counted from 1.
        line: u64,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("the trace is empty: its first line should be a header")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: not a trace {what}: {error}")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// `header` or `event`.
        what: &'static str,
        /// What the parser said.
        error: String,
    },
    /// A line was taken out, put in or moved: events are numbered from 1 without gaps.
    #[error("line {line}: event {found} where event {wanted} belongs: lines are missing or moved")]
    Gap {
        /// Counted from 1.
        line: u64,
        /// The number that comes next.
        wanted: u64,
        /// The number that is there.
        found: u64,
    },
    /// Another version wrote it.
    #[error("the trace has format version {found}; this wavetank reads version {FORMAT_VERSION}")]
    Version {
        /// Version in the header.
        found: u32,
    },
    /// A line is longer than any real one.
    #[error("line {line}: longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Counted from 1.
        line: u64,
    },
}

/// Reads a trace event by event.
pub struct Reader<R: BufRead> {
    input: R,
    line: u64,
    buffer: Vec<u8>,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut buffer = Vec::new();
        if !read_line(&mut input, &mut buffer, 1)? {
            return Err(ReadError::Empty);
        }
        let header: Header =
            serde_json::from_slice(&buffer).map_err(|error| ReadError::Malformed {
                line: 1,
                what: "header",
                error: error.to_string(),
            })?;
        if header.wavetank_trace != FORMAT_VERSION {
            return Err(ReadError::Version {
                found: header.wavetank_trace,
            });
        }
        Ok(Reader {
            input,
            line: 1,
            buffer,
            header,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line += 1;
        match read_line(&mut self.input, &mut self.buffer, self.line) {
            Ok(false) => None,
            Ok(true) => Some(self.event()),
            Err(error) => Some(Err(error)),
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// The event of the line that was read.
    fn event(&self) -> Result<Event, ReadError> {
        let line = self.line;
        let event: Event =
            serde_json::from_slice(&self.buffer).map_err(|error| ReadError::Malformed {
                line,
                what: "event",
                error: error.to_string(),
            })?;
        // The first line is the header.
        let (wanted, found) = (line - 1, event.id.0);
        match found == wanted {
            true => Ok(event),
            false => Err(ReadError::Gap {
                line,
                wanted,
                found,
            }),
        }
    }
}

/// Reads one line without its end; false at the end of the input.
fn read_line(input: &mut impl BufRead, buffer: &mut Vec<u8>, line: u64) -> Result<bool, ReadError> {
    buffer.clear();
    let read = std::io::Read::take(&mut *input, LINE_BYTES_MAX)
        .read_until(b'\n', buffer)
        .map_err(|source| ReadError::Io { line, source })?;
    if read as u64 == LINE_BYTES_MAX {
        return Err(ReadError::TooLong { line });
    }
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
    }
    Ok(read > 0)
}
