//! Drives one process of the core: hands it what happens, and does what it wants done in the order
//! that `wavetank-core` demands: handle, persist if anything is dirty, send, ask the runtime and
//! the locks, answer, and wait for the next deadline.
//!
//! What has already arrived is handled together and made durable by one write, up to
//! [`STEPS_TOGETHER_MAX`] inputs. That is the same order, with longer steps: nothing of a step
//! leaves before all of it is durable. Under load it saves a flush to disk for each message.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use tokio::sync::{mpsc, oneshot};
use wavetank_core::{Completion, Context, Effects, Input, LockRequest, Process};
use wavetank_model::{Incarnation, NodeId, Operation, OperationError, Outcome, RequestId};

use crate::calls::Calls;
use crate::journal::{Journal, JournalError};
use crate::locks::Locks;
use crate::observer::Observer;
use crate::platform::Platform;
use crate::transport::{Arrival, Transport};

/// Inputs that one write to disk may make durable.
const STEPS_TOGETHER_MAX: usize = 64;

/// Why a process no longer runs.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// It gave up; a supervisor may start it again from its disk.
    #[error("{0}")]
    Fatal(String),
    /// Its disk refused a write; nothing that depended on it has left the node.
    #[error("the disk refused a write")]
    Journal(#[source] JournalError),
    /// The network side of the node is gone.
    #[error("the transport has ended")]
    Transport,
}

/// A question to a client's process, and who waits for the answer.
pub struct Submission {
    operation: Operation,
    reply: oneshot::Sender<Result<Outcome, OperationError>>,
}

/// Puts questions to a client's process.
#[derive(Clone)]
pub struct Submitter {
    sender: mpsc::Sender<Submission>,
}

/// The process that was asked has ended; whether the request takes effect is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node is shutting down")]
pub struct Gone;

impl Submitter {
    /// A way to ask, and the other end of it for [`Shell::submissions`]. At most `waiting_max`
    /// questions wait to be taken.
    pub fn channel(waiting_max: usize) -> (Self, mpsc::Receiver<Submission>) {
        let (sender, receiver) = mpsc::channel(waiting_max);
        (Submitter { sender }, receiver)
    }

    /// Asks, and waits for the answer as long as it takes. Whoever stops waiting gives the request
    /// up; it may take effect all the same.
    pub async fn submit(
        &self,
        operation: Operation,
    ) -> Result<Result<Outcome, OperationError>, Gone> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission { operation, reply };
        self.sender.send(submission).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}

/// Everything around one process.
pub struct Shell<P: Platform> {
    /// Clocks and timers.
    pub platform: P,
    /// Who it is; named in the requests of a client.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Messages out.
    pub transport: Transport,
    /// Messages in.
    pub arrivals: mpsc::Receiver<Arrival>,
    /// Where records go; `None` for a client, which has none.
    pub journal: Option<Journal>,
    /// The container runtime; agents have one.
    pub calls: Option<Calls<P>>,
    /// Questions; clients take them.
    pub submissions: Option<mpsc::Receiver<Submission>>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// The process's random numbers.
    pub rng: ChaCha8Rng,
}

/// Drives `process` until `stop` comes back or it cannot go on.
pub async fn drive<P: Platform>(
    process: Box<dyn Process>,
    shell: Shell<P>,
    stop: impl Future<Output = ()>,
) -> Result<(), DriveError> {
    let mut driver = Driver {
        process,
        shell,
        locks: Locks::default(),
        waiting: BTreeMap::new(),
        sequence: 0,
        timer_was_last: false,
        effects: Effects::default(),
    };
    let mut stop = std::pin::pin!(stop);
    let mut input = Input::Timer;
    loop {
        driver.step(input)?;
        input = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            input = driver.next() => input?,
        };
    }
}

struct Driver<P: Platform> {
    process: Box<dyn Process>,
    shell: Shell<P>,
    locks: Locks,
    /// Who waits for which request.
    waiting: BTreeMap<u64, oneshot::Sender<Result<Outcome, OperationError>>>,
    sequence: u64,
    timer_was_last: bool,
    effects: Effects,
}

impl<P: Platform> Driver<P> {
    /// Waits for the next input. Neither a flood of messages nor a busy timer keeps the other
    /// waiting: when both are due, they take turns.
    async fn next(&mut self) -> Result<Input, DriveError> {
        let deadline = self.process.next_deadline();
        if !self.timer_was_last && self.shell.platform.now() >= deadline {
            self.timer_was_last = true;
            return Ok(Input::Timer);
        }
        self.timer_was_last = false;
        let shell = &mut self.shell;
        tokio::select! {
            biased;
            arrival = shell.arrivals.recv() => arrival.map(arrived).ok_or(DriveError::Transport),
            input = next_of(&mut shell.calls) => Ok(input),
            submission = taken(&mut shell.submissions) => Ok(self.submit(submission)),
            () = shell.platform.sleep_until(deadline) => {
                self.timer_was_last = true;
                Ok(Input::Timer)
            }
        }
    }

    /// What has arrived already.
    fn try_next(&mut self) -> Option<Input> {
        if let Ok(arrival) = self.shell.arrivals.try_recv() {
            return Some(arrived(arrival));
        }
        if let Some(input) = self.shell.calls.as_mut().and_then(Calls::try_next) {
            return Some(input);
        }
        let submissions = self.shell.submissions.as_mut()?;
        let submission = submissions.try_recv().ok()?;
        Some(self.submit(submission))
    }

    fn submit(&mut self, submission: Submission) -> Input {
        self.sequence += 1;
        let sequence = self.sequence;
        let Submission { operation, reply } = submission;
        self.waiting.insert(sequence, reply);
        let request = self.request(sequence);
        self.shell.observer.invoked(request, &operation);
        Input::Submit {
            sequence,
            operation,
        }
    }

    fn request(&self, sequence: u64) -> RequestId {
        RequestId {
            client: self.shell.id,
            incarnation: self.shell.incarnation,
            sequence,
        }
    }

    /// Handles an input and whatever else is there, and does what came of it.
    fn step(&mut self, input: Input) -> Result<(), DriveError> {
        let mut effects = std::mem::take(&mut self.effects);
        self.handle(input, &mut effects);
        for _ in 1..STEPS_TOGETHER_MAX {
            if effects.fatal.is_some() {
                break;
            }
            let Some(input) = self.try_next() else { break };
            self.handle(input, &mut effects);
        }
        self.give_up_abandoned(&mut effects);
        self.carry_out(&mut effects)?;
        effects.clear();
        self.effects = effects;
        Ok(())
    }

    fn handle(&mut self, input: Input, effects: &mut Effects) {
        let platform = &self.shell.platform;
        let (now, wall) = (platform.now(), platform.wall());
        let mut ctx = Context::new(now, wall, &mut self.shell.rng, effects);
        self.process.handle(&mut ctx, input);
    }

    /// Requests that nobody waits for any more are not asked again.
    fn give_up_abandoned(&mut self, effects: &mut Effects) {
        let abandoned = |(_, reply): &(&u64, &oneshot::Sender<_>)| reply.is_closed();
        let abandoned: Vec<u64> = self
            .waiting
            .iter()
            .filter(abandoned)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in abandoned {
            self.waiting.remove(&sequence);
            self.handle(Input::Cancel { sequence }, effects);
        }
    }

    /// Does what a step wants done, in order.
    fn carry_out(&mut self, effects: &mut Effects) -> Result<(), DriveError> {
        if !effects.persist.is_empty()
            && let Some(journal) = &mut self.shell.journal
        {
            let written = journal.append(&effects.persist);
            written.map_err(DriveError::Journal)?;
        }
        if let Some(why) = effects.fatal.take() {
            return Err(DriveError::Fatal(why));
        }
        // Said before anything that follows from it can be seen elsewhere.
        for notice in effects.notices.drain(..) {
            self.shell.observer.notice(notice);
        }
        for (to, message) in effects.messages.drain(..) {
            self.shell.transport.send(to, &message);
        }
        if let Some(calls) = &self.shell.calls {
            effects.calls.drain(..).for_each(|call| calls.ask(call));
        }
        for completion in effects.completions.drain(..) {
            self.complete(completion);
        }
        self.lock(std::mem::take(&mut effects.locks))
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { id, result } = completion;
        self.shell.observer.returned(id, &result);
        if let Some(reply) = self.waiting.remove(&id.sequence) {
            // Whoever asked may have gone.
            let _ = reply.send(result);
        }
    }

    /// Locks of this node answer at once, so their answers are further steps.
    fn lock(&mut self, requests: Vec<LockRequest>) -> Result<(), DriveError> {
        for request in requests {
            let reply = self.locks.handle(&request);
            let call = request.call;
            self.step(Input::Lock { call, reply })?;
        }
        Ok(())
    }
}

fn arrived(arrival: Arrival) -> Input {
    match arrival {
        Arrival::Message { from, message } => Input::Message { from, message },
        Arrival::Undecodable { from, kind, error } => Input::Undecodable { from, kind, error },
        Arrival::Lost { peer } => Input::ConnectionLost { peer },
    }
}

async fn next_of<P: Platform>(calls: &mut Option<Calls<P>>) -> Input {
    match calls {
        Some(calls) => calls.next().await,
        None => std::future::pending().await,
    }
}

async fn taken(submissions: &mut Option<mpsc::Receiver<Submission>>) -> Submission {
    let taken = match submissions {
        Some(submissions) => submissions.recv().await,
        None => None,
    };
    match taken {
        Some(submission) => submission,
        // Nobody can ask any more.
        None => std::future::pending().await,
    }
}
