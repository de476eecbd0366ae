//! Which processes belong to a host: those in its network namespace, those that name its folder,
//! those whose root file system lies in its folder (containers that have lost their monitor), and
//! all below any of these. Never the harness itself nor whoever started it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use wavetank_fixtures::daemon::network_namespace;
use wavetank_fixtures::daemon::process::{self, Process};

use super::error::RoomError;
use super::layout::Host;

/// How often one looks again, and how long one waits in between: ten seconds in all.
const ROUNDS_MAX: u32 = 1_000;
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// The processes of these hosts, as they are now.
pub(crate) fn of(hosts: &[Host]) -> io::Result<Vec<Process>> {
    let ours = fs::read_link("/proc/self/ns/mnt")?;
    let namespaces: Vec<(u64, u64)> = hosts
        .iter()
        .filter_map(|it| network_namespace::identity(&it.namespace_path()).ok())
        .collect();
    process::with_descendants(|process| {
        let place = Path::new("/proc").join(process.pid.to_string());
        let network = network_namespace::identity(&place.join("ns/net"));
        if network.is_ok_and(|it| namespaces.contains(&it)) {
            return true;
        }
        let mounts = own_mounts(process, &ours);
        hosts
            .iter()
            .any(|it| process.mentions(&it.folder) || is_root_in(&mounts, &it.folder))
    })
}

/// The mounts of a process that does not share `ours`: only a container's own view of mounts has a
/// root of its own.
fn own_mounts(process: &Process, ours: &Path) -> Vec<u8> {
    let place = Path::new("/proc").join(process.pid.to_string());
    let has_own = fs::read_link(place.join("ns/mnt")).is_ok_and(|it| it != ours);
    match has_own {
        true => fs::read(place.join("mountinfo")).unwrap_or_default(),
        false => Vec::new(),
    }
}

/// Whether the root of these mounts is laid out in a folder: its layers are named in its options,
/// or it is a part of the folder itself.
fn is_root_in(mounts: &[u8], folder: &Path) -> bool {
    let mut below = folder.as_os_str().as_bytes().to_vec();
    below.push(b'/');
    let mut lines = mounts.split(|it| *it == b'\n');
    let root = lines.find(|line| line.split(|it| *it == b' ').nth(4) == Some(b"/"));
    root.is_some_and(|line| line.windows(below.len()).any(|it| it == below))
}

/// Stops every process of a host, until none is left that runs.
pub(crate) fn stop(host: &Host) -> Result<(), RoomError> {
    stop_those("what runs", host, || of(std::slice::from_ref(host)))
}

/// What an OCI runtime's own process in a container that it has not started yet is told to do.
const STARTING: &[u8] = b"init";

/// Stops the processes in the containers of a host; who watches over them goes on. So does a
/// runtime that is starting one: the daemon waits for it, and could not be asked.
pub(crate) fn stop_containers(host: &Host) -> Result<(), RoomError> {
    let ours = fs::read_link("/proc/self/ns/mnt").map_err(RoomError::file("read", "/proc"))?;
    stop_those("what runs in containers", host, || {
        let mut inside = of(std::slice::from_ref(host))?;
        inside.retain(|process| {
            !is_starting(process) && is_root_in(&own_mounts(process, &ours), &host.folder)
        });
        Ok(inside)
    })
}

/// `runc init`.
fn is_starting(process: &Process) -> bool {
    let arguments = process.command_line.split(|byte| *byte == 0);
    arguments.skip(1).eq([STARTING, b""])
}

fn stop_those(
    what: &'static str,
    host: &Host,
    those: impl Fn() -> io::Result<Vec<Process>>,
) -> Result<(), RoomError> {
    let mut stopped: Vec<(u32, u64)> = Vec::new();
    until_none_is_left(what, host, || {
        let key = |it: &Process| (it.pid, it.started_ticks);
        let running: Vec<Process> = those()?
            .into_iter()
            .filter(|it| !is_at_rest(it, stopped.contains(&key(it))))
            .collect();
        for process in &running {
            process.signal(Signal::STOP);
        }
        stopped.extend(running.iter().map(key));
        Ok(running)
    })
}

/// `proc(5)`: stopped, traced, zombie, dead. What waits for a disk or is frozen stops before it
/// runs another instruction of its own, if it has been told to.
fn is_at_rest(process: &Process, was_told: bool) -> bool {
    matches!(process.state, 'T' | 't' | 'Z' | 'X') || (process.state == 'D' && was_told)
}

/// Lets every process of a host run again. Those that started none since the stop are all there.
pub(crate) fn go_on(host: &Host) -> Result<(), RoomError> {
    let all = of(std::slice::from_ref(host)).map_err(RoomError::file("read", "/proc"))?;
    for process in all {
        process.signal(Signal::CONT);
    }
    Ok(())
}

/// Kills every process of these hosts, until there is none. What is killed is stopped first, so
/// that nobody has time to notice the end of another. Returns what was killed.
pub(crate) fn kill(hosts: &[Host]) -> io::Result<Vec<Process>> {
    let mut killed: Vec<Process> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let all = of(hosts)?;
        let alive: Vec<Process> = all.into_iter().filter(|it| !it.is_zombie()).collect();
        // One that is on its way out has left its namespaces and its parent before it is dead.
        if alive.is_empty() && !killed.iter().any(Process::is_alive) {
            break;
        }
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &alive {
                process.signal(signal);
            }
        }
        for process in alive {
            if killed.iter().all(|it| it.pid != process.pid) {
                killed.push(process);
            }
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    Ok(killed)
}

fn until_none_is_left(
    what: &'static str,
    host: &Host,
    mut round: impl FnMut() -> io::Result<Vec<Process>>,
) -> Result<(), RoomError> {
    let mut left = Vec::new();
    for _ in 0..ROUNDS_MAX {
        left = round().map_err(RoomError::file("read", "/proc"))?;
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    Err(RoomError::Left {
        what,
        host: host.name.clone(),
        left: left.iter().map(describe).collect(),
    })
}

/// For a person.
pub(crate) fn describe(process: &Process) -> String {
    format!("process {} {}", process.pid, process.name())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wavetank_fixtures::daemon::process::Process;

    use super::{is_root_in, is_starting};

    #[test]
    fn a_container_that_is_being_started_is_told_by_its_arguments() {
        let process = |command_line: &[u8]| Process {
            pid: 1,
            parent: 0,
            state: 'S',
            started_ticks: 0,
            command_line: command_line.to_vec(),
        };
        assert!(is_starting(&process(b"runc\0init\0")));
        assert!(!is_starting(&process(b"runc\0init\0x\0")));
        assert!(!is_starting(&process(b"sleep\x005\0")));
        assert!(!is_starting(&process(b"")));
    }

    #[test]
    fn a_containers_root_tells_whose_it_is() {
        let overlay = b"1 2 0:3 / / rw - overlay overlay rw,lowerdir=/r/a/disk/x,upperdir=/r/a/y\n\
            2 1 0:4 / /proc rw - proc proc rw\n";
        assert!(is_root_in(overlay, Path::new("/r/a")));
        assert!(!is_root_in(overlay, Path::new("/r/b")));
        let bind = b"1 2 8:1 /r/a/disk/vfs / rw - ext4 /dev/sda rw\n";
        assert!(is_root_in(bind, Path::new("/r/a")));
        // A service that merely sees our mounts is none of ours.
        let other = b"1 2 8:1 / / rw - ext4 /dev/sda rw\n\
            3 1 0:3 / /r/a/disk/x rw - overlay overlay rw,upperdir=/r/a/y\n";
        assert!(!is_root_in(other, Path::new("/r/a")));
        assert!(!is_root_in(b"", Path::new("/r/a")));
    }
}
