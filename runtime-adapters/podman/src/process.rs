//! Whether a process that Podman remembers is still there, told from `/proc`; and the end of those
//! that Podman forgot, and of their mounts.
//!
//! Podman 4.3 says "running" for ever when conmon was killed before the container ended. Only the
//! process table knows better, so the answers here must never err towards "dead": what cannot be
//! read counts as alive.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wavetank_port::WallTime;

/// How much later than Podman's note of the start a process may have begun and still be the one
/// that was started. Podman notes the time after the fact, so the process is always the older one;
/// what is given is for the kernel's rounding and small steps of the clock.
const START_SLACK_NANOS: u64 = 5_000_000_000;

/// How often it is looked for what a container has left behind, and how long after each look what
/// was killed has to go.
const LOOKS_MAX: u32 = 100;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How the end of a container's first process can be waited for.
pub(crate) enum Init {
    /// It is here; the descriptor can be read once it has ended.
    Held(OwnedFd),
    /// It has ended.
    Ended,
    /// It is not here, or cannot be held.
    Elsewhere,
}

/// The processes that stand behind a container that Podman says is running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processes {
    /// Podman's own id of the container.
    pub(crate) podman_id: String,
    /// The container's first process.
    pub(crate) init: u32,
    /// Its monitor.
    pub(crate) conmon: Option<u32>,
    /// When Podman noted the start.
    pub(crate) started_at: Option<WallTime>,
}

impl Processes {
    /// True if both the container's process and the monitor that would report its end are gone.
    pub(crate) fn are_gone(&self) -> bool {
        !self.init_is_alive() && !self.conmon.is_some_and(|pid| self.conmon_is_alive(pid))
    }

    /// The container's process, looked at while it is held.
    pub(crate) fn hold_init(&self) -> Init {
        let held = hold(self.init);
        match (self.init_is_alive(), held) {
            (false, _) => Init::Ended,
            (true, Some(process)) => Init::Held(process),
            (true, None) => Init::Elsewhere,
        }
    }

    /// A pid may have been given to another process since. That one is told by its cgroup, which
    /// bears the container's id, and, where containers run without cgroups, by its age.
    fn init_is_alive(&self) -> bool {
        match stat(self.init) {
            Look::Gone => false,
            Look::Hidden => true,
            Look::Is(stat) if stat.is_zombie => false,
            Look::Is(stat) => {
                let bears_id = match read(self.init, "cgroup") {
                    Look::Is(cgroups) => cgroups.contains(&self.podman_id),
                    Look::Gone => false,
                    Look::Hidden => true,
                };
                bears_id || !began_after(stat.start_ticks, self.started_at)
            }
        }
    }

    fn conmon_is_alive(&self, pid: u32) -> bool {
        match (stat(pid), read(pid, "cmdline")) {
            (Look::Gone, _) | (_, Look::Gone) => false,
            (Look::Is(stat), _) if stat.is_zombie => false,
            (_, Look::Is(arguments)) => arguments.contains(&self.podman_id),
            (_, Look::Hidden) => true,
        }
    }
}

/// True if `pid_file`, a path that the service named, is here and holds `pid`: then the service's
/// files and process ids are ours, too.
pub(crate) fn pid_file_holds(pid_file: &str, pid: u32) -> bool {
    pid_in_file(pid_file) == Some(pid)
}

/// The process id in a pid file that the service named.
pub(crate) fn pid_in_file(pid_file: &str) -> Option<u32> {
    let path = Path::new(pid_file);
    if !path.is_absolute() {
        return None;
    }
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Kills a process if it is in the container whose id in Podman this is.
pub(crate) fn kill_member(pid: u32, podman_id: &str) {
    kill_if(pid, || is_member(pid, podman_id));
}

/// Kills what still stands for a container that is no more: its monitor, the OCI runtime that makes
/// it, its processes. Looks again until nothing is found, because what is in the making shows only
/// after its maker.
pub(crate) fn kill_left_behind(podman_id: &str) {
    for _ in 0..LOOKS_MAX {
        let pids = all_pids();
        let mut found = false;
        for is_it in [is_monitor, is_maker, is_member] {
            for pid in &pids {
                found |= kill_if(*pid, || is_it(*pid, podman_id) && !is_zombie(*pid));
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

/// Unmounts a container's shared memory, if the folder that the service named for it is here. For
/// what never started nobody needs it, and Podman does not mind that it is gone.
pub(crate) fn unmount_left_behind(static_dir: &str, podman_id: &str) {
    let folder = Path::new(static_dir);
    let bears_id = folder.components().any(|it| it.as_os_str() == podman_id);
    if folder.is_absolute() && bears_id {
        // It fails where nothing is mounted, which is how it should be.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        let _ = unmount(folder.join("shm"), flags);
    }
}

fn all_pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|it| it.file_name().into_string().ok());
    names.filter_map(|it| it.parse().ok()).collect()
}

fn is_member(pid: u32, podman_id: &str) -> bool {
    matches!(read(pid, "cgroup"), Look::Is(cgroups) if cgroups.contains(podman_id))
}

fn is_monitor(pid: u32, podman_id: &str) -> bool {
    let is_conmon = matches!(read(pid, "comm"), Look::Is(name) if name.trim() == "conmon");
    is_conmon && matches!(read(pid, "cmdline"), Look::Is(it) if it.contains(podman_id))
}

/// An OCI runtime's `create`, which goes on when the monitor that asked for it is gone. Its command
/// line is `RUNTIME [OPTIONS] create [OPTIONS] ID`.
fn is_maker(pid: u32, podman_id: &str) -> bool {
    let Look::Is(line) = read(pid, "cmdline") else {
        return false;
    };
    let mut arguments = line.split('\0').filter(|it| !it.is_empty()).skip(1);
    arguments.any(|it| it == "create") && arguments.last() == Some(podman_id)
}

fn is_zombie(pid: u32) -> bool {
    matches!(stat(pid), Look::Is(stat) if stat.is_zombie)
}

/// The process is held when it is looked at for the last time, so that another one under the same
/// pid is never hit. Says whether it was the one.
fn kill_if(pid: u32, is_it: impl Fn() -> bool) -> bool {
    if !is_it() {
        return false;
    }
    let Some(held) = hold(pid) else {
        return false;
    };
    let is_still = is_it();
    if is_still {
        // It may have ended by itself, which is as well.
        let _ = pidfd_send_signal(held, Signal::KILL);
    }
    is_still
}

/// `None` if there is no such process any more, or if the kernel cannot do it.
fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// What was found out about a process.
enum Look<T> {
    Is(T),
    Gone,
    Hidden,
}

fn read(pid: u32, file: &str) -> Look<String> {
    match fs::read(format!("/proc/{pid}/{file}")) {
        Ok(bytes) => Look::Is(String::from_utf8_lossy(&bytes).into_owned()),
        // ESRCH: the process went between open and read.
        Err(error) if error.kind() == ErrorKind::NotFound => Look::Gone,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            Look::Gone
        }
        Err(_) => Look::Hidden,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    is_zombie: bool,
    start_ticks: u64,
}

fn stat(pid: u32) -> Look<Stat> {
    match read(pid, "stat") {
        Look::Is(text) => parse_stat(&text).map_or(Look::Hidden, Look::Is),
        Look::Gone => Look::Gone,
        Look::Hidden => Look::Hidden,
    }
}

/// Fields as in proc(5); the second, the name, is in parentheses and may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    // State is field 3, the start time field 22.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat {
        is_zombie: matches!(state, "Z" | "X" | "x"),
        start_ticks,
    })
}

fn began_after(start_ticks: u64, noted: Option<WallTime>) -> bool {
    let (Some(noted), Some(boot)) = (noted, boot_nanos()) else {
        return false;
    };
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    boot + start_ticks * tick > noted.0.saturating_add(START_SLACK_NANOS)
}

/// When the machine was started, by its present wall clock.
fn boot_nanos() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse::<u64>().ok()?.checked_mul(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};

    use wavetank_port::WallTime;

    use super::{Processes, Stat, kill_left_behind, parse_stat};

    /// A process that sleeps, under the name of an OCI runtime with these arguments.
    fn runtime(arguments: &[&str]) -> Child {
        let script = ["-c", "sleep 30; exit", "runc"];
        let command = script.iter().chain(arguments);
        let mut shell = Command::new("sh");
        let child = shell
            .args(command)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        child.spawn().expect("a shell")
    }

    #[test]
    fn a_runtime_that_still_makes_what_was_removed_is_killed_and_no_other() {
        let id = format!("{:064x}", std::process::id());
        let mut maker = runtime(&["--log", "l", "create", "--bundle", "/b", &id]);
        let mut others = [
            runtime(&["create", "--bundle", "/b", &id[1..]]),
            runtime(&["create", &id, "-f"]),
            runtime(&["state", &id]),
        ];
        kill_left_behind(&id);
        let status = maker.wait().expect("its status");
        assert_eq!(status.signal(), Some(9));
        for other in &mut others {
            assert!(other.try_wait().expect("its status").is_none(), "{other:?}");
            other.kill().expect("it is ours");
            other.wait().expect("its status");
        }
    }

    fn processes(init: u32, podman_id: &str, started_at: u64) -> Processes {
        Processes {
            podman_id: podman_id.to_owned(),
            init,
            conmon: None,
            started_at: Some(WallTime(started_at)),
        }
    }

    #[test]
    fn a_name_in_stat_may_hold_anything() {
        let text = "562 (a) Z 1) S 1 562 562 0 -1 4228364 1153 0 0 0 1 0 0 0 20 0 1 0 164101 0";
        let stat = Stat {
            is_zombie: false,
            start_ticks: 164_101,
        };
        assert_eq!(parse_stat(text), Some(stat));
        assert_eq!(parse_stat("562 (a"), None);
        assert_eq!(parse_stat("562 (a) Z 1"), None);
    }

    #[test]
    fn a_younger_process_under_the_same_pid_is_another_one() {
        let us = std::process::id();
        let id = "0".repeat(64);
        assert!(!processes(us, &id, u64::MAX / 2).are_gone());
        assert!(processes(us, &id, 1).are_gone());
    }

    #[test]
    fn a_process_that_has_ended_is_gone_even_as_a_zombie() {
        let mut child = Command::new("true").spawn().expect("true");
        let pid = child.id();
        let mut status = rustix::process::WaitIdOptions::EXITED;
        status |= rustix::process::WaitIdOptions::NOWAIT;
        let child_pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(rustix::process::WaitId::Pid(child_pid), status).expect("its end");
        assert!(processes(pid, "0", u64::MAX / 2).are_gone(), "a zombie");
        child.wait().expect("its status");
        assert!(processes(pid, "0", u64::MAX / 2).are_gone(), "reaped");
    }
}
