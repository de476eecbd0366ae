//! Who a container's process runs as: an image's `User`, looked up in the image's own files.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// No file of users or groups is read further, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Ids for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Reads `user`, `uid`, `user:group` or `uid:gid`; empty is root. Names are looked up below
/// `rootfs`; `None` if one is not there.
pub fn resolve(rootfs: &Path, text: &str) -> io::Result<Option<Ids>> {
    if text.is_empty() {
        return Ok(Some(Ids { uid: 0, gid: 0 }));
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let users = read(rootfs, "etc/passwd")?;
    // name:password:uid:gid:...
    let entry = lines(&users).find(|fields| fields[0] == user || fields[2] == user);
    let uid = entry.as_ref().map_or(user, |fields| fields[2]).parse();
    let gid = match group {
        None => entry
            .as_ref()
            .and_then(|fields| fields.get(3))
            .map_or(Ok(0), |gid| gid.parse()),
        Some(group) => {
            let groups = read(rootfs, "etc/group")?;
            // name:password:gid:...
            let entry = lines(&groups).find(|fields| fields[0] == group);
            entry.map_or(group, |fields| fields[2]).parse()
        }
    };
    Ok(match (uid, gid) {
        (Ok(uid), Ok(gid)) => Some(Ids { uid, gid }),
        _ => None,
    })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3)
}

/// A file of the image, whose symlinks mean the image's own files. Absent: empty.
fn read(rootfs: &Path, name: &str) -> io::Result<String> {
    let root: OwnedFd = open(rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(&root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Ids, resolve};

    #[test]
    fn names_are_those_of_the_image() {
        let root = tempfile::tempdir().expect("folder");
        fs::create_dir(root.path().join("etc")).expect("folder");
        // An absolute symlink means the image's file, not the machine's.
        fs::write(
            root.path().join("users"),
            "web:x:33:44::/:/bin/sh\nbad line\n",
        )
        .expect("file");
        std::os::unix::fs::symlink("/users", root.path().join("etc/passwd")).expect("link");
        fs::write(root.path().join("etc/group"), "adm:x:4:\n").expect("file");
        let table = [
            ("", Some((0, 0))),
            ("web", Some((33, 44))),
            ("33", Some((33, 44))),
            ("web:adm", Some((33, 4))),
            ("7:8", Some((7, 8))),
            ("7", Some((7, 0))),
            ("root", None),
            ("web:nobody", None),
            ("-1", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(uid, gid)| Ids { uid, gid });
            assert_eq!(
                resolve(root.path(), text).expect("read"),
                expected,
                "{text}"
            );
        }
    }
}
