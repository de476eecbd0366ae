//! From an inspection to the port's state: one pure function, and what is remembered of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ExitCode, ExitStatus, ImageReference,
};

use crate::error::{Error, Result};
use crate::names::NAMESPACE_LABEL;
use crate::process::Processes;
use crate::wire::{self, Inspect};

/// The code of a process that SIGKILL ended.
pub(crate) const KILLED: i32 = 128 + 9;

/// How many containers are remembered: more than one machine runs.
const REMEMBERED_MAX: usize = 4096;

/// What an inspection says, in the port's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) state: ContainerState,
    /// Podman's own id: another one under the same name is another container.
    pub(crate) podman_id: String,
    /// Where Podman wrote the first process's id, on the machine of the service.
    pub(crate) pid_file: String,
    /// Where Podman keeps what belongs to it alone, on the machine of the service.
    pub(crate) static_dir: String,
    /// Known while it runs.
    pub(crate) processes: Option<Processes>,
    /// What a stop sends first.
    pub(crate) stop_signal: i32,
    /// Podman does not remove it unless forced.
    pub(crate) is_stuck: bool,
}

impl Observed {
    /// Takes an inspection at its word.
    pub(crate) fn new(id: &ContainerId, inspect: Inspect) -> Result<Self> {
        let started_at = wire::wall_time(&inspect.state.started_at);
        let status = status(id, &inspect.state.status, started_at.is_some())?;
        let runs = matches!(status, ContainerStatus::Running | ContainerStatus::Paused);
        let pid = wire::pid(inspect.state.pid).filter(|_| runs);
        let mut labels = inspect.config.labels;
        labels.remove(NAMESPACE_LABEL);
        Ok(Observed {
            processes: pid.map(|init| Processes {
                podman_id: inspect.id.clone(),
                init,
                conmon: wire::pid(inspect.state.conmon_pid),
                started_at,
            }),
            stop_signal: inspect.config.stop_signal,
            is_stuck: !matches!(&*inspect.state.status, "created" | "stopped" | "exited"),
            state: ContainerState {
                id: id.clone(),
                image: ImageReference(inspect.image_name),
                labels,
                status,
                pid,
                started_at,
                exit: (status == ContainerStatus::Exited).then(|| exit(&inspect.state)),
            },
            pid_file: inspect.pid_file,
            static_dir: inspect.static_dir,
            podman_id: inspect.id,
        })
    }

    /// Its process is gone and nobody is left who could say how it ended.
    pub(crate) fn lose(&mut self) {
        self.state.status = ContainerStatus::Exited;
        self.state.pid = None;
        self.state.exit = Some(ExitStatus {
            code: ExitCode::Unknown,
            exited_at: None,
            oom_killed: false,
        });
        self.processes = None;
        self.is_stuck = true;
    }

    /// True if Podman itself saw its process end. Of another container that Podman removes, a
    /// process may live on of which it never knew: its service died between runc's create and its
    /// own note of it.
    pub(crate) fn has_ended_properly(&self) -> bool {
        self.state.status == ContainerStatus::Exited && !self.is_stuck
    }

    /// True if it ended in a way that the kernel's killing for memory looks like.
    pub(crate) fn may_be_out_of_memory(&self) -> bool {
        let killed = ExitCode::Known(KILLED);
        matches!(self.state.exit, Some(exit) if exit.code == killed && !exit.oom_killed)
    }
}

/// Podman's states, from `libpod/define/containerstate.go`. After a restart of the machine Podman
/// says "created" of what ran before: that it has a time of start gives it away.
fn status(id: &ContainerId, podman: &str, was_started: bool) -> Result<ContainerStatus> {
    Ok(match podman {
        "created" | "configured" | "initialized" if was_started => ContainerStatus::Exited,
        "created" | "configured" | "initialized" => ContainerStatus::Created,
        "running" | "stopping" => ContainerStatus::Running,
        "paused" => ContainerStatus::Paused,
        "stopped" | "exited" => ContainerStatus::Exited,
        "removing" | "unknown" if was_started => ContainerStatus::Exited,
        "removing" | "unknown" => ContainerStatus::Created,
        other => {
            return Err(Error::Malformed {
                call: format!("inspect {id}"),
                problem: format!("the service says `{other}` for its state"),
            });
        }
    })
}

/// The code counts only together with a time: Podman fills in zero for what it does not know.
fn exit(state: &wire::State) -> ExitStatus {
    let started_at = wire::wall_time(&state.started_at);
    let finished_at = wire::wall_time(&state.finished_at);
    let code = i32::try_from(state.exit_code).ok().filter(|it| *it >= 0);
    let is_known =
        finished_at.is_some() && matches!(&*state.status, "stopped" | "exited" | "removing");
    ExitStatus {
        code: match code {
            Some(code) if is_known => ExitCode::Known(code),
            _ => ExitCode::Unknown,
        },
        // The start is noted by Podman's clock after the fact, the end is the age of a file by the
        // kernel's coarse clock: of a quick process the end may seem to come first.
        exited_at: finished_at.filter(|_| is_known).map(|it| match started_at {
            Some(started_at) => it.max(started_at),
            None => it,
        }),
        oom_killed: state.oom_killed,
    }
}

/// What was seen of containers, by Podman's ids. The end of a container does not change, so it
/// need not be asked for again, and it can still be told when the container is gone.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    inner: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    by_id: BTreeMap<String, Observed>,
    oldest_first: VecDeque<String>,
}

impl Memory {
    pub(crate) fn recall(&self, podman_id: &str) -> Option<Observed> {
        self.lock().by_id.get(podman_id).cloned()
    }

    pub(crate) fn keep(&self, observed: &Observed) {
        let mut inner = self.lock();
        let id = &observed.podman_id;
        let is_news = |known: &Observed| {
            // An older look may come late. What was started again since is another matter.
            known.state.exit.is_none()
                || observed.state.exit.is_some()
                || observed.state.started_at > known.state.started_at
        };
        if !inner.by_id.get(id).is_none_or(is_news) {
            return;
        }
        if inner.by_id.insert(id.clone(), observed.clone()).is_none() {
            inner.oldest_first.push_back(id.clone());
        }
        if inner.by_id.len() > REMEMBERED_MAX
            && let Some(oldest) = inner.oldest_first.pop_front()
        {
            inner.by_id.remove(&oldest);
        }
    }

    /// What is in there is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use wavetank_port::{ContainerId, ContainerStatus, ErrorClass, ExitCode, WallTime};

    use super::{Memory, Observed, REMEMBERED_MAX};

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const START: &str = "2026-11-21T09:28:49.897846058Z";
    const LATER: &str = "2026-11-21T09:29:00Z";
    const JUST_BEFORE: &str = "2026-11-21T09:28:49.893826565Z";

    fn observe(status: &str, pid: i64, code: i64, start: &str, end: &str) -> Observed {
        let inspect = json!({
            "Id": "9d0e", "Name": "n.a", "ImageName": "localhost/bb:1", "PidFile": "/pid",
            "State": {
                "Status": status, "Pid": pid, "ConmonPid": pid, "ExitCode": code,
                "StartedAt": start, "FinishedAt": end,
            },
            "Config": {
                "Labels": {"wavetank.podman.namespace": "n", "a": "b"}, "StopSignal": 15,
            },
        });
        let inspect = serde_json::from_value(inspect).expect("an inspection");
        Observed::new(&ContainerId("a".to_owned()), inspect).expect("a state")
    }

    #[test]
    fn an_end_is_not_forgotten_for_an_older_look_but_for_a_later_start() {
        let memory = Memory::default();
        let ended = observe("exited", 0, 3, START, LATER);
        memory.keep(&ended);
        memory.keep(&observe("running", 7, 0, START, NEVER));
        assert_eq!(memory.recall("9d0e"), Some(ended));
        let again = observe("running", 8, 0, LATER, NEVER);
        memory.keep(&again);
        assert_eq!(memory.recall("9d0e"), Some(again));
    }

    #[test]
    fn the_namespace_s_label_is_not_the_caller_s() {
        let seen = observe("created", 0, 0, NEVER, NEVER);
        assert_eq!(seen.state.labels.len(), 1);
        assert_eq!(seen.state.status, ContainerStatus::Created);
        assert_eq!((seen.state.exit, seen.state.pid), (None, None));
    }

    #[test]
    fn an_end_is_never_before_the_start() {
        let seen = observe("exited", 0, 42, START, JUST_BEFORE).state;
        let exit = seen.exit.expect("an exit");
        assert_eq!(exit.code, ExitCode::Known(42));
        assert_eq!(exit.exited_at, seen.started_at);
        assert_eq!(exit.exited_at, Some(WallTime(1_795_253_329_897_846_058)));
    }

    #[test]
    fn zero_is_not_guessed_for_what_ran_before_the_machine_restarted() {
        for status in ["created", "unknown", "removing"] {
            let seen = observe(status, 0, 0, START, NEVER);
            assert_eq!(seen.state.status, ContainerStatus::Exited, "{status}");
            let exit = seen.state.exit.expect("an exit");
            assert_eq!(
                (exit.code, exit.exited_at),
                (ExitCode::Unknown, None),
                "{status}"
            );
        }
    }

    #[test]
    fn a_state_that_podman_does_not_have_is_an_error() {
        let inspect = json!({
            "Id": "1", "Name": "n.a", "ImageName": "i",
            "State": {"Status": "dancing"}, "Config": {},
        });
        let inspect = serde_json::from_value(inspect).expect("an inspection");
        let error = Observed::new(&ContainerId("a".to_owned()), inspect).expect_err("no state");
        assert_eq!(error.class(), ErrorClass::Unknown);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let memory = Memory::default();
        let mut seen = observe("exited", 0, 1, START, START);
        for n in 0..=REMEMBERED_MAX {
            seen.podman_id = n.to_string();
            memory.keep(&seen);
            memory.keep(&seen);
        }
        assert_eq!(memory.recall("0"), None);
        assert!(memory.recall("1").is_some());
        assert!(memory.recall(&REMEMBERED_MAX.to_string()).is_some());
    }

    proptest! {
        #[test]
        fn an_exit_is_told_exactly_for_what_has_ended(
            status in prop_oneof![
                Just("created"), Just("initialized"), Just("running"), Just("stopping"),
                Just("paused"), Just("stopped"), Just("exited"), Just("removing"), Just("unknown"),
            ],
            pid in any::<i64>(),
            code in any::<i64>(),
            times in any::<[bool; 2]>(),
        ) {
            let [start, end] = times.map(|is_set| if is_set { START } else { NEVER });
            let state = observe(status, pid, code, start, end).state;
            prop_assert_eq!(state.exit.is_some(), state.status == ContainerStatus::Exited);
            if let Some(exit) = state.exit
                && let ExitCode::Known(known) = exit.code
            {
                prop_assert!(exit.exited_at.is_some());
                prop_assert_eq!(i64::from(known), code);
            }
        }
    }
}
