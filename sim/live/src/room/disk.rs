//! The disk of a host: a folder that survives a loss of power, on the machine's own file system or,
//! where a size was asked for, on a small one that can be filled.
//!
//! The small one is a tmpfs: it gives the true error, costs no loop device, and the memory that it
//! takes is what is stored. Its price: it shows nothing of what a file system does to unsynced
//! writes.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use rustix::mount::{MountFlags, mount};

use super::error::RoomError;
use super::layout::Host;

/// What fills a disk.
const FILLER: &str = ".fills-the-disk";
/// First large pieces, then small ones: the last block counts too.
const PIECES: [usize; 2] = [1 << 20, 1 << 12];

/// Makes the folder and mounts the small file system, if there is to be one.
pub(crate) fn create(host: &Host) -> Result<(), RoomError> {
    let disk = host.disk();
    fs::create_dir_all(&disk).map_err(RoomError::file("create", &disk))?;
    let Some(bytes) = host.small_disk_bytes else {
        return Ok(());
    };
    let options = CString::new(format!("size={bytes},mode=0755")).unwrap_or_default();
    mount(
        "wavetank-disk",
        &disk,
        "tmpfs",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .map_err(io::Error::from)
    .map_err(RoomError::file("mount a tmpfs at", &disk))
}

/// The mount points that are the disk itself and not something on it.
pub(crate) fn mounts(host: &Host) -> Vec<PathBuf> {
    host.small_disk_bytes
        .map(|_| host.disk())
        .into_iter()
        .collect()
}

/// Removes everything on it. Nothing may be mounted there any more but the disk itself.
pub(crate) fn wipe(host: &Host) -> Result<(), RoomError> {
    let disk = host.disk();
    let work = || -> io::Result<()> {
        for entry in fs::read_dir(&disk)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    };
    work().map_err(RoomError::file("empty", &disk))
}

/// Takes all space that is left.
pub(crate) fn fill(host: &Host) -> Result<(), RoomError> {
    if host.small_disk_bytes.is_none() {
        return Err(RoomError::Unsupported {
            what: format!("filling the disk of {}", host.name),
            hint: "it is the machine's own; give the host a small disk".to_owned(),
        });
    }
    let path = host.disk().join(FILLER);
    let work = || -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(&path)?;
        for size in PIECES {
            let piece = vec![0; size];
            while !is_full(file.write(&piece))? {}
        }
        Ok(())
    };
    match work() {
        // Not even its name had room: it is full.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        other => other.map_err(RoomError::file("fill the disk with", &path)),
    }
}

fn is_full(written: io::Result<usize>) -> io::Result<bool> {
    match written {
        Ok(bytes) => Ok(bytes == 0),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(true),
        Err(error) => Err(error),
    }
}

/// Gives it back.
pub(crate) fn free(host: &Host) -> Result<(), RoomError> {
    let path = host.disk().join(FILLER);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RoomError::file("remove", &path)(error))
        }
        _ => Ok(()),
    }
}
