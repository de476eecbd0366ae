//! What the shipped driver tells an observer, in the words of a trace.

use std::sync::Arc;

use wavetank_model::{Notice, Operation, OperationError, Outcome, RequestId};
use wavetank_node::Observer;
use wavetank_node::observer::Answered;
use wavetank_port::RuntimeCommand;
use wavetank_trace::Payload;

use crate::log::Said;
use crate::machine::Machine;

/// Puts what one machine's process says and does into the run's log.
pub struct Witness {
    machine: Arc<Machine>,
}

impl Witness {
    /// Of this machine.
    pub fn new(machine: Arc<Machine>) -> Self {
        Witness { machine }
    }

    fn say(&self, payload: Payload) {
        self.machine.say(Said::Event(payload));
    }
}

impl Observer for Witness {
    fn notice(&self, notice: Notice) {
        self.say(Payload::Notice { notice });
    }

    fn invoked(&self, request: RequestId, operation: &Operation) {
        let operation = operation.clone();
        self.say(Payload::ClientInvoked { request, operation });
    }

    fn returned(&self, request: RequestId, result: &Result<Outcome, OperationError>) {
        let result = result.clone();
        self.say(Payload::ClientReturned { request, result });
    }

    fn called(&self, command: &RuntimeCommand) {
        self.say(Payload::RuntimeCalled {
            call: command.name().into(),
            container: command.container().cloned(),
            image: command.image().map(|image| image.0.clone()),
        });
    }

    fn answered(&self, call: &Answered) {
        self.say(Payload::RuntimeAnswered {
            call: call.call.into(),
            container: call.container.clone(),
            error: call.error,
            listed: call.listed,
        });
    }
}
