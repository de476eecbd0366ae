//! Wall clocks of nodes' processes that are wrong, each in its own way. The machine's clock is
//! right and its daemons live by it; so does every monotonic clock, by which timers go.
//!
//! `libfaketime` does it: a library loaded into the node's process that adds a span to every wall
//! clock reading. It reads the span from a file each time, so it can be changed at any moment.
//! (Debian's package 0.9.10 makes waits *until* a moment of the monotonic clock fail with EINVAL;
//! waits *for* a span, as the node's are, go well.)

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_node::{Os, Platform as _};
use wavetank_port::WallTime;
use wavetank_scenario::plan::{Action, Plan};

use crate::scene::{Scene, SceneError};

/// Below it each architecture has its folder.
const LIBRARIES: &str = "/usr/lib";
/// For programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// How much later than a jump a reading of before it may be written down.
const SLACK: Duration = Duration::from_millis(50);
/// The library keeps a semaphore for each process in shared memory, where that of a killed process
/// would stay for ever. In mounts of its own it goes with the process.
const ALONE: &str = r#"mount -t tmpfs tmpfs /dev/shm && exec env LD_PRELOAD="$0" "$@""#;

/// The library, if it is installed.
pub fn library() -> Option<PathBuf> {
    let folders = fs::read_dir(LIBRARIES).ok()?;
    let below = folders.flatten().map(|it| it.path().join(LIBRARY));
    let mut found: Vec<PathBuf> = below.filter(|it| it.exists()).collect();
    found.sort();
    found.into_iter().next()
}

/// Whether a plan has clocks jump.
pub fn is_wanted(plan: &Plan) -> bool {
    let jumps = |action: &Action| matches!(action, Action::ClockJump { .. });
    plan.faults.iter().any(|fault| jumps(&fault.action))
}

/// From a moment on a clock is wrong by a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    from: u64,
    ahead_ns: i128,
}

/// The wall clock of one node. It can be wrong only if there is the library; otherwise, and until
/// it jumps, it is right.
#[derive(Debug)]
pub struct WallClock {
    library: Option<PathBuf>,
    file: PathBuf,
    steps: Mutex<Vec<Step>>,
}

impl WallClock {
    /// A clock that is right. `file` is its own.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn right(file: &Path, library: Option<PathBuf>) -> io::Result<Self> {
        let first = Step {
            from: 0,
            ahead_ns: 0,
        };
        let clock = WallClock {
            library,
            file: file.to_owned(),
            steps: Mutex::new(vec![first]),
        };
        if clock.library.is_some() {
            clock.write(0)?;
        }
        Ok(clock)
    }

    /// It jumps.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn jump(&self, by_ns: i64, now: WallTime) -> io::Result<()> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = steps.last().map_or(0, |step| step.ahead_ns);
        let ahead_ns = before + i128::from(by_ns);
        self.write(ahead_ns)?;
        steps.push(Step {
            from: now.0,
            ahead_ns,
        });
        Ok(())
    }

    /// As a whole, so that nobody reads half of it.
    fn write(&self, ahead_ns: i128) -> io::Result<()> {
        let new = self.file.with_extension("new");
        let sign = if ahead_ns < 0 { '-' } else { '+' };
        let (seconds, rest) = (
            ahead_ns.unsigned_abs() / 1_000_000_000,
            ahead_ns.unsigned_abs() % 1_000_000_000,
        );
        fs::write(&new, format!("{sign}{seconds}.{rest:09}"))?;
        fs::rename(new, &self.file)
    }

    /// When something happened of which the node says when by its clock. `now` is the true time at
    /// which it is heard: of all moments at which the clock can have shown that, the last before.
    pub fn truth(&self, told: WallTime, now: WallTime) -> WallTime {
        let slack = u64::try_from(SLACK.as_nanos()).unwrap_or(u64::MAX);
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let true_in = |(number, step): (usize, &Step)| {
            let at = u64::try_from(i128::from(told.0) - step.ahead_ns).ok()?;
            let until = steps.get(number + 1).map_or(now.0, |next| next.from);
            let may_be = step.from <= at && at <= until.min(now.0).saturating_add(slack);
            may_be.then_some(at)
        };
        let latest = steps.iter().enumerate().filter_map(true_in).max();
        WallTime(latest.unwrap_or(told.0).min(now.0))
    }

    /// The same program under this clock.
    pub fn over(&self, command: Command) -> Command {
        let Some(library) = &self.library else {
            return command;
        };
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "sh", "-c", ALONE]).arg(library);
        alone.arg(command.get_program()).args(command.get_args());
        let settings: [(&str, OsString); 4] = [
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            // Files keep the times that the machine gives them.
            ("NO_FAKE_STAT", "1".into()),
        ];
        alone.envs(settings);
        alone
    }
}

impl Scene {
    /// A node's wall clock jumps.
    pub(crate) fn jump_clock(&self, node: NodeId, by_ns: i64) -> Result<(), SceneError> {
        let Some(clock) = self.clocks.get(&node) else {
            return Ok(());
        };
        let jumped = clock.jump(by_ns, Os::new().wall());
        jumped.map_err(|source| SceneError::Clock { node, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn clock(folder: &Path) -> WallClock {
        WallClock::right(&folder.join("clock"), Some("library".into())).unwrap()
    }

    #[test]
    fn what_is_told_by_a_wrong_clock_has_a_true_time() {
        let folder = tempfile::tempdir().unwrap();
        let clock = clock(folder.path());
        let at = |seconds: u64| WallTime(seconds * SECOND);
        let told = |told, now| clock.truth(at(told), at(now)).0 / SECOND;
        assert_eq!(told(10_000, 10_001), 10_000);
        clock.jump(-3600 * 1_000_000_000, at(10_010)).unwrap();
        // Written before the jump, read after it.
        assert_eq!(told(10_009, 10_011), 10_009);
        assert_eq!(told(6_411, 10_012), 10_011);
        clock.jump(3600 * 1_000_000_000, at(10_020)).unwrap();
        assert_eq!(told(6_418, 10_021), 10_018);
        assert_eq!(told(10_021, 10_022), 10_021);
        clock.jump(5 * 1_000_000_000, at(10_030)).unwrap();
        assert_eq!(told(10_036, 10_032), 10_031);
        assert_eq!(told(10_029, 10_030), 10_029);
        // What no clock of this node can have shown is not later than now.
        assert_eq!(told(99_999, 10_040), 10_040);
    }

    #[test]
    fn the_file_says_how_far_it_is_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let clock = clock(folder.path());
        let read = || fs::read_to_string(folder.path().join("clock")).unwrap();
        assert_eq!(read(), "+0.000000000");
        clock.jump(-1_500_000_000, WallTime(1)).unwrap();
        assert_eq!(read(), "-1.500000000");
        clock.jump(1_500_000_000, WallTime(2)).unwrap();
        assert_eq!(read(), "+0.000000000");
    }

    #[test]
    fn a_process_lives_by_its_own_clock() {
        let folder = tempfile::tempdir().unwrap();
        let installed = library();
        if installed.is_none() || !rustix::process::geteuid().is_root() {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            assert!(required.is_none_or(|it| it.is_empty()), "no libfaketime");
            eprintln!("skipped: without root and libfaketime there is one clock");
            return;
        }
        let clock = WallClock::right(&folder.path().join("clock"), installed).unwrap();
        let shown = || {
            let mut date = Command::new("date");
            date.arg("+%s");
            let output = clock.over(date).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let seconds: i128 = text.trim().parse().expect("a time");
            seconds - i128::from(Os::new().wall().0 / SECOND)
        };
        for (by, ahead) in [(0, 0), (86_400, 86_400), (-90_000, -3_600)] {
            clock.jump(by * 1_000_000_000, Os::new().wall()).unwrap();
            let error = shown() - ahead;
            assert!((-60..=60).contains(&error), "{error} s beside {ahead} s");
        }
    }
}
