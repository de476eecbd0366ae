//! A manager of a few lines: takes the agent in, sends assignments, applies reports in order,
//! grants one lease. It never forgets and never leads wrongly; a test may make it silent.

use std::collections::BTreeMap;

use wavetank_core::{Assignment, Message, TaskReport};
use wavetank_model::{
    Epoch, FencingToken, Operation, OperationError, Outcome, Revision, SessionId, TaskId,
    TaskStatus,
};

use super::harness::World;

pub struct Manager {
    pub silent: bool,
    pub session: Option<SessionId>,
    pub sessions: u64,
    pub epoch: Epoch,
    pub revision: Revision,
    pub set: BTreeMap<TaskId, Assignment>,
    pub tasks: BTreeMap<TaskId, TaskStatus>,
    pub lease: Option<String>,
    pub token: u64,
    pub acts: Vec<(String, Option<FencingToken>)>,
}

impl Manager {
    /// What the agent should work on, each with what it reported.
    pub fn assignments(&self) -> Vec<Assignment> {
        let mut set: Vec<Assignment> = self.set.values().cloned().collect();
        for assignment in &mut set {
            let known = self.tasks.get(&assignment.task);
            assignment.reported = known.filter(|status| status.sequence > 0).cloned();
        }
        set
    }
}

impl World {
    pub fn serve(&mut self, message: Message) {
        match message {
            Message::Register { incarnation, .. } => {
                self.manager.sessions += 1;
                let session = SessionId(self.manager.sessions);
                self.manager.session = Some(session);
                let epoch = self.manager.epoch;
                self.deliver(Message::Registered {
                    incarnation,
                    session,
                    epoch,
                });
                self.push_assignments();
            }
            Message::Heartbeat {
                session,
                assignments,
                ..
            } => {
                if self.manager.session != Some(session) {
                    return self.deliver(Message::SessionUnknown { session });
                }
                self.deliver(Message::HeartbeatAcknowledged { session });
                if assignments < (self.manager.epoch, self.manager.revision) {
                    self.push_assignments();
                }
            }
            Message::Report { session, reports } => self.take_reports(session, reports),
            Message::Request { id, operation } => {
                let result = self.answer(operation);
                self.deliver(Message::Response { id, result });
            }
            _ => {}
        }
    }

    fn take_reports(&mut self, session: SessionId, reports: Vec<TaskReport>) {
        if self.manager.session != Some(session) {
            return self.deliver(Message::SessionUnknown { session });
        }
        let mut through = BTreeMap::new();
        for TaskReport { task, status } in reports {
            let known = self.manager.tasks.get_mut(&task);
            match known {
                Some(known) if status.sequence == known.sequence + 1 => {
                    through.insert(task, status.sequence);
                    *known = status;
                }
                Some(known) => {
                    through.insert(task, known.sequence);
                }
                None => {
                    through.insert(task, status.sequence);
                }
            }
        }
        let through = through.into_iter().collect();
        self.deliver(Message::ReportAcknowledged { session, through });
    }

    fn answer(&mut self, operation: Operation) -> Result<Outcome, OperationError> {
        let done = Ok(Outcome::Done {
            revision: self.manager.revision,
        });
        match operation {
            Operation::LeaseAcquire { holder, .. } => {
                if let Some(other) = self.manager.lease.clone().filter(|other| *other != holder) {
                    return Ok(Outcome::Held { holder: other });
                }
                self.manager.lease = Some(holder);
                self.manager.token += 1;
                Ok(Outcome::Granted {
                    token: FencingToken(self.manager.token),
                })
            }
            Operation::LeaseRenew { lease, token } | Operation::LeaseRelease { lease, token }
                if token.0 != self.manager.token =>
            {
                let newest = FencingToken(self.manager.token);
                Err(OperationError::Fenced {
                    lease,
                    given: token,
                    newest,
                })
            }
            Operation::LeaseRelease { .. } => {
                self.manager.lease = None;
                done
            }
            Operation::Put { value, claim, .. } => {
                let token = claim.and_then(|claim| claim.token);
                self.manager.acts.push((value, token));
                done
            }
            _ => done,
        }
    }
}
