//! Looking at containers: the periodic listing, and what is known of one container.
//!
//! A failed look changes nothing: what was unknown stays unknown and is never taken for absent.
//! The listing itself is only a hint, for it may be old when it arrives or come back empty; what
//! it makes doubtful is inspected (see `drive.rs`, `orphans.rs`). Events are hints as well.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Instant, NodeId, Notice, TaskId, Timers};
use wavetank_port::{
    ContainerState, ContainerStatus, ErrorClass, ExitCode, ExitStatus, RuntimeCommand,
    RuntimeError, RuntimeReply,
};

use super::calls::{Caller, Calls, Flight, Retry, Verb};
use crate::process::{CallId, Context};

/// Label that names the node that a container belongs to.
pub(super) const LABEL_NODE: &str = "wavetank.node";
/// Label that names the task that a container belongs to.
pub(super) const LABEL_TASK: &str = "wavetank.task";
/// Label that names the service that a container belongs to.
pub(super) const LABEL_SERVICE: &str = "wavetank.service";
/// Label with the grace in milliseconds that a container is due when it is stopped, so that one
/// whose task is forgotten still gets it.
pub(super) const LABEL_GRACE: &str = "wavetank.stop-grace-ms";

/// What is known of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// Nobody looked since something may have happened.
    Unknown,
    /// A look did not find it. Only an attempt to remove it proves that it is gone.
    Missing,
    /// It does not exist: it was never created, or there was nothing left to remove.
    Absent,
    /// Its process has not run.
    Created,
    /// Its process runs, or is frozen.
    Running,
    /// Its process has ended; nothing but removal can follow.
    Exited(ExitStatus),
}

impl Container {
    /// What a runtime's words say.
    pub fn read(state: &ContainerState) -> Self {
        let unknown = ExitStatus {
            code: ExitCode::Unknown,
            exited_at: None,
            oom_killed: false,
        };
        match state.status {
            ContainerStatus::Created => Container::Created,
            ContainerStatus::Running | ContainerStatus::Paused => Container::Running,
            ContainerStatus::Exited => Container::Exited(state.exit.unwrap_or(unknown)),
        }
    }
}

/// What an agent knows of one container, and the one call about it that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Handle {
    pub known: Container,
    pub flight: Option<Flight>,
    /// Something happened while a call was under way: its answer may be older than that.
    pub doubt: bool,
    /// Calls that change something.
    pub changes: Retry,
    /// Looks.
    pub looks: Retry,
    /// When the process was asked to end, if the runtime may have heard it.
    pub asked_to_stop_at: Option<Instant>,
}

impl Handle {
    pub fn new(known: Container) -> Self {
        Handle {
            known,
            flight: None,
            doubt: false,
            changes: Retry::default(),
            looks: Retry::default(),
            asked_to_stop_at: None,
        }
    }

    /// Sends a call. There is none under way.
    pub fn call(
        &mut self,
        ctx: &mut Context<'_>,
        call: CallId,
        verb: Verb,
        command: RuntimeCommand,
        patience: Duration,
    ) {
        self.flight = Some(Flight {
            call,
            verb,
            deadline: ctx.now() + patience,
        });
        self.doubt = false;
        ctx.call(call, command);
    }

    /// Gives up the call under way; what it did is unknown.
    pub fn abandon(&mut self, calls: &mut Calls) {
        if let Some(flight) = self.flight.take() {
            calls.close(flight.call);
        }
    }

    /// Something may have happened to the container: look.
    pub fn suspect(&mut self) {
        match self.flight {
            None => self.known = Container::Unknown,
            Some(_) => self.doubt = true,
        }
    }

    /// The runtime said how the container is.
    pub fn observe(&mut self, container: Container) {
        let doubted = std::mem::take(&mut self.doubt);
        let final_word = matches!(container, Container::Exited(_));
        self.known = if doubted && !final_word {
            Container::Unknown
        } else {
            container
        };
        self.looks.clear();
        if matches!(container, Container::Exited(_) | Container::Absent) {
            self.changes.clear();
        }
    }

    /// A changing call failed in a way that leaves open what it did.
    pub fn fail_change(&mut self, ctx: &mut Context<'_>, timers: &Timers) {
        self.known = Container::Unknown;
        self.changes.fail(ctx.now(), timers, ctx.rng());
    }

    /// A look was answered.
    pub fn handle_inspected(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        result: &Result<RuntimeReply, RuntimeError>,
    ) {
        match result {
            Ok(RuntimeReply::State { container }) => self.observe(Container::read(container)),
            Ok(_) => self.fail_look(ctx, timers, ErrorClass::Unknown),
            Err(error) if error.class == ErrorClass::NotFound => self.observe(Container::Missing),
            Err(error) => self.fail_look(ctx, timers, error.class),
        }
    }

    fn fail_look(&mut self, ctx: &mut Context<'_>, timers: &Timers, class: ErrorClass) {
        self.doubt = false;
        self.looks.fail(ctx.now(), timers, ctx.rng());
        ctx.notice(Notice::ObservationFailed { class });
    }

    /// A stop was answered. Only a look tells whether the process has ended, and how.
    pub fn handle_stopped(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        result: &Result<RuntimeReply, RuntimeError>,
    ) {
        self.fail_change(ctx, timers);
        // Whether a slow runtime passed the signal on is unknown; any other error means it did not
        // and the grace has not begun.
        if result
            .as_ref()
            .is_err_and(|error| error.class != ErrorClass::DeadlineExceeded)
        {
            self.asked_to_stop_at = None;
        }
    }

    /// A removal was answered. The removal of something that is gone has succeeded; something that
    /// was missing and cannot be removed because it runs was not missing at all.
    pub fn handle_deleted(
        &mut self,
        ctx: &mut Context<'_>,
        timers: &Timers,
        result: &Result<RuntimeReply, RuntimeError>,
    ) {
        match result {
            Ok(_) => self.observe(Container::Absent),
            Err(error) if error.class == ErrorClass::NotFound => self.observe(Container::Absent),
            Err(_) if self.known == Container::Missing => self.fail_change(ctx, timers),
            Err(_) => self.changes.fail(ctx.now(), timers, ctx.rng()),
        }
    }

    /// The call under way took too long.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>, timers: &Timers, verb: Verb) {
        match verb {
            Verb::Inspect => self.fail_look(ctx, timers, ErrorClass::DeadlineExceeded),
            Verb::Probe => {}
            Verb::Create | Verb::Start | Verb::Stop | Verb::Delete { .. } => {
                self.fail_change(ctx, timers);
            }
        }
    }
}

/// The periodic listing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observer {
    flight: Option<(CallId, Instant)>,
    next_at: Instant,
    /// Counts listings, so that tasks can be marked as seen without a set.
    pub round: u64,
    /// True once a listing of this boot was compared with what the agent should have.
    pub has_compared: bool,
}

impl Observer {
    /// The first listing is due at once.
    pub fn new(now: Instant) -> Self {
        Observer {
            flight: None,
            next_at: now,
            round: 0,
            has_compared: false,
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.flight.map_or(self.next_at, |(_, deadline)| deadline)
    }

    /// Gives up an overdue listing and begins the next one that is due.
    pub fn handle_timer(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        node: NodeId,
        timers: &Timers,
    ) {
        if let Some((call, deadline)) = self.flight
            && deadline <= ctx.now()
        {
            calls.close(call);
            self.flight = None;
            ctx.notice(Notice::ObservationFailed {
                class: ErrorClass::DeadlineExceeded,
            });
            self.next_at = self.next_at.max(ctx.now() + timers.request_retry);
        }
        if self.flight.is_some() || self.next_at > ctx.now() {
            return;
        }
        let call = calls.open(Caller::Listing);
        self.flight = Some((call, ctx.now() + timers.runtime_timeout));
        self.next_at = ctx.now() + timers.status_poll;
        let labels: BTreeMap<String, String> = [(LABEL_NODE.to_owned(), node.to_string())].into();
        ctx.call(call, RuntimeCommand::List { labels });
    }

    /// List again as soon as possible: the runtime forgot what it owed us, or what should be there
    /// became known.
    pub fn hurry(&mut self, now: Instant) {
        self.next_at = now;
    }

    /// A listing was answered; `None` if it failed, which says nothing about any container.
    pub fn handle_listed(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<RuntimeReply, RuntimeError>,
    ) -> Option<Vec<ContainerState>> {
        self.flight = None;
        match result {
            Ok(RuntimeReply::Containers { containers }) => {
                self.round += 1;
                Some(containers)
            }
            Ok(_) => {
                ctx.notice(Notice::ObservationFailed {
                    class: ErrorClass::Unknown,
                });
                None
            }
            Err(error) => {
                ctx.notice(Notice::ObservationFailed { class: error.class });
                None
            }
        }
    }
}

/// True if a container carries the labels of this node's task.
pub(super) fn belongs_to(state: &ContainerState, node: NodeId, task: TaskId) -> bool {
    let is = |label: &str, value: &dyn std::fmt::Display| {
        state
            .labels
            .get(label)
            .is_some_and(|found| *found == value.to_string())
    };
    is(LABEL_NODE, &node) && is(LABEL_TASK, &task)
}
