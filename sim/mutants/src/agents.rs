//! What agents once did wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wavetank_core::{CallId, Effects, Input, Message, RuntimeCall};
use wavetank_model::{DesiredState, InstanceId, Notice, Reason, SessionId, TaskState, TaskStatus};
use wavetank_port::{
    ContainerId, ErrorClass, ExitCode, RuntimeCommand, RuntimeError, RuntimeReply,
};

use crate::wrapper::Edit;

/// Changes every status that leaves the agent, in its reports and in what it says about itself.
fn each_status(effects: &mut Effects, edit: impl Fn(&mut TaskStatus)) {
    for (_, message) in &mut effects.messages {
        if let Message::Report { reports, .. } = message {
            reports
                .iter_mut()
                .for_each(|report| edit(&mut report.status));
        }
    }
    for notice in &mut effects.notices {
        if let Notice::TaskMoved { status, .. } = notice {
            edit(status);
        }
    }
}

/// Changes every assignment that reaches the agent.
fn each_assignment(input: &mut Input, edit: impl Fn(&mut wavetank_core::Assignment)) {
    if let Input::Message {
        message: Message::Assignments { tasks, .. },
        ..
    } = input
    {
        tasks.iter_mut().for_each(edit);
    }
}

/// Never listens to what it should run, and says nothing.
pub struct NeverListens;

impl Edit for NeverListens {
    fn input(&mut self, input: Input) -> Option<Input> {
        let assignments = matches!(
            &input,
            Input::Message {
                message: Message::Assignments { .. },
                ..
            }
        );
        (!assignments).then_some(input)
    }
}

/// Runs a second container beside each one (W7).
pub struct RunsTwice;

impl Edit for RunsTwice {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let twins: Vec<RuntimeCall> = effects.calls.iter().filter_map(twin).collect();
        effects.calls.extend(twins);
        Vec::new()
    }
}

fn twin(call: &RuntimeCall) -> Option<RuntimeCall> {
    let command = match &call.command {
        RuntimeCommand::Create { spec } => {
            let mut spec = spec.clone();
            spec.id = twin_id(&spec.id)?;
            RuntimeCommand::Create { spec }
        }
        RuntimeCommand::Start { id } => RuntimeCommand::Start { id: twin_id(id)? },
        _ => return None,
    };
    // An id of its own: the agent ignores the answer.
    let call = CallId(call.call.0 | 1 << 63);
    Some(RuntimeCall { call, command })
}

fn twin_id(id: &ContainerId) -> Option<ContainerId> {
    let instance = InstanceId::of_container(id)?;
    Some(
        InstanceId {
            attempt: instance.attempt + 1_000,
            ..instance
        }
        .container_id(),
    )
}

/// Reports every exit as a success (moby#45800).
pub struct LosesExitCodes;

impl Edit for LosesExitCodes {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        each_status(effects, |status| {
            if let Some(exit) = &mut status.exit {
                exit.code = ExitCode::Known(0);
            }
        });
        for notice in &mut effects.notices {
            if let Notice::ExitObserved { exit, .. } = notice {
                exit.code = ExitCode::Known(0);
            }
        }
        Vec::new()
    }
}

/// Never says that a task runs (R2).
pub struct SkipsRunning;

impl Edit for SkipsRunning {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        each_status(effects, |status| {
            if status.state == TaskState::Running {
                status.state = TaskState::Starting;
            }
        });
        Vec::new()
    }
}

/// Takes "there is no such process" for a failure of the task (R3).
pub struct FailsOnDeadProcess;

impl Edit for FailsOnDeadProcess {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        each_status(effects, |status| {
            if status.state == TaskState::Shutdown {
                status.state = TaskState::Failed;
                status.reason = Some(Reason::RuntimeStartFailed);
                status.message = "kill: no such process".into();
            }
        });
        Vec::new()
    }
}

/// Forgets to delete containers (W2, W8).
pub struct LeaksContainers;

impl Edit for LeaksContainers {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let mut answers = Vec::new();
        effects.calls.retain(|call| {
            let deletes = matches!(call.command, RuntimeCommand::Delete { .. });
            if deletes {
                answers.push(Input::Runtime {
                    call: call.call,
                    result: Ok(RuntimeReply::Done),
                });
            }
            !deletes
        });
        answers
    }
}

/// Restarts without budget and without waiting (A7).
pub struct RestartsForEver;

impl Edit for RestartsForEver {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        each_assignment(&mut input, |assignment| {
            let restart = &mut Arc::make_mut(&mut assignment.spec).restart;
            restart.restarts_max = u32::MAX;
            restart.backoff.base = Duration::from_millis(10);
            restart.backoff.cap = Duration::from_millis(10);
        });
        Some(input)
    }
}

/// Starts what its user has stopped (A8).
pub struct ForgetsUserStop;

impl Edit for ForgetsUserStop {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        each_assignment(&mut input, |assignment| {
            if assignment.reason == Some(Reason::TerminatedByOperator) {
                assignment.desired = DesiredState::Running;
            }
        });
        Some(input)
    }
}

/// Kills before the grace is over (A11).
pub struct CutsGraceShort;

impl Edit for CutsGraceShort {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        for call in &mut effects.calls {
            if let RuntimeCommand::Stop { grace, .. } = &mut call.command {
                *grace /= 10;
            }
        }
        Vec::new()
    }
}

/// Fails without a reason (W1).
pub struct GivesNoReason;

impl Edit for GivesNoReason {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        each_status(effects, |status| status.reason = None);
        Vec::new()
    }
}

/// Marks transitions as reported that nobody has heard of (P1).
#[derive(Default)]
pub struct LosesTransitions {
    sent: u64,
}

impl Edit for LosesTransitions {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let mut answers = Vec::new();
        let sent = &mut self.sent;
        effects.messages.retain(|(to, message)| {
            let Message::Report { session, reports } = message else {
                return true;
            };
            *sent += 1;
            if !sent.is_multiple_of(3) {
                return true;
            }
            let through = reports
                .iter()
                .map(|it| (it.task, it.status.sequence))
                .collect();
            let message = Message::ReportAcknowledged {
                session: *session,
                through,
            };
            answers.push(Input::Message { from: *to, message });
            false
        });
        answers
    }
}

/// Becomes too busy to send heartbeats (H13).
#[derive(Default)]
pub struct StopsHeartbeats {
    sent: u32,
}

impl Edit for StopsHeartbeats {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let mut answers = Vec::new();
        let sent = &mut self.sent;
        effects.messages.retain(|(to, message)| {
            let Message::Heartbeat { session, .. } = message else {
                return true;
            };
            *sent += 1;
            if *sent <= 10 {
                return true;
            }
            let message = Message::HeartbeatAcknowledged { session: *session };
            answers.push(Input::Message { from: *to, message });
            false
        });
        answers
    }
}

/// Takes a failed observation for an empty one (A10).
#[derive(Default)]
pub struct TakesUnknownForAbsent {
    asked: BTreeMap<CallId, &'static str>,
}

impl Edit for TakesUnknownForAbsent {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        if let Input::Runtime { call, result } = &mut input
            && result.is_err()
        {
            match self.asked.get(call).copied() {
                Some("list") => {
                    *result = Ok(RuntimeReply::Containers {
                        containers: Vec::new(),
                    });
                }
                Some("inspect" | "delete") => {
                    *result = Err(RuntimeError::new(ErrorClass::NotFound, "no such container"));
                }
                _ => {}
            }
        }
        Some(input)
    }

    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let asked = effects
            .calls
            .iter()
            .map(|call| (call.call, call.command.name()));
        self.asked.extend(asked);
        Vec::new()
    }
}

/// Forgets what it runs when it changes managers (W3).
#[derive(Default)]
pub struct StopsWithItsManager {
    session: Option<SessionId>,
}

impl Edit for StopsWithItsManager {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        if let Input::Message {
            message: Message::Assignments { session, tasks, .. },
            ..
        } = &mut input
        {
            if self.session.is_some_and(|last| last != *session) {
                tasks.clear();
            }
            self.session = Some(*session);
        }
        Some(input)
    }
}
