//! The journal of events of one root: every monitor and every adapter appends to it, each
//! subscriber reads it from where it likes.
//!
//! One line per event, with a checksum. A writer that dies half-way leaves a line that no reader
//! takes for an event and that the next writer closes. The journal is a hint and not synced: what
//! counts is in the containers' folders. Two files are kept, so that it does not grow for ever.
//!
//! A journal rather than a watch on the state files: a watch says nothing about the time before
//! it, while a place in a journal can be come back to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wavetank_port::RuntimeEvent;

use crate::deadline::Lock;
use crate::sealed::checksum;

/// A file is left for the next one at this size: about 40,000 events.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// No line is longer; a longer one is damage.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// One event, and whose: an id may be used again, an incarnation never is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which life of the container.
    pub incarnation: String,
    /// What happened.
    pub event: RuntimeEvent,
}

/// A place between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which file.
    pub file: u64,
    /// How many bytes into it.
    pub offset: u64,
}

impl Place {
    /// The text that a caller keeps.
    pub fn to_text(self) -> String {
        format!("{}:{}", self.file, self.offset)
    }

    /// Back from the text; `None` if it is none of ours.
    pub fn from_text(text: &str) -> Option<Self> {
        let (file, offset) = text.split_once(':')?;
        Some(Place {
            file: file.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// The journal in one folder.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// The journal in `folder`, which is made if it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Journal {
            folder: folder.to_owned(),
        })
    }

    /// Its folder; changes there announce events.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends one event.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        let _lock = self.lock()?;
        self.append_locked(entry)
    }

    /// Appends one event unless its like has been said about the same incarnation. For those who
    /// finish what another began; slow, because it reads the whole journal.
    pub fn append_once(&self, entry: &Entry) -> io::Result<()> {
        let _lock = self.lock()?;
        let is_same = |said: &Entry| {
            said.incarnation == entry.incarnation && said.event.name() == entry.event.name()
        };
        let mut place = self.first()?;
        while let Some((said, next)) = self.read(place)? {
            if is_same(&said) {
                return Ok(());
            }
            place = next;
        }
        self.append_locked(entry)
    }

    fn append_locked(&self, entry: &Entry) -> io::Result<()> {
        let number = self.writable_file()?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(self.path(number))?;
        let mut line = Vec::new();
        if !ends_with_newline(&file)? {
            line.push(b'\n');
        }
        let body = serde_json::to_string(entry)?;
        line.extend_from_slice(format!("{} {body}\n", checksum(body.as_bytes())).as_bytes());
        file.write_all(&line)
    }

    /// The newest file, or a new one if that is full.
    fn writable_file(&self) -> io::Result<u64> {
        let numbers = self.numbers()?;
        let Some(&newest) = numbers.last() else {
            return Ok(1);
        };
        if fs::metadata(self.path(newest))?.len() < FILE_BYTES_MAX {
            return Ok(newest);
        }
        for old in &numbers[..numbers.len() - 1] {
            fs::remove_file(self.path(*old))?;
        }
        Ok(newest + 1)
    }

    /// Where the oldest event is.
    pub fn first(&self) -> io::Result<Place> {
        let file = self.numbers()?.first().copied().unwrap_or(1);
        Ok(Place { file, offset: 0 })
    }

    /// Behind the newest event.
    pub fn end(&self) -> io::Result<Place> {
        let _lock = self.lock()?;
        let file = self.numbers()?.last().copied().unwrap_or(1);
        let offset = match fs::metadata(self.path(file)) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Place { file, offset })
    }

    /// True if `place` can be read on from: its file is still there and long enough.
    pub fn holds(&self, place: Place) -> io::Result<bool> {
        match fs::metadata(self.path(place.file)) {
            Ok(metadata) => Ok(place.offset <= metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(place.offset == 0 && self.numbers()?.is_empty())
            }
            Err(error) => Err(error),
        }
    }

    /// The next event at or after `place` and the place behind it; `None` at the end.
    pub fn read(&self, mut place: Place) -> io::Result<Option<(Entry, Place)>> {
        loop {
            match read_line(&self.path(place.file), place.offset)? {
                Some((Some(entry), length)) => {
                    place.offset += length;
                    return Ok(Some((entry, place)));
                }
                Some((None, length)) => place.offset += length,
                // A file is left for good once the next one exists; whatever is behind the last
                // newline of it was never finished.
                None => match self.numbers()?.into_iter().find(|it| *it > place.file) {
                    Some(file) => place = Place { file, offset: 0 },
                    None => return Ok(None),
                },
            }
        }
    }

    fn lock(&self) -> io::Result<Lock> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("lock"))?;
        Lock::wait(file)
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for item in fs::read_dir(&self.folder)? {
            let name = item?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("journal."));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("journal.{number}"))
    }
}

fn ends_with_newline(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}

/// The whole line at `offset`: its event, if it is one, and its length in bytes.
fn read_line(path: &Path, offset: u64) -> io::Result<Option<(Option<Entry>, u64)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(io::Read::take(file, LINE_BYTES_MAX));
    let length = reader.read_until(b'\n', &mut line)? as u64;
    if line.pop() != Some(b'\n') {
        let is_too_long = length == LINE_BYTES_MAX;
        return Ok(is_too_long.then_some((None, length)));
    }
    Ok(Some((parse(&line), length)))
}

fn parse(line: &[u8]) -> Option<Entry> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, body) = text.split_once(' ')?;
    if sum != checksum(body.as_bytes()) {
        return None;
    }
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wavetank_port::{ContainerId, RuntimeEvent};

    use super::{Entry, Journal, Place};

    fn deleted(id: &str) -> Entry {
        Entry {
            incarnation: format!("{id}-1"),
            event: RuntimeEvent::Deleted {
                id: ContainerId(id.to_owned()),
            },
        }
    }

    fn all(journal: &Journal, mut place: Place) -> Vec<String> {
        let mut found = Vec::new();
        while let Some((entry, next)) = journal.read(place).expect("read") {
            found.push(entry.incarnation);
            place = next;
        }
        found
    }

    #[test]
    fn events_are_read_from_any_place() {
        let folder = tempfile::tempdir().expect("folder");
        let journal = Journal::open(folder.path()).expect("journal");
        let start = journal.end().expect("end");
        journal.append(&deleted("a")).expect("append");
        let middle = journal.end().expect("end");
        journal.append(&deleted("b")).expect("append");
        assert_eq!(all(&journal, start), ["a-1", "b-1"]);
        assert_eq!(all(&journal, middle), ["b-1"]);
        let text = middle.to_text();
        assert_eq!(Place::from_text(&text), Some(middle));
        assert_eq!(Place::from_text("b"), None);
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        let folder = tempfile::tempdir().expect("folder");
        let journal = Journal::open(folder.path()).expect("journal");
        for id in ["a", "a", "b"] {
            journal.append_once(&deleted(id)).expect("append");
        }
        let first = journal.first().expect("first");
        assert_eq!(all(&journal, first), ["a-1", "b-1"]);
    }

    #[test]
    fn a_torn_line_is_no_event_and_hides_none() {
        let folder = tempfile::tempdir().expect("folder");
        let journal = Journal::open(folder.path()).expect("journal");
        journal.append(&deleted("a")).expect("append");
        let path = folder.path().join("journal.1");
        let whole = fs::read(&path).expect("bytes");
        let first = journal.first().expect("first");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("cut");
            assert!(all(&journal, first).is_empty(), "{length}");
            journal.append(&deleted("b")).expect("append");
            // Only the newline is missing: the next writer has completed the line.
            let complete = length == whole.len() - 1;
            let expected: &[&str] = if complete { &["a-1", "b-1"] } else { &["b-1"] };
            assert_eq!(all(&journal, first), expected, "{length}");
        }
    }

    #[test]
    fn a_full_file_is_left_for_the_next_and_old_places_are_known_as_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let journal = Journal::open(folder.path()).expect("journal");
        let start = journal.end().expect("end");
        assert!(journal.holds(start).expect("holds"));
        let filler = format!("{}\n", "x".repeat(1023)).repeat(8 << 10);
        journal.append(&deleted("a")).expect("append");
        fs::write(folder.path().join("journal.1"), &filler).expect("fill");
        journal.append(&deleted("b")).expect("append");
        assert_eq!(all(&journal, start), ["b-1"]);
        fs::write(folder.path().join("journal.2"), &filler).expect("fill");
        journal.append(&deleted("c")).expect("append");
        assert!(!journal.holds(start).expect("holds"));
        assert!(!folder.path().join("journal.1").exists());
        assert_eq!(all(&journal, journal.first().expect("first")), ["c-1"]);
    }
}
