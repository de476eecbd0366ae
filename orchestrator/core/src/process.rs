//! The contract between a state machine and whoever drives it.

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Instant, NodeId, Notice, Operation, OperationError, Outcome, RequestId};
use wavetank_port::{RuntimeCommand, RuntimeError, RuntimeEvent, RuntimeReply, WallTime};

use crate::message::Message;
use crate::record::Record;

/// Identifies a runtime call or lock request until it is answered. Chosen by the process; unique
/// within its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Everything that can happen to a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The deadline has come (or the process was just started). Early calls are harmless.
    Timer,
    /// A message arrived. It may be late, repeated or out of order.
    Message {
        /// Who sent it, as the transport authenticated it.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Something arrived that is no message of this version.
    Undecodable {
        /// Who sent it.
        from: NodeId,
        /// The kind it claimed to be.
        kind: &'static str,
        /// What was wrong.
        error: String,
    },
    /// The transport noticed that a peer's process is gone. Power loss and partitions go
    /// unnoticed.
    ConnectionLost {
        /// Which peer.
        peer: NodeId,
    },
    /// A runtime call was answered.
    Runtime {
        /// Which call.
        call: CallId,
        /// The answer.
        result: Result<RuntimeReply, RuntimeError>,
    },
    /// The runtime says something by itself.
    RuntimeEvent(RuntimeEvent),
    /// A lock request was answered.
    Lock {
        /// Which request.
        call: CallId,
        /// The answer.
        reply: LockReply,
    },
    /// Whoever embeds a client asks for something; answered by a [`Completion`].
    Submit {
        /// Counted from 1 by the caller.
        sequence: u64,
        /// What is asked.
        operation: Operation,
    },
    /// Whoever submitted no longer waits; whether the request takes effect is unknown.
    Cancel {
        /// As submitted.
        sequence: u64,
    },
}

/// A command for the node's container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCall {
    /// Answered with this id.
    pub call: CallId,
    /// What to do.
    pub command: RuntimeCommand,
}

/// A request for a lock file on a volume, for workloads that elect a leader that way. The lock is
/// held until it is released, its owner's process ends, or the node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// Answered with this id.
    pub call: CallId,
    /// Which volume.
    pub volume: String,
    /// Who wants it: an instance's name.
    pub holder: String,
    /// False gives it back.
    pub take: bool,
}

/// The answer to a [`LockRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// The caller has it (or has given it back).
    Done,
    /// Somebody else has it.
    Held,
}

/// The answer to an [`Input::Submit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which request.
    pub id: RequestId,
    /// What the managers answered.
    pub result: Result<Outcome, OperationError>,
}

/// What a process wants done, in queues that are carried out in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Make durable, all or a prefix, before anything below happens.
    pub persist: Vec<Record>,
    /// Then send.
    pub messages: Vec<(NodeId, Message)>,
    /// Then ask the container runtime.
    pub calls: Vec<RuntimeCall>,
    /// Then ask for locks.
    pub locks: Vec<LockRequest>,
    /// Then answer whoever submitted.
    pub completions: Vec<Completion>,
    /// What to log. Order among notices is the order of decisions.
    pub notices: Vec<Notice>,
    /// The process cannot go on (its disk lies, its identity is gone) and wants to be restarted.
    pub fatal: Option<String>,
}

impl Effects {
    /// True if nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.messages.is_empty()
            && self.calls.is_empty()
            && self.locks.is_empty()
            && self.completions.is_empty()
            && self.notices.is_empty()
            && self.fatal.is_none()
    }

    /// Empties every queue and keeps the memory.
    pub fn clear(&mut self) {
        self.persist.clear();
        self.messages.clear();
        self.calls.clear();
        self.locks.clear();
        self.completions.clear();
        self.notices.clear();
        self.fatal = None;
    }
}

/// What a handler may use while it handles one input. It can add effects but not look at or take
/// back those that are queued.
pub struct Context<'a> {
    now: Instant,
    wall: WallTime,
    rng: &'a mut ChaCha8Rng,
    effects: &'a mut Effects,
}

impl<'a> Context<'a> {
    /// A context for one input; the driver keeps `effects` and drains it afterwards.
    pub fn new(
        now: Instant,
        wall: WallTime,
        rng: &'a mut ChaCha8Rng,
        effects: &'a mut Effects,
    ) -> Self {
        Context {
            now,
            wall,
            rng,
            effects,
        }
    }

    /// This machine's monotonic time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// This machine's wall clock; for records only, it may jump.
    pub fn wall(&self) -> WallTime {
        self.wall
    }

    /// The process's own random numbers.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        self.rng
    }

    /// Makes a record durable before anything is sent.
    pub fn persist(&mut self, record: Record) {
        self.effects.persist.push(record);
    }

    /// Sends a message once everything persisted in this step is durable.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.effects.messages.push((to, message));
    }

    /// Asks the container runtime.
    pub fn call(&mut self, call: CallId, command: RuntimeCommand) {
        self.effects.calls.push(RuntimeCall { call, command });
    }

    /// Asks for a lock file.
    pub fn lock(&mut self, request: LockRequest) {
        self.effects.locks.push(request);
    }

    /// Answers a submitted request.
    pub fn complete(&mut self, id: RequestId, result: Result<Outcome, OperationError>) {
        self.effects.completions.push(Completion { id, result });
    }

    /// Says something about itself.
    pub fn notice(&mut self, notice: Notice) {
        self.effects.notices.push(notice);
    }

    /// Gives up: the driver ends the process and may start it again from its durable records.
    pub fn fatal(&mut self, why: impl Into<String>) {
        self.effects.fatal = Some(why.into());
    }
}

/// A state machine without IO.
pub trait Process: Send {
    /// Handles one input. Everything it wants done is in the context's effects afterwards.
    fn handle(&mut self, ctx: &mut Context<'_>, input: Input);

    /// When it wants [`Input::Timer`] next; [`Instant::NEVER`] if not at all.
    fn next_deadline(&self) -> Instant;
}
