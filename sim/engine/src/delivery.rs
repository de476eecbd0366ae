//! Effects leave a host: notices are recorded, messages travel.

use wavetank_core::{Effects, Input, Message};
use wavetank_model::{Change, NodeId, Notice};
use wavetank_scenario::plan::Action;
use wavetank_trace::{Event, EventId, Payload, VirtualTime, view};
use wavetank_world::Delivery;

use crate::codec;
use crate::engine::{Engine, Envelope, Happening};

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
        let watched = |name: &&str| self.faults.watches(name);
        let Some(name) = view::event_name(&payload).filter(watched) else {
            return self.record(host, cause, payload).id;
        };
        let preview = self.preview(host, payload);
        let fields = view::event_fields(&preview);
        self.trigger_before(name, host, &fields);
        let event = self.record(host, cause, preview.payload);
        self.trigger_after(&event);
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
                if self.faults.is_news(*revision) {
                    self.trigger_changes(host, changes);
                }
                continue;
            }
            let payload = Payload::Notice {
                notice: notice.clone(),
            };
            if let Some(name) = view::event_name(&payload) {
                let fields = view::event_fields(&self.preview(host, payload));
                self.trigger_before(name, host, &fields);
            }
        }
    }

    /// An event that has not happened yet, as triggers look at it.
    fn preview(&self, host: Option<NodeId>, payload: Payload) -> Event {
        Event {
            id: EventId(0),
            at: self.now,
            host,
            cause: None,
            payload,
        }
    }

    fn trigger_changes(&mut self, host: Option<NodeId>, changes: &[Change]) {
        for change in changes {
            let name = view::change_name(change).filter(|name| self.faults.watches(name));
            if let Some(name) = name {
                let fields = view::change_fields(change, host);
                self.trigger_before(name, host, &fields);
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

    pub(crate) fn release_notice(&mut self, place: u32, notice: Notice, cause: EventId) -> EventId {
        let host = Some(self.hosts[place as usize].id);
        if let Notice::RoleChanged { role, epoch } = &notice {
            self.leadership.follow(place, *role, *epoch);
        }
        let event = self.record(host, cause, Payload::Notice { notice });
        self.trigger_after(&event);
        event.id
    }

    fn send(&mut self, from: u32, to: NodeId, message: Message, cause: EventId) {
        let Some(to) = self.place_of(to) else { return };
        let kind = message.kind();
        let receiver = self.hosts[to as usize].id;
        let cause = self.detail(from, cause, to, kind, || Payload::MessageSent {
            to: receiver,
            message: kind.into(),
        });
        let delivery = self.network.route(self.now, from, to, size_of(&message));
        for fault in &delivery.hit {
            self.hit(*fault);
        }
        let target = &self.hosts[to as usize];
        let (boot, listens, power) = (target.boot, target.process.is_some(), target.power);
        if listens {
            let envelope = Envelope {
                to,
                boot,
                cause,
                from,
                message,
            };
            self.dispatch(envelope, &delivery);
        } else {
            self.refuse_connection(from, to, power, delivery.arrivals[0], cause);
        }
    }

    /// Does with a message what its links decided.
    fn dispatch(&mut self, envelope: Envelope, delivery: &Delivery) {
        if let Some(fault) = delivery.held_by {
            self.held.push((fault, envelope));
            return;
        }
        let Envelope {
            to,
            boot,
            cause,
            from,
            ..
        } = envelope;
        let kind = envelope.message.kind();
        let [first, second] = delivery.arrivals;
        let Some(first) = first else {
            let receiver = self.hosts[to as usize].id;
            self.detail(from, cause, to, "", || Payload::MessageDropped {
                to: receiver,
                message: kind.into(),
            });
            return;
        };
        if delivery.corrupt {
            let from = self.hosts[from as usize].id;
            let error = "checksum mismatch".to_owned();
            let input = Input::Undecodable { from, kind, error };
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
            let message = envelope.message.clone();
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
        self.send_decoded(first, envelope);
    }

    /// Records what is kept only in full traces, about a message at or from this place.
    fn detail(
        &mut self,
        place: u32,
        cause: EventId,
        peer: u32,
        kind: &str,
        payload: impl FnOnce() -> Payload,
    ) -> EventId {
        let id = self.hosts[place as usize].id;
        let numbers = [u64::from(peer), kind_number(kind)];
        self.recorder
            .record_detail(self.now, id, cause, numbers, payload)
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
        let action: &Action = &self.plan.faults[fault as usize].action;
        let translated = codec::translate(&message, action);
        if translated.as_ref() != Ok(&message) {
            self.hit(fault);
        }
        let happening = match translated {
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
        let sender = self.hosts[from as usize].id;
        let kind = message.kind();
        let cause = self.detail(to, cause, from, kind, || Payload::MessageDelivered {
            from: sender,
            message: kind.into(),
        });
        let input = Input::Message {
            from: sender,
            message,
        };
        self.arrive(to, boot, cause, input);
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
