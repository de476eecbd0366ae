//! Runtimes are asked and answer.

use wavetank_core::{Input, RuntimeCall};
use wavetank_port::{RuntimeError, RuntimeReply};
use wavetank_trace::{EventId, Payload};
use wavetank_world::Output;

use crate::engine::{Engine, Happening, OpenCall};
use crate::roster::index;

impl Engine<'_> {
    pub(crate) fn call_runtime(&mut self, place: u32, call: RuntimeCall, cause: EventId) {
        let host = &self.hosts[place as usize];
        let (id, boot) = (host.id, host.boot);
        let command = call.command;
        let image = command.image().map(|image| image.0.clone());
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

    fn answer(&mut self, handle: u64, result: Result<RuntimeReply, RuntimeError>) {
        let Some(open) = self.calls.remove(&handle) else {
            return;
        };
        let host = &self.hosts[open.host as usize];
        if host.boot != open.boot {
            return;
        }
        let listed = match &result {
            Ok(RuntimeReply::Containers { containers }) => Some(index(containers.len())),
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
}
