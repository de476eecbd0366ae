//! Which process is meant, without ever meaning a stranger that got the same number: pid, start
//! time and boot together, and a pidfd for everything that is done to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use wavetank_port::ExitCode;

/// One process of one boot of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number, in our pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`, see proc(5).
    pub start_ticks: u64,
    /// Which boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The process that has this number now; `None` if none has.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let Some(stat) = stat(pid)? else {
            return Ok(None);
        };
        Ok(Some(ProcessIdentity {
            pid,
            start_ticks: stat.start_ticks,
            boot_id: boot_id()?,
        }))
    }

    /// This very process.
    pub fn of_self() -> io::Result<Self> {
        Self::of(std::process::id())?.ok_or_else(|| io::Error::other("/proc shows no self"))
    }

    /// A handle that stays with the process; `None` if it is gone. A zombie still has one.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        let Some(handle) = open_pid(self.pid)? else {
            return Ok(None);
        };
        // The number may have been reused before the handle was taken, never after.
        let same = stat(self.pid)?.is_some_and(|stat| stat.start_ticks == self.start_ticks);
        Ok(same.then_some(handle))
    }

    /// True while any of its threads runs.
    pub fn is_alive(&self) -> io::Result<bool> {
        match self.open()? {
            Some(handle) => Ok(!has_ended(&handle)?),
            None => Ok(false),
        }
    }

    /// Sends SIGKILL. To a process that has ended already this succeeds: the wish is fulfilled.
    pub fn kill(&self) -> io::Result<()> {
        match self.open()? {
            Some(handle) => kill_handle(&handle),
            None => Ok(()),
        }
    }

    /// How an ended process ended, for those who are not its parent: from its zombie, else from
    /// what kernels since 6.15 remember for a handle that was opened before.
    pub fn status_of_ended(&self, handle: &OwnedFd) -> Option<WaitStatus> {
        let zombie = stat(self.pid)
            .ok()
            .flatten()
            .filter(|stat| stat.start_ticks == self.start_ticks && stat.is_zombie);
        match zombie {
            Some(stat) => Some(WaitStatus(stat.wait_status)),
            None => crate::pidfd_info::exit_status(handle).map(WaitStatus),
        }
    }
}

/// Opens a handle by number. Only for our own children, whose numbers cannot be reused.
pub fn open_pid(pid: u32) -> io::Result<Option<OwnedFd>> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(number) = number else {
        return Ok(None);
    };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => Ok(Some(handle)),
        // EINVAL: not the leader of a thread group, so not a process of ours.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends SIGKILL by handle; ended already is success.
pub fn kill_handle(handle: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(handle, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// True once every thread of the process has ended, reaped or not.
pub fn has_ended(handle: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&now))? > 0)
}

/// Waits for the end of a child and takes its status; `None` if it is not ours to wait for.
pub fn wait_for_child(handle: &OwnedFd) -> io::Result<Option<WaitStatus>> {
    match waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(WaitStatus(code << 8)),
            (None, Some(signal)) => Some(WaitStatus(signal)),
            (None, None) => None,
        }),
        Ok(None) | Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How a process ended: the status word of wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitStatus(pub i32);

impl WaitStatus {
    /// The signal that ended it, if one did.
    pub fn signal(self) -> Option<i32> {
        Some(self.0 & 0x7f).filter(|signal| *signal != 0)
    }

    /// Its exit code, or 128 + n for signal n.
    pub fn code(self) -> ExitCode {
        ExitCode::Known(match self.signal() {
            Some(signal) => 128 + signal,
            None => (self.0 >> 8) & 0xff,
        })
    }
}

struct Stat {
    is_zombie: bool,
    start_ticks: u64,
    wait_status: i32,
}

/// Fields of `/proc/<pid>/stat`, counted after the name, which may hold anything.
fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    parse_stat(&text)
        .map(Some)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        start_ticks: fields.get(19)?.parse().ok()?,
        wait_status: fields.get(49)?.parse().ok()?,
    })
}

/// Names this boot of the machine.
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use wavetank_port::ExitCode;

    use super::{ProcessIdentity, has_ended, parse_stat};

    fn sleeper() -> std::process::Child {
        Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep starts")
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let zeros = "0 ".repeat(18);
        let more = "0 ".repeat(29);
        let text = format!("7 (a ) b) Z {zeros}4711 {more}1792 0");
        let stat = parse_stat(&text).expect("understood");
        assert!(stat.is_zombie);
        assert_eq!((stat.start_ticks, stat.wait_status), (4711, 1792));
        assert!(parse_stat("7 (a").is_none());
    }

    #[test]
    fn a_stranger_with_the_same_number_is_not_meant() {
        let mut child = sleeper();
        let identity = ProcessIdentity::of(child.id())
            .expect("stat")
            .expect("there");
        let older = ProcessIdentity {
            start_ticks: identity.start_ticks.wrapping_sub(1),
            ..identity.clone()
        };
        let other_boot = ProcessIdentity {
            boot_id: "another".to_owned(),
            ..identity
        };
        assert!(identity.is_alive().expect("asked"));
        assert!(!older.is_alive().expect("asked"));
        assert!(!other_boot.is_alive().expect("asked"));
        older.kill().expect("kill of the dead is success");
        other_boot.kill().expect("kill of the dead is success");
        assert!(identity.is_alive().expect("the stranger lives"));
        identity.kill().expect("kill");
        child.wait().expect("reaped");
    }

    #[test]
    fn a_zombie_tells_how_it_ended() {
        let mut child = sleeper();
        let identity = ProcessIdentity::of(child.id())
            .expect("stat")
            .expect("there");
        let handle = identity.open().expect("open").expect("there");
        assert!(!has_ended(&handle).expect("asked"));
        identity.kill().expect("kill");
        while !has_ended(&handle).expect("asked") {
            std::thread::yield_now();
        }
        let status = identity.status_of_ended(&handle).expect("a zombie");
        assert_eq!(
            (status.code(), status.signal()),
            (ExitCode::Known(137), Some(9))
        );
        assert!(!identity.is_alive().expect("a zombie is dead"));
        identity.kill().expect("kill of a zombie is success");
        child.wait().expect("reaped");
        identity.kill().expect("kill of the reaped is success");
    }
}
