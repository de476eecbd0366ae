//! Operators, load clients and their requests; lock files.

use wavetank_core::{Input, LockReply, LockRequest};
use wavetank_model::{NodeId, Operation, OperationError, Outcome, RequestId};
use wavetank_trace::{EventId, Payload};

use crate::engine::{Engine, Happening};
use crate::roster::index;
use crate::workload::OPERATOR;

impl Engine<'_> {
    pub(crate) fn lock(&mut self, place: u32, request: &LockRequest, cause: EventId) {
        let host = &self.hosts[place as usize];
        let (id, boot) = (host.id, host.boot);
        let done = if request.take {
            self.locks.take(id, &request.volume, &request.holder)
        } else {
            self.locks.release(id, &request.volume, &request.holder);
            true
        };
        let reply = if done {
            LockReply::Done
        } else {
            LockReply::Held
        };
        let input = Input::Lock {
            call: request.call,
            reply,
        };
        self.queue.push(
            self.now,
            Happening::Arrive {
                to: place,
                boot,
                cause,
                input,
            },
        );
    }

    /// A client's request was answered: operators and load clients go on.
    pub(crate) fn complete(
        &mut self,
        place: u32,
        request: RequestId,
        result: Result<Outcome, OperationError>,
        cause: EventId,
    ) {
        let id = self.hosts[place as usize].id;
        self.announce(Some(id), cause, Payload::ClientReturned { request, result });
        if id == OPERATOR {
            self.operator.answered();
            self.operate();
        } else if let Some(client) = (id.number as usize).checked_sub(2) {
            let pause = self.loads[client].config.pause;
            self.queue
                .push(self.now + pause, Happening::Load { client });
        }
    }

    /// The operator asks the next thing, if it is not waiting for an answer.
    pub(crate) fn operate(&mut self) {
        if let Some((operation, cause)) = self.operator.take_next() {
            self.invoke(OPERATOR, operation, cause);
        }
    }

    pub(crate) fn load(&mut self, client: usize) {
        if let Some(operation) = self.loads[client].next(self.now) {
            let number = index(client) + 2;
            self.invoke(NodeId::client(number), operation, EventId(0));
        }
    }

    fn invoke(&mut self, id: NodeId, operation: Operation, cause: EventId) {
        let Some(place) = self.place_of(id) else {
            return;
        };
        let host = &self.hosts[place as usize];
        let (boot, incarnation) = (host.boot, host.incarnation);
        let sequence = self.sequences.entry(id.number).or_insert(0);
        *sequence += 1;
        let sequence = *sequence;
        let request = RequestId {
            client: id,
            incarnation,
            sequence,
        };
        let invoked = Payload::ClientInvoked {
            request,
            operation: operation.clone(),
        };
        let cause = self.announce(Some(id), cause, invoked);
        self.arrive(
            place,
            boot,
            cause,
            Input::Submit {
                sequence,
                operation,
            },
        );
    }
}
