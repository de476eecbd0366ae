//! One layer's archive into a folder of its own, ready to be a lower folder of an overlay mount.
//!
//! The archive comes from a registry and is not trusted: no entry may leave the folder, and there
//! are limits on what comes out. What the OCI image specification writes as whiteout files becomes
//! what overlayfs reads as whiteouts.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

/// The most bytes that one layer may unpack to.
const BYTES_MAX: u64 = 32 << 30;

/// The most entries that one layer may have.
const ENTRIES_MAX: usize = 2_000_000;

/// Before a file's name: the file of that name in lower layers is gone.
const WHITEOUT: &str = ".wh.";

/// In a folder: all that lower layers have in it is gone.
const OPAQUE: &str = ".wh..wh..opq";

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The disk, or an archive that breaks off.
    #[error("the layer cannot be unpacked")]
    Io(#[from] io::Error),
    /// An entry that would leave the folder.
    #[error("`{0}` in the layer leaves its folder")]
    Escape(String),
    /// More than there may be.
    #[error("the layer has more than {0}")]
    TooLarge(String),
    /// Compressed in a way that we do not know.
    #[error("the layer is compressed by zstd, which is not supported")]
    Zstd,
    /// Not what the image's configuration says.
    #[error("the layer's content has the digest {found}, not {expected}")]
    Digest {
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// Unpacks the archive in `reader`, compressed by gzip or not, into the empty folder `target`.
/// `diff_id` is the digest of the archive when it is not compressed.
pub fn unpack(mut reader: impl Read, target: &Path, diff_id: &str) -> Result<(), LayerError> {
    let mut magic = [0; 4];
    let length = read_up_to(&mut reader, &mut magic)?;
    let whole = magic[..length].chain(reader);
    match magic {
        [0x1f, 0x8b, ..] => unpack_archive(MultiGzDecoder::new(whole), target, diff_id),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(LayerError::Zstd),
        _ => unpack_archive(whole, target, diff_id),
    }
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn unpack_archive(reader: impl Read, target: &Path, diff_id: &str) -> Result<(), LayerError> {
    let mut counted = Counted {
        reader,
        hash: Sha256::new(),
        left: BYTES_MAX,
    };
    let mut archive = Archive::new(&mut counted);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    for (number, entry) in archive.entries()?.enumerate() {
        if number >= ENTRIES_MAX {
            return Err(LayerError::TooLarge(format!("{ENTRIES_MAX} entries")));
        }
        unpack_entry(&mut entry?, target)?;
    }
    // What pads the archive belongs to its digest.
    io::copy(&mut counted, &mut io::sink())?;
    let found = format!("sha256:{}", hex(&counted.hash.finalize()));
    if found != diff_id {
        let expected = diff_id.to_owned();
        return Err(LayerError::Digest { expected, found });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unpack_entry(entry: &mut Entry<'_, impl Read>, target: &Path) -> Result<(), LayerError> {
    let path = entry.path()?.into_owned();
    let escape = || LayerError::Escape(path.display().to_string());
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let kind = entry.header().entry_type();
    let is_ours = name.starts_with(WHITEOUT) || is_special(kind);
    if !is_ours {
        // `unpack_in` refuses what leaves the folder by its name, by a symlink or a hard link.
        return match entry.unpack_in(target)? {
            true => Ok(()),
            false => Err(escape()),
        };
    }
    let parent = make_parent(target, &path)?.ok_or_else(escape)?;
    if name == OPAQUE {
        setxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(io::Error::from)?;
    } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(escape());
        }
        make_node(
            &parent.join(hidden),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?;
    } else {
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        let (major, minor) = (
            entry.header().device_major()?,
            entry.header().device_minor()?,
        );
        let device = makedev(major.unwrap_or(0), minor.unwrap_or(0));
        let kind = match kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        make_node(&parent.join(name), kind, mode, device)?;
    }
    Ok(())
}

/// What the `tar` crate leaves to us.
fn is_special(kind: EntryType) -> bool {
    matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo)
}

fn make_node(path: &Path, kind: FileType, mode: Mode, device: u64) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    Ok(mknodat(CWD, path, kind, mode, device)?)
}

/// The folder of `path` within `target`, made where it is absent; `None` if the way there leaves
/// `target` by its name or over a symlink.
fn make_parent(target: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let mut folder = target.to_owned();
    for component in path.parent().into_iter().flat_map(Path::components) {
        match component {
            Component::CurDir | Component::RootDir => continue,
            Component::Normal(part) => folder.push(part),
            Component::ParentDir | Component::Prefix(_) => return Ok(None),
        }
        match fs::symlink_metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&folder)?,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(folder))
}

/// Counts and digests what passes.
struct Counted<R> {
    reader: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {BYTES_MAX} bytes"))
        })?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    use std::path::Path;

    use sha2::{Digest as _, Sha256};
    use tar::{Builder, EntryType, Header};

    use super::{LayerError, hex, unpack};

    fn header(kind: EntryType, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        // Only root can give files away.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(0);
        header.set_size(size as u64);
        header
    }

    /// An archive of files by name, unlike `Builder::append_data` without care for the names.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let is_file = *kind == EntryType::Regular;
            let mut header = header(*kind, if is_file { content.len() } else { 0 });
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if !is_file {
                header.set_link_name_literal(content).expect("link");
            }
            header.set_cksum();
            let data = if is_file { content.as_bytes() } else { b"" };
            builder.append(&header, data).expect("append");
        }
        builder.into_inner().expect("archive")
    }

    fn unpack_to(folder: &Path, bytes: &[u8]) -> Result<(), LayerError> {
        let diff_id = format!("sha256:{}", hex(&Sha256::digest(bytes)));
        unpack(bytes, folder, &diff_id)
    }

    #[test]
    fn files_come_out_compressed_or_not() {
        let bytes = archive(&[("a/b", EntryType::Regular, "text")]);
        let diff_id = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).expect("gzip");
        for form in [bytes.clone(), gzip.finish().expect("gzip")] {
            let folder = tempfile::tempdir().expect("folder");
            unpack(&*form, folder.path(), &diff_id).expect("unpack");
            let text = fs::read_to_string(folder.path().join("a/b")).expect("file");
            assert_eq!(text, "text");
        }
    }

    #[test]
    fn no_entry_leaves_its_folder() {
        let outside = tempfile::tempdir().expect("folder");
        let away = outside.path().to_str().expect("text");
        let up = [("../evil", EntryType::Regular, "x")];
        let over_link = [
            ("link", EntryType::Symlink, away),
            ("link/evil", EntryType::Regular, "x"),
        ];
        let hard = [("hard", EntryType::Link, "../../../../../../etc/passwd")];
        let whiteout_up = [("../.wh.evil", EntryType::Regular, "")];
        let whiteout_over_link = [
            ("link", EntryType::Symlink, away),
            ("link/.wh.evil", EntryType::Regular, ""),
        ];
        let opaque_over_link = [
            ("link", EntryType::Symlink, away),
            ("link/.wh..wh..opq", EntryType::Regular, ""),
        ];
        let node_over_link = [
            ("link", EntryType::Symlink, away),
            ("link/evil", EntryType::Fifo, ""),
        ];
        let dots = [("a/.wh...", EntryType::Regular, "")];
        let cases: [&[(&str, EntryType, &str)]; 8] = [
            &up,
            &over_link,
            &hard,
            &whiteout_up,
            &whiteout_over_link,
            &opaque_over_link,
            &node_over_link,
            &dots,
        ];
        for case in cases {
            let folder = tempfile::tempdir().expect("folder");
            let inner = folder.path().join("inner");
            fs::create_dir(&inner).expect("inner");
            unpack_to(&inner, &archive(case)).expect_err(&format!("{case:?}"));
            assert_eq!(
                fs::read_dir(folder.path()).expect("list").count(),
                1,
                "{case:?}"
            );
            assert_eq!(
                fs::read_dir(outside.path()).expect("list").count(),
                0,
                "{case:?}"
            );
        }
    }

    #[test]
    fn an_absolute_name_is_below_the_folder() {
        let folder = tempfile::tempdir().expect("folder");
        let bytes = archive(&[("/wavetank-absolute", EntryType::Regular, "x")]);
        unpack_to(folder.path(), &bytes).expect("unpack");
        assert!(folder.path().join("wavetank-absolute").exists());
        assert!(!Path::new("/wavetank-absolute").exists());
    }

    #[test]
    fn whiteouts_become_those_of_overlayfs() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make whiteouts");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let bytes = archive(&[
            ("a/.wh.gone", EntryType::Regular, ""),
            ("b/.wh..wh..opq", EntryType::Regular, ""),
        ]);
        unpack_to(folder.path(), &bytes).expect("unpack");
        let gone = fs::symlink_metadata(folder.path().join("a/gone")).expect("there");
        assert!(gone.file_type().is_char_device());
        assert_eq!(gone.rdev(), 0);
        let mut value = [0; 4];
        let opaque = rustix::fs::getxattr(
            folder.path().join("b"),
            "trusted.overlay.opaque",
            &mut value[..],
        );
        assert_eq!((opaque, value[0]), (Ok(1), b'y'));
    }

    #[test]
    fn content_must_be_what_its_digest_says() {
        let folder = tempfile::tempdir().expect("folder");
        let bytes = archive(&[("a", EntryType::Regular, "x")]);
        let error = unpack(&*bytes, folder.path(), "sha256:00").expect_err("another");
        assert!(matches!(error, LayerError::Digest { .. }));
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        let bytes = archive(&[("a", EntryType::Regular, "some text")]);
        for length in [1, 100, 511, 515] {
            let folder = tempfile::tempdir().expect("folder");
            unpack_to(folder.path(), &bytes[..length]).expect_err("cut");
        }
        let folder = tempfile::tempdir().expect("folder");
        let zstd = unpack_to(folder.path(), &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]);
        assert!(matches!(zstd, Err(LayerError::Zstd)));
    }
}
