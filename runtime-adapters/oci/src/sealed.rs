//! State files that are either whole or recognisably damaged: a header with version, length and
//! checksum, then JSON. Written beside their place, synced and renamed, so that a reader sees the
//! old one or the new one.
//!
//! What the files mean is in `record`; this module must not know.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// What the header begins with. Another version is another word here, and reads as damaged by an
/// older program instead of being misunderstood.
const MAGIC: &str = "wavetank-oci-1";

/// No state file is larger; a larger one is damaged.
const BYTES_MAX: u64 = 4 << 20;

/// What a state file holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Sealed<T> {
    /// There is no such file.
    Absent,
    /// There is one, and this is wrong with it.
    Damaged(String),
    /// Whole.
    Valid(T),
}

impl<T> Sealed<T> {
    /// The content, if it is whole.
    pub fn valid(self) -> Option<T> {
        match self {
            Sealed::Valid(value) => Some(value),
            Sealed::Absent | Sealed::Damaged(_) => None,
        }
    }

    /// True if there is a file, whole or not.
    pub fn exists(&self) -> bool {
        !matches!(self, Sealed::Absent)
    }
}

/// Reads `folder/name`. Only trouble of the file system is an error; bad content is
/// [`Sealed::Damaged`].
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Sealed<T>> {
    let file = match File::open(folder.join(name)) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(Sealed::Absent),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(match open(&bytes) {
        Ok(value) => Sealed::Valid(value),
        Err(reason) => Sealed::Damaged(reason),
    })
}

/// Absent is also what lies below a folder that has just been removed.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// What a file must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlives {
    /// The death of any process. What it says means nothing after a reboot.
    Crash,
    /// A power loss too: waits for the disk.
    PowerLoss,
}

/// Writes `folder/name`, whatever was there.
pub fn replace<T: Serialize>(
    folder: &Path,
    name: &str,
    value: &T,
    outlives: Outlives,
) -> io::Result<()> {
    let temporary = write_beside(folder, name, value, outlives)?;
    fs::rename(folder.join(temporary), folder.join(name))?;
    match outlives {
        Outlives::Crash => Ok(()),
        Outlives::PowerLoss => sync_folder(folder),
    }
}

/// The second copy of what nobody could do without.
fn copy_of(name: &str) -> String {
    format!("{name}.copy")
}

/// Writes `folder/name` and a copy.
pub fn replace_both<T: Serialize>(
    folder: &Path,
    name: &str,
    value: &T,
    outlives: Outlives,
) -> io::Result<()> {
    replace(folder, &copy_of(name), value, outlives)?;
    replace(folder, name, value, outlives)
}

/// Reads `folder/name`, or its copy if that is not whole.
pub fn read_either<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Sealed<T>> {
    match read(folder, name)? {
        Sealed::Valid(value) => Ok(Sealed::Valid(value)),
        first => match read(folder, &copy_of(name))? {
            Sealed::Absent => Ok(first),
            second => Ok(second),
        },
    }
}

/// Removes `folder/name` and its copy. Absent: nothing happens.
pub fn remove_both(folder: &Path, name: &str) -> io::Result<()> {
    for name in [copy_of(name), name.to_owned()] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if !is_absent(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Writes `folder/name` unless it is there. False: somebody was first, and theirs stands.
pub fn create_once<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<bool> {
    let temporary = folder.join(write_beside(folder, name, value, Outlives::PowerLoss)?);
    let renamed = renameat_with(
        CWD,
        &temporary,
        CWD,
        folder.join(name),
        RenameFlags::NOREPLACE,
    );
    match renamed {
        Ok(()) => sync_folder(folder).map(|()| true),
        Err(error) => {
            fs::remove_file(&temporary)?;
            if error == rustix::io::Errno::EXIST {
                return Ok(false);
            }
            Err(error.into())
        }
    }
}

fn write_beside<T: Serialize>(
    folder: &Path,
    name: &str,
    value: &T,
    outlives: Outlives,
) -> io::Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".{name}.{}.{number}", std::process::id());
    let mut file = File::create(folder.join(&temporary))?;
    file.write_all(&seal(value)?)?;
    if outlives == Outlives::PowerLoss {
        file.sync_all()?;
    }
    Ok(temporary)
}

/// Makes a rename in `folder` outlive a power loss.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn seal<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    let header = format!("{MAGIC} {} {}\n", body.len(), checksum(&body));
    let mut bytes = header.into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("the header is incomplete")?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| "the header is not text")?;
    let body = &bytes[end + 1..];
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(format!("the header does not begin with {MAGIC}"));
    }
    if words.next() != Some(body.len().to_string().as_str()) {
        return Err("the length is not what the header says".to_owned());
    }
    if words.next() != Some(checksum(body).as_str()) || words.next().is_some() {
        return Err("the checksum is not what the header says".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// The first 16 hexadecimal digits of SHA-256: against torn writes, not against an enemy.
pub fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Outlives, Sealed, create_once, read, read_either, replace, replace_both};

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(
            read::<String>(folder.path(), "a").expect("read"),
            Sealed::Absent
        );
        replace(folder.path(), "a", &"one", Outlives::Crash).expect("write");
        replace(folder.path(), "a", &"two", Outlives::Crash).expect("write");
        let found = read::<String>(folder.path(), "a").expect("read");
        assert_eq!(found, Sealed::Valid("two".to_owned()));
        let left = fs::read_dir(folder.path()).expect("list").count();
        assert_eq!(left, 1, "no temporary file is left");
    }

    #[test]
    fn the_first_writer_wins() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(create_once(folder.path(), "exit", &7).expect("first"));
        assert!(!create_once(folder.path(), "exit", &8).expect("second"));
        let found = read::<i32>(folder.path(), "exit").expect("read");
        assert_eq!(found, Sealed::Valid(7));
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_file_cut_anywhere_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        replace(folder.path(), "a", &vec!["text", "more"], Outlives::Crash).expect("write");
        let whole = fs::read(folder.path().join("a")).expect("bytes");
        for length in 0..whole.len() {
            fs::write(folder.path().join("a"), &whole[..length]).expect("cut");
            let found = read::<Vec<String>>(folder.path(), "a").expect("read");
            assert!(matches!(found, Sealed::Damaged(_)), "{length}: {found:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_damage() {
        let folder = tempfile::tempdir().expect("folder");
        replace(folder.path(), "a", &vec!["text"], Outlives::Crash).expect("write");
        let whole = fs::read(folder.path().join("a")).expect("bytes");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(folder.path().join("a"), &bytes).expect("change");
            let found = read::<Vec<String>>(folder.path(), "a").expect("read");
            assert!(matches!(found, Sealed::Damaged(_)), "{at}: {found:?}");
        }
    }

    #[test]
    fn one_whole_copy_is_enough() {
        let folder = tempfile::tempdir().expect("folder");
        replace_both(folder.path(), "a", &7, Outlives::PowerLoss).expect("write");
        for name in ["a", "a.copy"] {
            let whole = fs::read(folder.path().join(name)).expect("bytes");
            fs::write(folder.path().join(name), b"torn").expect("tear");
            let found = read_either::<i32>(folder.path(), "a").expect("read");
            assert_eq!(found, Sealed::Valid(7), "{name}");
            fs::remove_file(folder.path().join(name)).expect("remove");
            let found = read_either::<i32>(folder.path(), "a").expect("read");
            assert_eq!(found, Sealed::Valid(7), "{name}");
            fs::write(folder.path().join(name), whole).expect("mend");
        }
    }
}
