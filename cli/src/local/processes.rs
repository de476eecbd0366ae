//! Processes that outlive the command that started them, and are recognised later.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Fields of `/proc/PID/stat`.
const STATE: usize = 3;
const BEGAN: usize = 22;

/// A process that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// The node that it is.
    pub name: String,
    /// Its number. Another process may have it by now.
    pub pid: i32,
    /// When it began, in ticks since the machine booted: with the number, that is no other's.
    pub began: u64,
}

impl Process {
    /// Starts a process of its own, away from this terminal, that writes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let open = || format!("cannot open {}", log.display());
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(open)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id()).context("a process number")?;
        let began = began(pid).with_context(|| format!("{name} ended at once"))?;
        Ok(Process {
            name: name.to_owned(),
            pid,
            began,
        })
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        began(self.pid) == Some(self.began)
    }

    /// Asks it to end, and makes it if it takes longer than `within`.
    pub fn end(&self, within: Duration) {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while self.is_running() {
            if asked.elapsed() > within {
                return self.signal(Signal::KILL);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && self.is_running()
        {
            // It may have ended in this moment.
            let _ = kill_process(pid, signal);
        }
    }
}

/// When a process began, if it is there and has not ended.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&stat)
}

fn parse(stat: &str) -> Option<u64> {
    let has_ended = matches!(stat_field(stat, STATE)?, "Z" | "X");
    match has_ended {
        true => None,
        false => stat_field(stat, BEGAN)?.parse().ok(),
    }
}

/// A field of `/proc/PID/stat`, counted from 1 as in its manual. The second, the program's name in
/// parentheses, may hold anything and is not to be had.
pub fn stat_field(stat: &str, number: usize) -> Option<&str> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number.checked_sub(STATE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_beginning() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(parse(stat), Some(4711));
        assert_eq!(parse(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_process_is_started_and_ended_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let process = Process::start("sleeper", Command::new("sleep").arg("600"), &log).unwrap();
        assert!(process.is_running());
        let other = Process {
            began: process.began + 1,
            ..process.clone()
        };
        other.end(Duration::ZERO);
        assert!(process.is_running());
        process.end(Duration::from_secs(10));
        assert!(!process.is_running());
    }
}
