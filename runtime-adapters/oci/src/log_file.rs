//! The file that keeps what a container's process wrote: frames of a fixed header and the exact
//! bytes.
//!
//! Header, little endian, 24 bytes: magic `WL`, version, stream (1 or 2), length (u32), time
//! (u64, nanoseconds since 1970), checksum of all that and the bytes (u32), zero (u32). A frame cut
//! by the death of its writer ends the log; the next writer cuts it off before it goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use wavetank_port::{LogChunk, OutputStream, WallTime};

const HEADER_BYTES: usize = 24;
const MAGIC: [u8; 2] = *b"WL";
const VERSION: u8 = 1;

/// The largest frame, in bytes: what a monitor reads from a pipe at once.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Appends frames.
pub struct LogWriter {
    file: File,
}

impl LogWriter {
    /// Opens the log at `path`, new or behind its last whole frame.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut reader = match LogReader::open(path)? {
            Some(reader) => reader,
            None => LogReader::new(File::create_new(path)?),
        };
        while reader.next_chunk()?.is_some() {}
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(reader.offset)?;
        Ok(LogWriter { file })
    }

    /// Appends one frame. At most [`CHUNK_BYTES_MAX`] bytes.
    pub fn write(&mut self, stream: OutputStream, at: WallTime, bytes: &[u8]) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(&encode(stream, at, bytes));
        if written.is_err() {
            // A full disk: half a frame would hide all that comes after it.
            self.file.set_len(before)?;
        }
        written
    }
}

fn encode(stream: OutputStream, at: WallTime, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    frame.extend_from_slice(&MAGIC);
    frame.push(VERSION);
    frame.push(match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    });
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&at.0.to_le_bytes());
    let sum = checksum(&frame, bytes);
    frame.extend_from_slice(&sum.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(bytes);
    frame
}

fn checksum(header: &[u8], bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(header);
    sum.update(bytes);
    sum.sum()
}

/// Reads frames from the first on.
pub struct LogReader {
    reader: BufReader<File>,
    /// Bytes of the frame that is not whole yet.
    partial: Vec<u8>,
    /// Where the next frame begins.
    offset: u64,
}

impl LogReader {
    /// Opens the log at `path`; `None` if there is none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new(file: File) -> Self {
        LogReader {
            reader: BufReader::with_capacity(CHUNK_BYTES_MAX, file),
            partial: Vec::new(),
            offset: 0,
        }
    }

    /// The next frame; `None` where no whole one is yet. May be asked again when the file has
    /// grown.
    pub fn next_chunk(&mut self) -> io::Result<Option<LogChunk>> {
        if !self.fill(HEADER_BYTES)? {
            return Ok(None);
        }
        let Some(length) = frame_length(&self.partial) else {
            return Ok(None);
        };
        if !self.fill(HEADER_BYTES + length)? {
            return Ok(None);
        }
        let Some(chunk) = decode(&self.partial) else {
            return Ok(None);
        };
        self.offset += self.partial.len() as u64;
        self.partial.clear();
        Ok(Some(chunk))
    }

    /// Reads until `partial` has `length` bytes; false if the file has no more.
    fn fill(&mut self, length: usize) -> io::Result<bool> {
        let missing = length.saturating_sub(self.partial.len()) as u64;
        self.reader
            .by_ref()
            .take(missing)
            .read_to_end(&mut self.partial)?;
        Ok(self.partial.len() >= length)
    }
}

/// The length that a header announces; `None` if it is no header of ours.
fn frame_length(header: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?) as usize;
    let is_ours = header.starts_with(&MAGIC) && header[2] == VERSION;
    (is_ours && length <= CHUNK_BYTES_MAX).then_some(length)
}

fn decode(frame: &[u8]) -> Option<LogChunk> {
    let bytes = &frame[HEADER_BYTES..];
    let at = u64::from_le_bytes(frame[8..16].try_into().ok()?);
    let sum = u32::from_le_bytes(frame[16..20].try_into().ok()?);
    let stream = match frame[3] {
        1 => OutputStream::Stdout,
        2 => OutputStream::Stderr,
        _ => return None,
    };
    (sum == checksum(&frame[..16], bytes)).then(|| LogChunk {
        stream,
        at: Some(WallTime(at)),
        bytes: bytes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use wavetank_port::{OutputStream, WallTime};

    use super::{LogReader, LogWriter};

    fn write(path: &Path, texts: &[&str]) {
        let mut writer = LogWriter::open(path).expect("open");
        for text in texts {
            let stream = OutputStream::Stdout;
            writer
                .write(stream, WallTime(7), text.as_bytes())
                .expect("write");
        }
    }

    fn texts(path: &Path) -> Vec<String> {
        let mut reader = LogReader::open(path).expect("open").expect("there");
        let mut found = Vec::new();
        while let Some(chunk) = reader.next_chunk().expect("read") {
            found.push(String::from_utf8(chunk.bytes).expect("text"));
        }
        found
    }

    #[test]
    fn a_log_cut_anywhere_keeps_its_whole_frames_and_goes_on() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        write(&path, &["one"]);
        let one = fs::read(&path).expect("bytes").len();
        write(&path, &["two"]);
        let whole = fs::read(&path).expect("bytes");
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).expect("cut");
            let kept: &[&str] = match length {
                n if n == whole.len() => &["one", "two"],
                n if n >= one => &["one"],
                _ => &[],
            };
            assert_eq!(texts(&path), kept, "{length}");
            write(&path, &["more"]);
            let expected: Vec<&str> = kept.iter().copied().chain(["more"]).collect();
            assert_eq!(texts(&path), expected, "{length}");
        }
    }

    #[test]
    fn a_reader_goes_on_when_the_log_has_grown() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        let mut writer = LogWriter::open(&path).expect("open");
        let mut reader = LogReader::open(&path).expect("open").expect("there");
        assert_eq!(reader.next_chunk().expect("read"), None);
        let at = WallTime(1);
        writer
            .write(OutputStream::Stderr, at, b"\xff\0")
            .expect("write");
        let chunk = reader.next_chunk().expect("read").expect("a frame");
        assert_eq!((chunk.stream, chunk.at), (OutputStream::Stderr, Some(at)));
        assert_eq!(chunk.bytes, b"\xff\0");
        assert_eq!(reader.next_chunk().expect("read"), None);
    }

    #[test]
    fn any_bytes_are_a_log_that_ends_somewhere() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        fs::write(
            &path,
            b"WL\x01\x01\xff\xff\xff\xff no frame at all, only noise",
        )
        .expect("noise");
        assert!(texts(&path).is_empty());
    }
}
