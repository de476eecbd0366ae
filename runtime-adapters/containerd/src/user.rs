//! Who a container's process is: the image says it by name or number, the kernel wants numbers.
//!
//! Names are looked up in the image's own `/etc/passwd` and `/etc/group`, read from the snapshot's
//! layers without mounting it. The image is not trusted: its links never lead out of it, and only
//! [`FILE_BYTES_MAX`] are read.

use std::fs::File;
use std::io::Read as _;

use oci_spec::runtime::User;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use wavetank_port::{ErrorClass, runtime::Result};

use crate::api::containerd::types::Mount;
use crate::error::error;

/// The largest file of names that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The user that the image asks for, as `user`, `uid`, `user:group` or `uid:gid`; empty is root.
pub(crate) fn resolve(text: &str, snapshot: &[Mount]) -> Result<User> {
    if text.is_empty() {
        return Ok(User::default());
    }
    let roots = roots(snapshot);
    let read = |file| roots.iter().find_map(|root| read_in(root, file));
    let passwd = read("etc/passwd").unwrap_or_default();
    let group = read("etc/group").unwrap_or_default();
    look_up(text, &passwd, &group).ok_or_else(|| {
        error(
            ErrorClass::InvalidArgument,
            format!("the image runs as `{text}`, which its /etc/passwd or /etc/group do not have"),
        )
    })
}

fn look_up(text: &str, passwd: &str, group: &str) -> Option<User> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name)),
        None => (text, None),
    };
    let number = name.parse::<u32>().ok();
    let entry = lines(passwd)
        .find(|it| it.first() == Some(&name) || (number.is_some() && field(it, 2) == number));
    let uid = match &entry {
        Some(entry) => field(entry, 2)?,
        None => number?,
    };
    let own_gid = entry.as_ref().and_then(|it| field(it, 3)).unwrap_or(0);
    let gid = match group_name {
        None => own_gid,
        Some(name) => {
            let found = lines(group).find(|it| it.first() == Some(&name));
            found.and_then(|it| field(&it, 2)).or(name.parse().ok())?
        }
    };
    let mut user = User::default();
    user.set_uid(uid).set_gid(gid);
    if group_name.is_none() {
        user.set_additional_gids(entry.and_then(|it| member_of(group, it.first()?)));
    }
    Some(user)
}

/// The numbers of the groups that name `user` as a member.
fn member_of(group: &str, user: &str) -> Option<Vec<u32>> {
    let member = |it: &Vec<&str>| {
        it.get(3)
            .is_some_and(|all| all.split(',').any(|m| m == user))
    };
    let gids: Vec<u32> = lines(group)
        .filter(member)
        .filter_map(|it| field(&it, 2))
        .collect();
    (!gids.is_empty()).then_some(gids)
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn field(entry: &[&str], index: usize) -> Option<u32> {
    entry.get(index)?.parse().ok()
}

/// The directories that make up a snapshot, highest first.
fn roots(snapshot: &[Mount]) -> Vec<String> {
    let mut roots = Vec::new();
    for mount in snapshot {
        if mount.r#type != "overlay" {
            roots.push(mount.source.clone());
        }
        for option in &mount.options {
            if let Some(lower) = option.strip_prefix("lowerdir=") {
                roots.extend(lower.split(':').map(str::to_owned));
            }
        }
    }
    roots
}

fn read_in(root: &str, file: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = open(root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    // A named pipe must not hold us up, and a link must not lead out.
    let flags = flags | OFlags::NONBLOCK;
    let file = openat2(root, file, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let mut text = String::new();
    File::from(file)
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::{look_up, resolve};
    use crate::api::containerd::types::Mount;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:33:34:w:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nadm:x:4:other,web\n";

    #[test]
    fn names_and_numbers_are_looked_up() {
        let table = [
            ("web", Some((33, 34, 1))),
            ("33", Some((33, 34, 1))),
            ("web:adm", Some((33, 4, 0))),
            ("web:77", Some((33, 77, 0))),
            ("1000", Some((1000, 0, 0))),
            ("1000:1000", Some((1000, 1000, 0))),
            ("root", Some((0, 0, 0))),
            ("nobody", None),
            ("web:nogroup", None),
            ("", None),
            ("-1", None),
        ];
        for (text, expected) in table {
            let found = look_up(text, PASSWD, GROUP);
            let found = found.map(|it| {
                let more = it.additional_gids().as_ref().map_or(0, Vec::len);
                (it.uid(), it.gid(), more)
            });
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_highest_layer_counts_and_links_stay_inside() {
        let root = tempfile::tempdir().expect("a folder");
        let path = |name: &str| root.path().join(name);
        for layer in ["top/etc", "low/etc", "evil/etc"] {
            std::fs::create_dir_all(path(layer)).expect("a folder");
        }
        std::fs::write(path("top/etc/passwd"), "a:x:1:1::/:\n").expect("a file");
        std::fs::write(path("low/etc/passwd"), "a:x:2:2::/:\n").expect("a file");
        std::os::unix::fs::symlink(path("low/etc/passwd"), path("evil/etc/passwd"))
            .expect("a link");
        let overlay = |dirs: &[&str]| Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec![format!(
                "lowerdir={}",
                dirs.iter()
                    .map(|it| path(it).display().to_string())
                    .collect::<Vec<_>>()
                    .join(":")
            )],
            ..Mount::default()
        };
        let both = resolve("a", &[overlay(&["top", "low"])]).expect("it is there");
        assert_eq!(both.uid(), 1);
        let evil = resolve("a", &[overlay(&["evil", "low"])]).expect("it is there");
        assert_eq!(
            evil.uid(),
            2,
            "the link leads nowhere inside: the layer below counts"
        );
        assert!(resolve("a", &[overlay(&["evil"])]).is_err());
    }
}
