//! What to do about one task next: a pure function of what is desired, what is observed, and what
//! the agent keeps track of.
//!
//! Level-triggered: it is asked again after every change and after every step it chose, until it
//! chooses to wait. It never acts on ignorance: an unknown container is looked at first. `drive.rs`
//! carries out what is chosen here.

use wavetank_model::{DesiredState, Instant, Reason, RestartCondition, TaskState, Timers};

use super::calls::Verb;
use super::observe::Container;
use super::recovery::{DurableTask, EndingCause};
use super::stop;
use super::task::{ImageNeed, Tracker};

/// Failures in a row of a create or a start, not counting those of an unreachable runtime, before
/// the attempt counts as failed. In between the same container is tried again.
const STRIKES_MAX: u32 = 3;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing before this moment, unless something happens.
    Wait(Instant),
    /// Take the task on.
    Accept,
    /// Fetch the image.
    BeginPull,
    /// Ask for the image (again).
    NeedImage,
    /// Create the container from now on.
    BeginCreate,
    /// Start the container from now on.
    BeginStart,
    /// The process runs, or did.
    BeginRun,
    /// The run has lasted long enough to forgive earlier restarts.
    CountAsStable,
    /// Ask the runtime.
    Call(Verb),
    /// Begin to stop because managers want it.
    BeginStop,
    /// End the attempt because it failed.
    Fail(Reason, String),
    /// The container failed us, yet its process runs after all: go on.
    Resume,
    /// The attempt is over.
    Conclude,
    /// Begin the next attempt.
    BeginNextAttempt,
    /// Nothing is left to do for this task, ever.
    Forget,
}

/// What the agent sees of a task's surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The agent has compared its containers with its tasks in this boot.
    pub has_compared: bool,
    /// A container of another attempt of the same task still exists.
    pub has_orphan: bool,
}

/// Chooses the next action.
pub(super) fn decide(
    desired: &DurableTask,
    observed: Surroundings,
    tracker: &Tracker,
    timers: &Timers,
    now: Instant,
) -> Action {
    let state = desired.status.state;
    if is_order_new(desired) {
        return Action::BeginStop;
    }
    if let Some(flight) = tracker.handle.flight {
        return Action::Wait(flight.deadline);
    }
    match state {
        TaskState::Pending | TaskState::Assigned => Action::Accept,
        TaskState::Accepted if observed.has_compared || tracker.recovered => Action::BeginPull,
        TaskState::Accepted => Action::Wait(Instant::NEVER),
        TaskState::Pulling => pull(tracker, Action::BeginCreate),
        TaskState::Creating | TaskState::Starting | TaskState::Running | TaskState::Stopping => {
            if desired.ending.is_some() {
                end(desired, tracker, timers, now)
            } else {
                go_on(desired, observed, tracker, timers, now)
            }
        }
        TaskState::Backoff => clean_up(desired, tracker, timers, now, &|| {
            at(now, tracker.restart_at, Action::BeginNextAttempt)
        }),
        TaskState::Complete
        | TaskState::Failed
        | TaskState::Shutdown
        | TaskState::Rejected
        | TaskState::Lost => clean_up(desired, tracker, timers, now, &|| {
            forget_when_allowed(desired)
        }),
    }
}

/// Managers want a task to stop and nobody has begun to.
fn is_order_new(task: &DurableTask) -> bool {
    let ordered = task
        .ending
        .as_ref()
        .is_some_and(|ending| ending.cause == EndingCause::Ordered);
    task.assignment.desired != DesiredState::Running && !task.status.state.is_terminal() && !ordered
}

/// `action` once its time has come.
fn at(now: Instant, not_before: Instant, action: Action) -> Action {
    if not_before <= now {
        action
    } else {
        Action::Wait(not_before)
    }
}

fn pull(tracker: &Tracker, then: Action) -> Action {
    match tracker.image {
        ImageNeed::NotAsked => Action::NeedImage,
        ImageNeed::Waiting => Action::Wait(Instant::NEVER),
        ImageNeed::Present => then,
    }
}

/// Towards a running process, and then what keeps it company.
fn go_on(
    task: &DurableTask,
    observed: Surroundings,
    tracker: &Tracker,
    timers: &Timers,
    now: Instant,
) -> Action {
    let handle = &tracker.handle;
    if handle.known == Container::Unknown {
        return at(now, handle.looks.not_before, Action::Call(Verb::Inspect));
    }
    match task.status.state {
        TaskState::Creating => create(tracker, observed, now),
        TaskState::Starting => start(tracker, timers, now),
        TaskState::Running => run(task, tracker, timers, now),
        // Only an order leads to `Stopping`, so there is an ending; nothing else to do.
        _ => Action::Wait(Instant::NEVER),
    }
}

fn create(tracker: &Tracker, observed: Surroundings, now: Instant) -> Action {
    match tracker.handle.known {
        Container::Absent | Container::Missing if tracker.strikes >= STRIKES_MAX => {
            let reason = if tracker.image == ImageNeed::Present {
                Reason::RootfsBuildFailed
            } else {
                Reason::ImagePullFailed
            };
            Action::Fail(reason, tracker.last_error.clone())
        }
        // Never two containers of one task: what is left of another attempt goes first.
        Container::Absent | Container::Missing if observed.has_orphan => {
            Action::Wait(Instant::NEVER)
        }
        Container::Absent | Container::Missing => pull(
            tracker,
            at(
                now,
                tracker.handle.changes.not_before,
                Action::Call(Verb::Create),
            ),
        ),
        _ => Action::BeginStart,
    }
}

fn start(tracker: &Tracker, timers: &Timers, now: Instant) -> Action {
    match tracker.handle.known {
        // It ran, ended and was removed by somebody: an event told how it ended.
        Container::Absent | Container::Missing if tracker.hinted_exit.is_some() => Action::BeginRun,
        Container::Absent | Container::Missing => miss(tracker, timers, now),
        Container::Created if tracker.strikes >= STRIKES_MAX => {
            Action::Fail(Reason::RuntimeStartFailed, tracker.last_error.clone())
        }
        Container::Created => at(
            now,
            tracker.handle.changes.not_before,
            Action::Call(Verb::Start),
        ),
        _ => Action::BeginRun,
    }
}

fn run(task: &DurableTask, tracker: &Tracker, timers: &Timers, now: Instant) -> Action {
    match tracker.handle.known {
        Container::Running => accompany(task, tracker, now),
        Container::Exited(_) => Action::Conclude,
        _ => miss(tracker, timers, now),
    }
}

/// A container that should be there is not. An event that told of its exit settles it; otherwise
/// it takes a second look, a listing's time later, and then a removal without force: that one is
/// refused if the process runs after all, so the next attempt cannot meet it.
fn miss(tracker: &Tracker, timers: &Timers, now: Instant) -> Action {
    let lost = || {
        let message = "the runtime no longer has the container".to_owned();
        Action::Fail(Reason::ContainerLost, message)
    };
    match tracker.handle.known {
        Container::Missing if tracker.hinted_exit.is_some() => Action::Conclude,
        Container::Absent if tracker.hinted_exit.is_some() => Action::Conclude,
        Container::Absent => lost(),
        _ if tracker.absences < 2 => at(
            now,
            tracker.absent_at + timers.status_poll,
            Action::Call(Verb::Inspect),
        ),
        Container::Missing => {
            let remove = Action::Call(Verb::Delete { force: false });
            at(now, tracker.handle.changes.not_before, remove)
        }
        _ => lost(),
    }
}

/// Probes a running process and notices when it has run long enough.
fn accompany(task: &DurableTask, tracker: &Tracker, now: Instant) -> Action {
    let policy = &task.assignment.spec.restart;
    let stable_at = match policy.condition {
        _ if task.restarts == 0 => Instant::NEVER,
        RestartCondition::Never => Instant::NEVER,
        _ => tracker.running_since + policy.stable_after,
    };
    if stable_at <= now {
        return Action::CountAsStable;
    }
    let probe_at = tracker.health.probe_at;
    if probe_at <= now {
        Action::Call(Verb::Probe)
    } else {
        Action::Wait(probe_at.min(stable_at))
    }
}

/// Ends an attempt: it is over when its process is known to have ended.
fn end(task: &DurableTask, tracker: &Tracker, timers: &Timers, now: Instant) -> Action {
    let is_start_pending = matches!(task.status.state, TaskState::Creating | TaskState::Starting);
    match tracker.handle.known {
        Container::Absent => Action::Conclude,
        Container::Running | Container::Exited(_) if is_start_pending => Action::Resume,
        Container::Exited(_) => Action::Conclude,
        _ => clean_up(task, tracker, timers, now, &|| Action::Conclude),
    }
}

/// Takes the container down, then does what comes next.
fn clean_up(
    task: &DurableTask,
    tracker: &Tracker,
    timers: &Timers,
    now: Instant,
    then: &dyn Fn() -> Action,
) -> Action {
    let grace = task.assignment.spec.stop_grace;
    match stop::next_step(&tracker.handle, grace, timers.runtime_timeout, now) {
        Some((verb, not_before)) => at(now, not_before, Action::Call(verb)),
        None => then(),
    }
}

fn forget_when_allowed(task: &DurableTask) -> Action {
    if !task.listed && task.unacknowledged.is_empty() {
        Action::Forget
    } else {
        Action::Wait(Instant::NEVER)
    }
}
