//! Bundles that a daemon left behind when it died in the middle of a create.
//!
//! A create begins with a directory of the container's name, the bundle. A daemon that comes back
//! hands a bundle without a living shim to `containerd-shim-runc-v2 delete`, which gives up when
//! the shim had not come to writing the file `runtime` (containerd issue 11071; still so in 2.0.0).
//! Then the bundle stays, and every later create under that name fails with `file exists`. No call
//! of the daemon removes it: it has no task for it. So we do.
//!
//! Two things keep us off a bundle that is in use. Without `runtime` no container was ever made in
//! it. And one that is older than the daemon's socket is older than the daemon, which knows nothing
//! of it, or it would not have tried to make it. The socket may be a proxy's and older than any
//! daemon; then a bundle is old that nobody has made anything of for longer than a shim takes to
//! come up.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wavetank_port::ContainerId;

use crate::config::ContainerdConfig;

/// No shim takes longer from its bundle to writing `runtime`: 20 times what it took at a load of
/// ten on each core.
const SHIM_STARTS_WITHIN: Duration = Duration::from_secs(5);

/// Removes what is in the way of a create that failed with `message`. False if it may not be
/// removed, or is something else.
pub(crate) fn removed(config: &ContainerdConfig, id: &ContainerId, message: &str) -> bool {
    let Some(bundle) = bundle_in(message, &config.namespace, id) else {
        return false;
    };
    if !is_abandoned(&bundle, &config.socket) {
        return false;
    }
    end_shims(&bundle);
    std::fs::remove_dir_all(bundle).is_ok()
}

/// The bundle that the daemon could not make, as only its message names it.
fn bundle_in(message: &str, namespace: &str, id: &ContainerId) -> Option<PathBuf> {
    let (_, rest) = message.split_once("mkdir ")?;
    let (path, _) = rest.split_once(": file exists")?;
    let path = PathBuf::from(path);
    let own = Path::new("io.containerd.runtime.v2.task")
        .join(namespace)
        .join(&id.0);
    (path.is_absolute() && path.ends_with(own)).then_some(path)
}

fn is_abandoned(bundle: &Path, socket: &Path) -> bool {
    // Made first in it, and not written to before there is a container.
    let made = changed(&bundle.join("rootfs"));
    let daemon = changed(socket);
    let older = made.zip(daemon).is_some_and(|(made, daemon)| made < daemon);
    let age = made.and_then(|made| made.elapsed().ok());
    let is_old = older || age.is_some_and(|age| age > SHIM_STARTS_WITHIN);
    is_old && !bundle.join("runtime").exists()
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::symlink_metadata(path).ok()?.modified().ok()
}

/// Kills the shims in it, which may be waiting for a daemon that is gone. The next create would
/// find one by its socket and wait with it.
fn end_shims(bundle: &Path) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|it| it.parse().ok());
        if let Some(process) = pid.and_then(|pid| process_in(bundle, pid)) {
            // An error says that it has ended.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}

/// The process `pid`, if its working directory is `directory`.
fn process_in(directory: &Path, pid: i32) -> Option<OwnedFd> {
    let works_in = || std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    if works_in()? != directory {
        return None;
    }
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // The number may have been given to another process; from here on it cannot be.
    (works_in()? == directory).then_some(process)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, SystemTime};

    use wavetank_port::ContainerId;

    use super::removed;
    use crate::config::ContainerdConfig;

    /// A daemon's directory with the bundle of the container `a`.
    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a folder");
            let place = Place { directory };
            fs::create_dir_all(place.bundle().join("rootfs")).expect("a bundle");
            place
        }

        fn socket(&self) -> PathBuf {
            self.directory.path().join("socket")
        }

        fn bundle(&self) -> PathBuf {
            let bundles = self.directory.path().join("io.containerd.runtime.v2.task");
            bundles.join("namespace/a")
        }

        /// The daemon comes up.
        fn serve(&self) {
            // File systems count time in ticks.
            std::thread::sleep(Duration::from_millis(20));
            fs::write(self.socket(), "").expect("a socket");
        }

        fn removed_by(&self, message: &str) -> bool {
            let config = ContainerdConfig::new(self.socket(), "namespace", "/nowhere");
            removed(&config, &ContainerId("a".to_owned()), message)
        }

        fn removed(&self) -> bool {
            self.removed_by(&message(&self.bundle()))
        }
    }

    fn message(path: &Path) -> String {
        let path = path.display();
        format!("container a: failed to start shim: mkdir {path}: file exists")
    }

    #[test]
    fn a_bundle_of_an_earlier_daemon_goes_with_its_shim() {
        let place = Place::new();
        let mut shim = Command::new("sleep")
            .arg("60")
            .current_dir(place.bundle())
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");
        place.serve();
        assert!(place.removed());
        assert!(!place.bundle().exists());
        assert!(!shim.wait().expect("it ends").success());
    }

    #[test]
    fn a_bundle_that_this_daemon_makes_stays() {
        let place = Place::new();
        place.serve();
        let later = place.bundle().join("rootfs");
        fs::remove_dir(&later).expect("there is one");
        std::thread::sleep(Duration::from_millis(20));
        fs::create_dir(&later).expect("a new one");
        assert!(!place.removed());
        assert!(place.bundle().exists());
    }

    #[test]
    fn a_bundle_of_long_ago_goes_whoever_serves_the_socket() {
        let place = Place::new();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::write(place.socket(), "").expect("a socket");
        let socket = fs::File::open(place.socket()).expect("it is there");
        socket
            .set_modified(long_ago - Duration::from_secs(60))
            .expect("an old one");
        assert!(!place.removed(), "somebody may be at it");
        let rootfs = fs::File::open(place.bundle().join("rootfs")).expect("it is there");
        rootfs.set_modified(long_ago).expect("an old one");
        assert!(place.removed());
        assert!(!place.bundle().exists());
    }

    #[test]
    fn a_bundle_with_a_container_stays() {
        let place = Place::new();
        fs::write(place.bundle().join("runtime"), "").expect("a file");
        place.serve();
        assert!(!place.removed());
        assert!(place.bundle().exists());
    }

    #[test]
    fn nothing_else_is_removed_whatever_the_daemon_says() {
        let place = Place::new();
        let other = place.bundle().with_file_name("b");
        fs::create_dir_all(other.join("rootfs")).expect("another bundle");
        place.serve();
        let elsewhere = place.directory.path().join("namespace/a");
        fs::create_dir_all(elsewhere.join("rootfs")).expect("a folder");
        let roundabout = other.join("../../../namespace/a");
        for path in [&other, &elsewhere, &roundabout, place.directory.path()] {
            assert!(!place.removed_by(&message(path)), "{}", path.display());
            assert!(path.exists(), "{}", path.display());
        }
        for text in ["", "mkdir ", "mkdir : file exists", "file exists"] {
            assert!(!place.removed_by(text), "{text}");
        }
    }
}
