//! Processes start, crash, and end, with or without their machine.

use wavetank_core::{Input, Stored};
use wavetank_model::{Incarnation, NodeRole};
use wavetank_trace::{EventId, HostState, Payload};

use crate::boot;
use crate::engine::{Engine, Happening};
use crate::roster::index;

impl Engine<'_> {
    /// Starts a host's process from its disk, if nothing keeps it from running.
    pub(crate) fn start_process(&mut self, place: u32, cause: EventId) {
        let host = &self.hosts[place as usize];
        if host.process.is_some() || !host.power || !host.down_by.is_empty() {
            return;
        }
        let made = self.make_process(place);
        let host = &mut self.hosts[place as usize];
        host.seasoned = true;
        let (id, incarnation, boot) = (host.id, host.incarnation, host.boot);
        match made {
            Ok(process) => {
                host.process = Some(process);
                let state = HostState::Started;
                let payload = Payload::Host { state, incarnation };
                let cause = self.announce(Some(id), cause, payload);
                self.arrive(place, boot, cause, Input::Timer);
            }
            Err(why) => {
                self.record(Some(id), cause, Payload::GaveUp { why });
                // The runbook for a disk that cannot be trusted: wipe it and join again.
                self.hosts[place as usize].disk.wipe();
                let state = HostState::Crashed;
                self.announce(Some(id), cause, Payload::Host { state, incarnation });
                self.restart_later(place);
            }
        }
    }

    fn make_process(&mut self, place: u32) -> Result<Box<dyn wavetank_core::Process>, String> {
        let plan = self.plan;
        let host = &mut self.hosts[place as usize];
        host.incarnation = Incarnation(host.incarnation.0 + 1);
        let (id, incarnation) = (host.id, host.incarnation);
        let now = host.clock.monotonic(self.now);
        let read = |record: Option<_>| record.map_or(Stored::Damaged, Stored::Intact);
        let stored = host.disk.read().map(read).collect();
        match id.role {
            NodeRole::Manager => {
                let config = boot::manager(plan, id, incarnation, host.seasoned);
                self.system.manager(config, stored, now, &mut host.rng)
            }
            NodeRole::Agent => {
                let config = boot::agent(plan, id, incarnation);
                self.system.agent(config, stored, now, &mut host.rng)
            }
            NodeRole::Client => {
                let config = boot::client(plan, id, incarnation);
                Ok(self.system.client(config, now, &mut host.rng))
            }
        }
    }

    /// A process gives up; its supervisor starts it again after a while.
    pub(crate) fn crash(&mut self, place: u32, cause: EventId, why: &str) {
        let id = self.hosts[place as usize].id;
        let cause = self
            .record(
                Some(id),
                cause,
                Payload::GaveUp {
                    why: why.to_owned(),
                },
            )
            .id;
        self.stop_process(place, cause, HostState::Crashed, false);
        self.restart_later(place);
    }

    fn restart_later(&mut self, place: u32) {
        let boot = self.hosts[place as usize].boot;
        let at = self.now + self.plan.cluster.restart_delay;
        self.queue
            .push(at, Happening::Restart { host: place, boot });
    }

    /// Ends a host's process, and with a power loss or a wipe the machine.
    pub(crate) fn stop_process(
        &mut self,
        place: u32,
        cause: EventId,
        state: HostState,
        torn: bool,
    ) -> bool {
        let now = self.now;
        let silent = matches!(state, HostState::PowerLost | HostState::Wiped);
        let host = &mut self.hosts[place as usize];
        let was_running = host.process.is_some();
        let has_more_to_lose = silent && host.power;
        if !(was_running || has_more_to_lose) {
            return false;
        }
        let (id, incarnation) = (host.id, host.incarnation);
        if silent {
            host.disk.lose_power(torn);
            host.power = false;
            if let Some(runtime) = &mut host.runtime {
                runtime.lose_power(now, &host.clock);
                if state == HostState::Wiped {
                    runtime.wipe(now, &host.clock);
                }
            }
            if state == HostState::Wiped {
                host.disk.wipe();
            }
        } else {
            if let Some(runtime) = &mut host.runtime {
                runtime.disconnect();
            }
            self.complete_write(place);
        }
        self.hosts[place as usize].drop_process();
        self.locks.release_all(id);
        self.leadership.forget(place);
        let cause = self.announce(Some(id), cause, Payload::Host { state, incarnation });
        self.pump_runtime(place, cause);
        if !silent {
            self.tell_peers(place, cause);
        }
        true
    }

    /// A process ended while its write was under way: the kernel completes it, so what the process
    /// decided is durable and counts as decided. Nothing of it is sent.
    fn complete_write(&mut self, place: u32) {
        let host = &mut self.hosts[place as usize];
        host.disk
            .finish_write(wavetank_core::Record::replaces_history);
        let Some(waiting) = host.waiting.take().filter(|waiting| waiting.writes) else {
            return;
        };
        let mut cause = waiting.cause;
        for notice in waiting.effects.notices {
            cause = self.release_notice(place, notice, cause);
        }
    }

    /// The peers of an ended process see their connections close.
    fn tell_peers(&mut self, place: u32, cause: EventId) {
        let id = self.hosts[place as usize].id;
        for peer in 0..index(self.hosts.len()) {
            let known = self.network.has_sent(place, peer) || self.network.has_sent(peer, place);
            if peer == place || !known {
                continue;
            }
            let delivery = self.network.route(self.now, place, peer, 64);
            if let Some(at) = delivery.arrivals[0] {
                let boot = self.hosts[peer as usize].boot;
                let input = Input::ConnectionLost { peer: id };
                self.queue.push(
                    at,
                    Happening::Arrive {
                        to: peer,
                        boot,
                        cause,
                        input,
                    },
                );
            }
        }
    }
}
