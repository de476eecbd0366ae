//! Who is told what a process says about itself and what it has done for it.

use std::sync::Arc;

use wavetank_core::Stored;
use wavetank_model::{Notice, Operation, OperationError, Outcome, RequestId};
use wavetank_port::{ContainerId, ErrorClass, RuntimeCommand};

use crate::transport::Transport;

/// Told in the order in which things happen. Must not block.
pub trait Observer: Send + Sync {
    /// The node is in the network. Whoever wants to count its connections, or to let others in
    /// through them, keeps a clone.
    fn connected(&self, transport: &Transport) {
        let _ = transport;
    }

    /// An agent's process starts with these records, which an earlier one has made durable.
    fn recovered(&self, stored: &[Stored]) {
        let _ = stored;
    }

    /// A decision has taken effect: what it needs is durable. What follows from it comes after.
    fn notice(&self, notice: Notice);

    /// A client was asked for something.
    fn invoked(&self, request: RequestId, operation: &Operation) {
        let _ = (request, operation);
    }

    /// A client has the answer.
    fn returned(&self, request: RequestId, result: &Result<Outcome, OperationError>) {
        let _ = (request, result);
    }

    /// The container runtime is asked for something.
    fn called(&self, command: &RuntimeCommand) {
        let _ = command;
    }

    /// The container runtime has answered.
    fn answered(&self, call: &Answered) {
        let _ = call;
    }
}

/// The answer to a runtime call, for an observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The verb's name.
    pub call: &'static str,
    /// The container it was about.
    pub container: Option<ContainerId>,
    /// Why it failed, if it did.
    pub error: Option<ErrorClass>,
    /// How many containers were listed, by a listing.
    pub listed: Option<u32>,
}

/// Tells several observers, in this order.
#[derive(Clone)]
pub struct Several(pub Vec<Arc<dyn Observer>>);

impl Observer for Several {
    fn connected(&self, transport: &Transport) {
        self.0.iter().for_each(|it| it.connected(transport));
    }

    fn recovered(&self, stored: &[Stored]) {
        self.0.iter().for_each(|it| it.recovered(stored));
    }

    fn notice(&self, notice: Notice) {
        self.0.iter().for_each(|it| it.notice(notice.clone()));
    }

    fn invoked(&self, request: RequestId, operation: &Operation) {
        self.0.iter().for_each(|it| it.invoked(request, operation));
    }

    fn returned(&self, request: RequestId, result: &Result<Outcome, OperationError>) {
        self.0.iter().for_each(|it| it.returned(request, result));
    }

    fn called(&self, command: &RuntimeCommand) {
        self.0.iter().for_each(|it| it.called(command));
    }

    fn answered(&self, call: &Answered) {
        self.0.iter().for_each(|it| it.answered(call));
    }
}

/// Writes everything to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Observer for Log {
    fn notice(&self, notice: Notice) {
        match notice {
            // One for every entry of the replicated log: for those who ask for it.
            Notice::Applied { .. } => tracing::trace!(?notice),
            notice => tracing::info!(?notice),
        }
    }

    fn called(&self, command: &RuntimeCommand) {
        tracing::debug!(call = command.name(), container = ?command.container(), "runtime asked");
    }

    fn answered(&self, call: &Answered) {
        let Answered {
            call,
            container,
            error,
            listed,
        } = call;
        match error {
            Some(error) => tracing::warn!(call, ?container, ?error, "runtime refused"),
            None => tracing::debug!(call, ?container, ?listed, "runtime answered"),
        }
    }
}
