//! Effects leave a host: notices are recorded, messages travel, runtimes are asked and answer.

use wavetank_core::{Effects, Input, LockReply, LockRequest, Message, RuntimeCall};
use wavetank_model::{Change, ConsensusRole, Epoch, NodeId, Notice, Operation, RequestId};
use wavetank_port::RuntimeCommand;
use wavetank_scenario::plan::{Action, Point};
use wavetank_trace::{Event, EventId, Payload, VirtualTime, view};
use wavetank_world::Output;

use crate::codec;
use crate::engine::{Engine, Envelope, Happening, OpenCall};
use crate::workload::OPERATOR;

impl Engine<'_> {
    /// Records an event that no scenario can trigger on.
    pub(crate) fn record(
        &mut self,
        host: Option<NodeId>,
        cause: EventId,
        payload: Payload,
    ) -> Event {
        self.recorder.record(self.now, host, cause, payload)
    }

    /// Records an event and fires the faults that wait for it.
    pub(crate) fn announce(
        &mut self,
        host: Option<NodeId>,
        cause: EventId,
        payload: Payload,
    ) -> EventId {
        let name = view::event_name(&payload).filter(|name| self.faults.watches(name));
        let Some(name) = name else {
            return self.record(host, cause, payload).id;
        };
        let preview = Event {
            id: EventId(0),
            at: self.now,
            host,
            cause: None,
            payload,
        };
        self.trigger(
            name,
            Point::Before,
            host,
            &view::event_fields(&preview),
            cause,
        );
        let event = self.record(host, cause, preview.payload);
        self.trigger(
            name,
            Point::After,
            host,
            &view::event_fields(&event),
            event.id,
        );
        event.id
    }

    /// Fires the faults that wait for what a process has just decided, before anything of it has
    /// left the machine.
    pub(crate) fn announce_decisions(&mut self, place: u32, notices: &[Notice]) {
        if notices.is_empty() || !self.faults.watches_before() {
            return;
        }
        let host = Some(self.hosts[place as usize].id);
        for notice in notices {
            if let Notice::Applied {
                revision, changes, ..
            } = notice
            {
                if *revision > self.applied {
                    self.trigger_changes(host, changes, Point::Before, EventId(0));
                }
                continue;
            }
            let payload = Payload::Notice {
                notice: notice.clone(),
            };
            if let Some(name) = view::event_name(&payload) {
                let event = Event {
                    id: EventId(0),
                    at: self.now,
                    host,
                    cause: None,
                    payload,
                };
                let fields = view::event_fields(&event);
                self.trigger(name, Point::Before, host, &fields, EventId(0));
            }
        }
    }

    fn trigger_changes(
        &mut self,
        host: Option<NodeId>,
        changes: &[Change],
        point: Point,
        cause: EventId,
    ) {
        for change in changes {
            let name = view::change_name(change).filter(|name| self.faults.watches(name));
            if let Some(name) = name {
                let fields = view::change_fields(change, host);
                self.trigger(name, point, host, &fields, cause);
            }
        }
    }

    /// Carries out everything a step wanted, now that its records are durable.
    pub(crate) fn release(&mut self, place: u32, effects: &mut Effects, cause: EventId) {
        let boot = self.hosts[place as usize].boot;
        let mut cause = cause;
        for notice in effects.notices.drain(..) {
            cause = self.release_notice(place, notice, cause);
        }
        for (to, message) in effects.messages.drain(..) {
            self.send(place, to, message, cause);
        }
        for call in effects.calls.drain(..) {
            if self.hosts[place as usize].boot == boot {
                self.call_runtime(place, call, cause);
            }
        }
        for request in effects.locks.drain(..) {
            self.lock(place, &request, cause);
        }
        for completion in effects.completions.drain(..) {
            self.complete(place, completion.id, completion.result, cause);
        }
    }

    /// Remembers who leads, as far as the world can see: the newest that says so.
    fn follow_leader(&mut self, place: u32, role: ConsensusRole, epoch: Epoch) {
        let newest = self.leader.is_none_or(|(newest, _)| epoch >= newest);
        let leads = role == ConsensusRole::Leader;
        if leads && newest {
            self.leader = Some((epoch, place));
        } else if !leads && self.leader.is_some_and(|(_, leader)| leader == place) {
            self.leader = None;
        }
    }

    pub(crate) fn release_notice(&mut self, place: u32, notice: Notice, cause: EventId) -> EventId {
        let host = Some(self.hosts[place as usize].id);
        match &notice {
            Notice::RoleChanged { role, epoch } => self.follow_leader(place, *role, *epoch),
            Notice::Applied { revision, .. } if *revision > self.applied => {
                self.applied = *revision;
                let event = self.record(host, cause, Payload::Notice { notice });
                if let Payload::Notice {
                    notice: Notice::Applied { changes, .. },
                } = &event.payload
                {
                    self.trigger_changes(host, changes, Point::After, event.id);
                }
                return event.id;
            }
            _ => {}
        }
        let payload = Payload::Notice { notice };
        let name = view::event_name(&payload).filter(|name| self.faults.watches(name));
        let event = self.record(host, cause, payload);
        if let Some(name) = name {
            self.trigger(
                name,
                Point::After,
                host,
                &view::event_fields(&event),
                event.id,
            );
        }
        event.id
    }

    fn send(&mut self, from: u32, to: NodeId, message: Message, cause: EventId) {
        let Some(to) = self.place_of(to) else { return };
        let (sender, kind) = (self.hosts[from as usize].id, message.kind());
        let receiver = self.hosts[to as usize].id;
        let numbers = [u64::from(to), kind_number(kind)];
        let cause = self
            .recorder
            .record_detail(self.now, sender, cause, numbers, || Payload::MessageSent {
                to: receiver,
                message: kind.into(),
            });
        let delivery = self.network.route(self.now, from, to, size_of(&message));
        for fault in &delivery.hit {
            self.hit(*fault);
        }
        let target = &self.hosts[to as usize];
        let (boot, listens, power) = (target.boot, target.process.is_some(), target.power);
        if !listens {
            self.refuse_connection(from, to, power, delivery.arrivals[0], cause);
            return;
        }
        if let Some(fault) = delivery.held_by {
            self.held.push((
                fault,
                Envelope {
                    to,
                    boot,
                    cause,
                    from,
                    message,
                },
            ));
            return;
        }
        let [first, second] = delivery.arrivals;
        let Some(first) = first else {
            self.recorder
                .record_detail(self.now, sender, cause, [u64::from(to), 0], || {
                    Payload::MessageDropped {
                        to: receiver,
                        message: kind.into(),
                    }
                });
            return;
        };
        if delivery.corrupt {
            let error = "checksum mismatch".to_owned();
            let input = Input::Undecodable {
                from: sender,
                kind,
                error,
            };
            self.queue.push(
                first,
                Happening::Arrive {
                    to,
                    boot,
                    cause,
                    input,
                },
            );
            return;
        }
        if let Some(second) = second {
            let message = message.clone();
            self.queue.push(
                second,
                Happening::Deliver {
                    to,
                    boot,
                    cause,
                    from,
                    message,
                },
            );
        }
        self.send_decoded(
            first,
            Envelope {
                to,
                boot,
                cause,
                from,
                message,
            },
        );
    }

    /// Puts a message into the queue as the receiver's decoder will see it.
    fn send_decoded(&mut self, at: VirtualTime, envelope: Envelope) {
        let Envelope {
            to,
            boot,
            cause,
            from,
            message,
        } = envelope;
        let kind = message.kind();
        let Some(fault) = self.faults.codec_of(from, kind) else {
            self.queue.push(
                at,
                Happening::Deliver {
                    to,
                    boot,
                    cause,
                    from,
                    message,
                },
            );
            return;
        };
        self.hit(fault);
        let action: &Action = &self.plan.faults[fault as usize].action;
        let happening = match codec::translate(&message, action) {
            Ok(message) => Happening::Deliver {
                to,
                boot,
                cause,
                from,
                message,
            },
            Err(error) => {
                let from = self.hosts[from as usize].id;
                let input = Input::Undecodable { from, kind, error };
                Happening::Arrive {
                    to,
                    boot,
                    cause,
                    input,
                }
            }
        };
        self.queue.push(at, happening);
    }

    /// Nobody listens: a machine with power says so, one without stays silent.
    fn refuse_connection(
        &mut self,
        from: u32,
        to: u32,
        power: bool,
        arrival: Option<VirtualTime>,
        cause: EventId,
    ) {
        let Some(arrival) = arrival.filter(|_| power) else {
            return;
        };
        let back = self.network.route(arrival, to, from, 64);
        if let Some(at) = back.arrivals[0] {
            let boot = self.hosts[from as usize].boot;
            let input = Input::ConnectionLost {
                peer: self.hosts[to as usize].id,
            };
            self.queue.push(
                at,
                Happening::Arrive {
                    to: from,
                    boot,
                    cause,
                    input,
                },
            );
        }
    }

    pub(crate) fn deliver(
        &mut self,
        to: u32,
        boot: u64,
        cause: EventId,
        from: u32,
        message: Message,
    ) {
        let host = &self.hosts[to as usize];
        if host.boot != boot {
            return;
        }
        let (receiver, sender) = (host.id, self.hosts[from as usize].id);
        let kind = message.kind();
        let numbers = [u64::from(from), kind_number(kind)];
        let cause = self
            .recorder
            .record_detail(self.now, receiver, cause, numbers, || {
                Payload::MessageDelivered {
                    from: sender,
                    message: kind.into(),
                }
            });
        self.arrive(
            to,
            boot,
            cause,
            Input::Message {
                from: sender,
                message,
            },
        );
    }

    /// Messages that a hold rule kept arrive now, in the order they were sent.
    pub(crate) fn release_held(&mut self, fault: u32) {
        let held = std::mem::take(&mut self.held);
        let (freed, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|(by, _)| *by == fault);
        self.held = kept;
        for (offset, (_, envelope)) in freed.into_iter().enumerate() {
            let at = VirtualTime(self.now.0 + 1 + offset as u64);
            self.send_decoded(at, envelope);
        }
    }

    fn call_runtime(&mut self, place: u32, call: RuntimeCall, cause: EventId) {
        let host = &self.hosts[place as usize];
        let (id, boot) = (host.id, host.boot);
        let command = call.command;
        let image = match &command {
            RuntimeCommand::Pull { image } => Some(image.0.clone()),
            RuntimeCommand::Create { spec } => Some(spec.image.0.clone()),
            _ => None,
        };
        let (name, container) = (command.name(), command.container().cloned());
        let called = Payload::RuntimeCalled {
            call: name.into(),
            container: container.clone(),
            image,
        };
        let cause = self.announce(Some(id), cause, called);
        // A fault that waits for this call may have ended the caller before the call left.
        if self.hosts[place as usize].boot != boot {
            return;
        }
        self.calls_made += 1;
        let handle = self.calls_made;
        let open = OpenCall {
            host: place,
            boot,
            call: call.call,
            name,
            container,
            cause,
        };
        self.calls.insert(handle, open);
        if let Some(runtime) = &mut self.hosts[place as usize].runtime {
            runtime.submit(self.now, handle, command);
        }
        self.pump_runtime(place, cause);
    }

    pub(crate) fn runtime_due(&mut self, place: u32) {
        let now = self.now;
        let host = &mut self.hosts[place as usize];
        if host.runtime_timer != Some(now) {
            return;
        }
        host.runtime_timer = None;
        if host.is_paused() || !host.power {
            return;
        }
        if let Some(runtime) = &mut host.runtime {
            runtime.wake(now, &host.clock, &mut self.registry);
        }
        self.pump_runtime(place, EventId(0));
    }

    /// Passes on what a runtime says, and arms its timer.
    pub(crate) fn pump_runtime(&mut self, place: u32, cause: EventId) {
        let host = &mut self.hosts[place as usize];
        let (id, boot) = (host.id, host.boot);
        let Some(runtime) = &mut host.runtime else {
            return;
        };
        let outputs = if runtime.has_output() {
            runtime.drain_output()
        } else {
            Vec::new()
        };
        self.rearm_runtime(place);
        let mut cause = cause;
        for output in outputs {
            match output {
                Output::Reply { call, result } => self.answer(call, result),
                Output::Event(event) => {
                    self.arrive(place, boot, cause, Input::RuntimeEvent(event));
                }
                Output::Truth(payload) => cause = self.announce(Some(id), cause, payload),
                Output::Hit(fault) => self.hit(fault),
            }
        }
    }

    /// Makes sure the queue has a timer event no later than the runtime's deadline.
    pub(crate) fn rearm_runtime(&mut self, place: u32) {
        let host = &mut self.hosts[place as usize];
        if host.is_paused() || !host.power {
            return;
        }
        let Some(due) = host
            .runtime
            .as_ref()
            .and_then(|runtime| runtime.next_deadline())
        else {
            return;
        };
        let due = due.max(self.now);
        if due > self.end || host.runtime_timer.is_some_and(|armed| armed <= due) {
            return;
        }
        host.runtime_timer = Some(due);
        self.queue
            .push(due, Happening::RuntimeTimer { host: place });
    }

    fn answer(
        &mut self,
        handle: u64,
        result: Result<wavetank_port::RuntimeReply, wavetank_port::RuntimeError>,
    ) {
        let Some(open) = self.calls.remove(&handle) else {
            return;
        };
        let host = &self.hosts[open.host as usize];
        if host.boot != open.boot {
            return;
        }
        let listed = match &result {
            Ok(wavetank_port::RuntimeReply::Containers { containers }) => {
                Some(crate::engine::index(containers.len()))
            }
            _ => None,
        };
        let answered = Payload::RuntimeAnswered {
            call: open.name.into(),
            container: open.container,
            error: result.as_ref().err().map(|error| error.class),
            listed,
        };
        let cause = self.announce(Some(host.id), open.cause, answered);
        let input = Input::Runtime {
            call: open.call,
            result,
        };
        self.arrive(open.host, open.boot, cause, input);
    }

    fn lock(&mut self, place: u32, request: &LockRequest, cause: EventId) {
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
    fn complete(
        &mut self,
        place: u32,
        request: RequestId,
        result: Result<wavetank_model::Outcome, wavetank_model::OperationError>,
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
        if let Some((operation, cause)) = self.operator.next() {
            self.invoke(OPERATOR, operation, cause);
        }
    }

    pub(crate) fn load(&mut self, client: usize) {
        if let Some(operation) = self.loads[client].next(self.now) {
            let number = crate::engine::index(client) + 2;
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

/// A number for a message kind's name, for the digest.
fn kind_number(kind: &str) -> u64 {
    kind.bytes().fold(0, |number, byte| {
        number.wrapping_mul(31).wrapping_add(u64::from(byte))
    })
}

/// Roughly how many bytes a message takes on the wire; only bandwidth rules ask.
fn size_of(message: &Message) -> u64 {
    let payload = match message {
        Message::Raft(raft) => {
            let entries: usize = raft.entries.iter().map(|entry| entry.data.len() + 32).sum();
            entries
                + raft
                    .snapshot
                    .as_ref()
                    .map_or(0, |snapshot| snapshot.data.len())
        }
        Message::Assignments { tasks, .. } => tasks.len() * 300,
        Message::Report { reports, .. } => reports.len() * 120,
        _ => 0,
    };
    100 + payload as u64
}
