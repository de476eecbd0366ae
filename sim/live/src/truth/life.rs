//! One life of a container, from its creation to its removal, pieced together from what was seen.
//!
//! Facts may come late, in part and in any order; what is told is whole and in order. A fact that
//! something else may still correct waits for a while: an absence for a second one, an exit whose
//! code is unknown for the event that knows it.

use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ExitCode, ExitStatus, Signal, WallTime,
};
use wavetank_trace::{ExitCause, Payload};

use super::Told;

/// How long a fact waits for a better one, in nanoseconds. Events come within milliseconds.
pub const GRACE_NS: u64 = 1_000_000_000;
/// How long a creation waits for the start, in nanoseconds: the start has an exact time, before
/// which the container must have been created, while a listing says only that it is there.
pub const HOLD_NS: u64 = 300_000_000;
/// How many observations that it is gone make it certain.
const VOTES: u32 = 2;

/// An end of which nothing is known but that it was.
const UNKNOWN: ExitStatus = ExitStatus {
    code: ExitCode::Unknown,
    exited_at: None,
    oom_killed: false,
};

/// What has been told of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Unsaid,
    Created,
    Started,
    Exited,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    at: u64,
    pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    status: ExitStatus,
    at: u64,
    /// When it was first seen.
    seen_at: u64,
    /// Nothing better will come.
    is_final: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    at: u64,
    votes: u32,
}

/// See the file's header. All times are wall-clock nanoseconds.
#[derive(Clone, Debug)]
pub struct Life {
    id: ContainerId,
    volumes: Vec<String>,
    first_seen: u64,
    /// The newest time at which it is known to have existed.
    last_seen: u64,
    start: Option<Start>,
    /// As a listing says it.
    pid: Option<u32>,
    end: Option<End>,
    gone: Option<Gone>,
    mark: Option<ExitCause>,
    stage: Stage,
    told_at: u64,
}

impl Life {
    /// A container that is known to have existed at a time. What is told of it is not earlier than
    /// `told_at`, when an earlier life under the same id was over.
    pub fn new(id: ContainerId, volumes: Vec<String>, seen_at: u64, told_at: u64) -> Self {
        Life {
            id,
            volumes,
            first_seen: seen_at,
            last_seen: seen_at,
            start: None,
            pid: None,
            end: None,
            gone: None,
            mark: None,
            stage: Stage::Unsaid,
            told_at,
        }
    }

    /// Everything has been told.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Deleted
    }

    /// The time of what was told last.
    pub fn told_at(&self) -> u64 {
        self.told_at
    }

    /// The newest time at which it is known to have existed.
    pub fn last_seen(&self) -> u64 {
        self.last_seen
    }

    /// Why it ends, as somebody knows who had a hand in it.
    pub fn mark(&mut self, cause: ExitCause) {
        self.mark = Some(cause);
    }

    /// True if what a listing shows is another container under the same id.
    pub fn is_other(&self, state: &ContainerState, asked_at: u64) -> bool {
        let runs = matches!(
            state.status,
            ContainerStatus::Running | ContainerStatus::Paused
        );
        if let (Some(before), Some(now)) = (self.pid, state.pid)
            && runs
            && before != now
        {
            return true;
        }
        if let (Some(end), Some(started_at)) = (self.end, state.started_at)
            && runs
            && asked_at > end.seen_at
            && started_at.0 > end.at
        {
            return true;
        }
        // What has started is never again only created. A listing may lag a little behind.
        let fell_back = self.start.is_some() && state.status == ContainerStatus::Created;
        fell_back && (self.gone.is_some() || asked_at > self.last_seen.saturating_add(GRACE_NS))
    }

    /// A listing shows it.
    pub fn show(&mut self, state: &ContainerState, asked_at: u64, answered_at: u64) {
        if self.gone.is_some_and(|gone| asked_at <= gone.at) {
            return;
        }
        self.gone = None;
        self.last_seen = self.last_seen.max(asked_at);
        if let Some(at) = state.started_at {
            self.started(at.0, state.pid.unwrap_or(0));
        } else if state.status == ContainerStatus::Running {
            self.started(answered_at, state.pid.unwrap_or(0));
        }
        self.pid = state.pid.or(self.pid);
        if let Some(exit) = state.exit
            && self.start.is_some()
        {
            self.ended(exit, answered_at);
        }
    }

    /// Its process started.
    pub fn started(&mut self, at: u64, pid: u32) {
        self.last_seen = self.last_seen.max(at);
        let is_told = self.stage >= Stage::Started;
        let start = self.start.get_or_insert(Start { at, pid });
        if start.pid == 0 {
            start.pid = pid;
            // What only an end showed began earlier.
            start.at = if is_told { start.at } else { start.at.min(at) };
        }
    }

    /// Its process ended, somebody says. A known code is better than an unknown one.
    pub fn ended(&mut self, status: ExitStatus, seen_at: u64) {
        let at = status.exited_at.map_or(seen_at, |it| it.0);
        self.last_seen = self.last_seen.max(at);
        self.start.get_or_insert(Start { at, pid: 0 });
        let new = End {
            status,
            at,
            seen_at,
            is_final: status.code != ExitCode::Unknown,
        };
        match &mut self.end {
            Some(end) if end.is_final => end.status.oom_killed |= status.oom_killed,
            Some(end) => {
                let seen_at = end.seen_at;
                *end = End { seen_at, ..new };
            }
            None => self.end = Some(new),
        }
    }

    /// Its machine lost power: if its process ran, nobody will know how it ended.
    pub fn lost_power(&mut self, at: u64) {
        if self.start.is_none() || self.end.is_some_and(|end| end.is_final) {
            return;
        }
        self.mark = Some(ExitCause::PowerLoss);
        self.end = Some(End {
            status: ExitStatus {
                exited_at: Some(WallTime(at)),
                ..UNKNOWN
            },
            at,
            seen_at: at,
            is_final: true,
        });
    }

    /// Its process, if it is not known for good how that ended.
    pub fn open_process(&self) -> Option<u32> {
        let is_open = self.end.is_none_or(|end| !end.is_final);
        let start = self.start.filter(|start| is_open && start.pid != 0);
        start.map(|start| start.pid)
    }

    /// When it started, if it has.
    pub fn started_at(&self) -> Option<u64> {
        self.start.map(|start| start.at)
    }

    /// An observation that it is not there.
    pub fn miss(&mut self, at: u64) {
        let gone = self.gone.get_or_insert(Gone { at, votes: 0 });
        gone.votes += 1;
    }

    /// It is gone, without doubt.
    pub fn remove(&mut self, at: u64) {
        let at = self.gone.map_or(at, |gone| gone.at);
        self.gone = Some(Gone { at, votes: VOTES });
        if let Some(end) = &mut self.end {
            end.is_final = true;
        }
    }

    /// Tells what has become certain by now.
    pub fn settle(&mut self, now: u64, told: &mut Vec<Told>) {
        while self.stage != Stage::Deleted && self.step(now, told) {}
    }

    /// Tells everything with what is known: nothing more will come.
    pub fn finish(&mut self, now: u64, told: &mut Vec<Told>) {
        self.remove(now);
        self.settle(u64::MAX, told);
    }

    /// True if something was told.
    fn step(&mut self, now: u64, told: &mut Vec<Told>) -> bool {
        let is_gone = self
            .gone
            .filter(|gone| gone.votes >= VOTES || now >= gone.at.saturating_add(GRACE_NS));
        match self.stage {
            Stage::Unsaid => {
                let held = now < self.first_seen.saturating_add(HOLD_NS);
                if self.start.is_none() && is_gone.is_none() && held {
                    return false;
                }
                let started = self.start.map_or(self.first_seen, |start| start.at);
                let container = self.id.clone();
                let volumes = std::mem::take(&mut self.volumes);
                let created = Payload::ContainerCreated { container, volumes };
                self.say(Stage::Created, self.first_seen.min(started), created, told);
            }
            Stage::Created => {
                let Some(Start { at, pid }) = self.start else {
                    return self.delete(is_gone, now, told);
                };
                let container = self.id.clone();
                let started = Payload::ContainerStarted { container, pid };
                self.say(Stage::Started, at, started, told);
            }
            Stage::Started => return self.exit(is_gone, now, told),
            Stage::Exited => return self.delete(is_gone, now, told),
            Stage::Deleted => return false,
        }
        true
    }

    fn exit(&mut self, gone: Option<Gone>, now: u64, told: &mut Vec<Told>) -> bool {
        let end = match (self.end, gone) {
            (Some(end), _) if end.is_final || now >= end.seen_at.saturating_add(GRACE_NS) => end,
            // Deleted without an end that anybody saw: a forced delete kills.
            (None, Some(gone)) if now >= gone.at.saturating_add(GRACE_NS) => {
                self.mark.get_or_insert(ExitCause::Killed);
                End {
                    status: UNKNOWN,
                    at: gone.at,
                    seen_at: gone.at,
                    is_final: true,
                }
            }
            _ => return false,
        };
        let container = self.id.clone();
        let exited = Payload::ContainerExited {
            container: container.clone(),
            exit: end.status,
            because: cause(self.mark, end.status),
        };
        self.say(Stage::Exited, end.at, exited, told);
        if end.status.code == ExitCode::Unknown {
            let forgotten = Payload::ContainerExitForgotten { container };
            self.say(Stage::Exited, end.at, forgotten, told);
        }
        true
    }

    fn delete(&mut self, gone: Option<Gone>, now: u64, told: &mut Vec<Told>) -> bool {
        // One that was never seen to start may have: the events that know may be on their way.
        let certain =
            |gone: &Gone| self.stage == Stage::Exited || now >= gone.at.saturating_add(GRACE_NS);
        let Some(gone) = gone.filter(certain) else {
            return false;
        };
        let container = self.id.clone();
        let deleted = Payload::ContainerDeleted { container };
        self.say(Stage::Deleted, gone.at, deleted, told);
        true
    }

    /// Times of one life never go back, whatever clocks said.
    fn say(&mut self, stage: Stage, at: u64, payload: Payload, told: &mut Vec<Told>) {
        self.stage = stage;
        self.told_at = self.told_at.max(at);
        let at = self.told_at;
        told.push(Told { at, payload });
    }
}

/// Why a process ended, by what somebody knows and by how it ended.
fn cause(mark: Option<ExitCause>, exit: ExitStatus) -> ExitCause {
    let by_signal = |signal: Signal| exit.code == ExitCode::Known(128 + signal.number());
    let killed = by_signal(Signal::Kill);
    match mark {
        Some(ExitCause::Fault | ExitCause::PowerLoss | ExitCause::OutOfMemory) => {
            mark.unwrap_or(ExitCause::Fault)
        }
        _ if exit.oom_killed => ExitCause::OutOfMemory,
        // Asked to end, it may end with any code of its own.
        Some(ExitCause::Terminated) if !killed && exit.code != ExitCode::Unknown => {
            ExitCause::Terminated
        }
        Some(ExitCause::Killed) if exit.code == ExitCode::Unknown => ExitCause::Killed,
        _ if killed => ExitCause::Killed,
        _ if by_signal(Signal::Terminate) => ExitCause::Terminated,
        // Something took the record away, and nobody says what.
        _ if exit.code == ExitCode::Unknown => ExitCause::Fault,
        _ => ExitCause::Itself,
    }
}
