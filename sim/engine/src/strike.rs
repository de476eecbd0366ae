//! What each fault does when it fires, and how it is undone. One arm per action, nothing else.

use wavetank_model::Operation;
use wavetank_scenario::plan::{Action, Target};
use wavetank_trace::{EventId, HostState, Payload};

use crate::blows;
use crate::engine::{Engine, Happening};
use crate::roster::index;

impl Engine<'_> {
    /// A fault comes into force.
    pub(crate) fn strike(&mut self, fault: u32, cause: EventId) {
        let plan = self.plan;
        let planned = &plan.faults[fault as usize];
        let places = self.faults.runs[fault as usize].places.clone();
        match &planned.action {
            Action::ProcessExit => self.end_all(fault, &places, HostState::Exited, cause),
            Action::ProcessKill => self.end_all(fault, &places, HostState::Killed, cause),
            Action::PowerLoss { torn } => {
                for place in places {
                    self.hosts[place as usize].down_by.insert(fault);
                    if self.stop_process(place, cause, HostState::PowerLost, *torn) {
                        self.hit(fault);
                    }
                }
            }
            Action::Wipe => self.end_all(fault, &places, HostState::Wiped, cause),
            Action::Pause => self.pause_all(fault, &places, cause),
            Action::SlowCpu { factor } => {
                for place in places {
                    self.hosts[place as usize].slowed_by.push((fault, *factor));
                }
                self.hit(fault);
            }
            Action::ClockJump { by_ns } => {
                for place in places {
                    self.hosts[place as usize].clock.jump_wall(*by_ns);
                }
                self.hit(fault);
            }
            Action::ClockDrift { ppm } => self.drift(fault, &places, *ppm),
            Action::Membership { join } => self.change_membership(fault, &places, *join, cause),
            Action::Operator { operation } => {
                self.operator.push(operation.clone(), cause);
                self.hit(fault);
                self.operate();
            }
            Action::CodecRetype { .. }
            | Action::CodecRename { .. }
            | Action::CodecMissing { .. } => self.faults.set_codec(fault, true),
            action => {
                let struck = self.strike_links(fault, action, &places)
                    || self.strike_disks(fault, action, &places)
                    || self.strike_registry(fault, action, &planned.target)
                    || self.strike_containers(fault, action, cause);
                if !struck {
                    self.strike_runtimes(fault, action, &places, cause);
                }
            }
        }
    }

    fn end_all(&mut self, fault: u32, places: &[u32], state: HostState, cause: EventId) {
        for place in places {
            self.hosts[*place as usize].down_by.insert(fault);
            if self.stop_process(*place, cause, state, false) {
                self.hit(fault);
            }
        }
    }

    fn pause_all(&mut self, fault: u32, places: &[u32], cause: EventId) {
        for place in places {
            let now = self.now;
            let host = &mut self.hosts[*place as usize];
            if host.paused_by.is_empty() {
                host.paused_since = now;
            }
            host.paused_by.insert(fault);
            let (id, incarnation) = (host.id, host.incarnation);
            let state = HostState::Paused;
            self.announce(Some(id), cause, Payload::Host { state, incarnation });
        }
        self.hit(fault);
    }

    fn resume_all(&mut self, fault: u32, places: &[u32], cause: EventId) {
        for place in places {
            let now = self.now;
            let host = &mut self.hosts[*place as usize];
            host.paused_by.remove(&fault);
            if host.is_paused() {
                continue;
            }
            if let Some(runtime) = &mut host.runtime {
                runtime.shift(host.paused_since, now);
            }
            host.runtime_timer = None;
            host.timer = None;
            let (id, incarnation, boot) = (host.id, host.incarnation, host.boot);
            let waits = host.waiting.is_some();
            let state = HostState::Resumed;
            self.announce(Some(id), cause, Payload::Host { state, incarnation });
            self.rearm_runtime(*place);
            if waits {
                self.queue
                    .push(now, Happening::Unblock { host: *place, boot });
            } else {
                self.catch_up(*place);
            }
        }
    }

    fn drift(&mut self, fault: u32, places: &[u32], ppm: i64) {
        for place in places {
            let now = self.now;
            let host = &mut self.hosts[*place as usize];
            host.clock.set_drift(now, ppm);
            // The armed timer was computed at the old rate.
            host.timer = None;
            self.rearm(*place);
        }
        self.hit(fault);
    }

    fn change_membership(&mut self, fault: u32, places: &[u32], join: bool, cause: EventId) {
        for place in places {
            if join {
                self.start_process(*place, cause);
            } else {
                let node = self.hosts[*place as usize].id;
                let operation = Operation::RemoveManager { node };
                self.operator.push(operation, cause);
                self.hosts[*place as usize].down_by.insert(fault);
                self.stop_process(*place, cause, HostState::Exited, false);
            }
        }
        self.operate();
        self.hit(fault);
    }

    fn strike_links(&mut self, fault: u32, action: &Action, places: &[u32]) -> bool {
        let rule = blows::link_rule(fault, action, places, self.roster);
        let struck = rule.is_some();
        if let Some(rule) = rule {
            self.network.add_rule(rule);
        }
        struck
    }

    fn strike_disks(&mut self, fault: u32, action: &Action, places: &[u32]) -> bool {
        if let Action::BitRot { draw } = action {
            for place in places {
                if self.hosts[*place as usize].disk.rot(*draw) {
                    self.hit(fault);
                }
            }
            return true;
        }
        let Some(effect) = blows::disk_fault(action) else {
            return false;
        };
        let now = self.now;
        for place in places {
            let host = &mut self.hosts[*place as usize];
            host.disk.add_fault(fault, effect.clone());
            if let Some(runtime) = &mut host.runtime {
                blows::strike_runtime(fault, action, runtime, now, &host.clock);
            }
        }
        true
    }

    fn strike_registry(&mut self, fault: u32, action: &Action, target: &Target) -> bool {
        let rule = blows::registry_rule(fault, action, target);
        let struck = rule.is_some();
        if let Some(rule) = rule {
            self.registry.add_rule(rule);
        }
        struck
    }

    fn strike_containers(&mut self, fault: u32, action: &Action, cause: EventId) -> bool {
        if !blows::strikes_containers(action) {
            return false;
        }
        let now = self.now;
        for (place, id) in self.faults.runs[fault as usize].containers.clone() {
            let host = &mut self.hosts[place as usize];
            let Some(runtime) = &mut host.runtime else {
                continue;
            };
            blows::strike_container(fault, action, runtime, now, &host.clock, &id);
            self.hit(fault);
            self.pump_runtime(place, cause);
        }
        true
    }

    fn strike_runtimes(&mut self, fault: u32, action: &Action, places: &[u32], cause: EventId) {
        let now = self.now;
        for place in places {
            let host = &mut self.hosts[*place as usize];
            let Some(runtime) = &mut host.runtime else {
                continue;
            };
            if blows::strike_runtime(fault, action, runtime, now, &host.clock) {
                self.hit(fault);
            }
            self.pump_runtime(*place, cause);
        }
    }

    /// A fault is no longer in force.
    pub(crate) fn undo(&mut self, fault: u32, cause: EventId) {
        let plan = self.plan;
        let places = self.faults.runs[fault as usize].places.clone();
        match &plan.faults[fault as usize].action {
            Action::ProcessExit | Action::ProcessKill | Action::PowerLoss { .. } | Action::Wipe => {
                self.start_all(fault, &places, cause);
            }
            Action::Pause => self.resume_all(fault, &places, cause),
            Action::SlowCpu { .. } => {
                for place in places {
                    let host = &mut self.hosts[place as usize];
                    host.slowed_by.retain(|(by, _)| *by != fault);
                }
            }
            Action::ClockJump { by_ns } => {
                for place in places {
                    self.hosts[place as usize]
                        .clock
                        .jump_wall(by_ns.saturating_neg());
                }
            }
            Action::ClockDrift { .. } => self.drift(fault, &places, 0),
            Action::CodecRetype { .. }
            | Action::CodecRename { .. }
            | Action::CodecMissing { .. } => self.faults.set_codec(fault, false),
            action => self.undo_rules(fault, action, &places, cause),
        }
    }

    fn start_all(&mut self, fault: u32, places: &[u32], cause: EventId) {
        for place in places {
            let now = self.now;
            let host = &mut self.hosts[*place as usize];
            host.down_by.remove(&fault);
            if !host.down_by.is_empty() {
                continue;
            }
            if !host.power {
                host.power = true;
                host.clock.reboot(now);
                host.runtime_timer = None;
            }
            self.rearm_runtime(*place);
            self.start_process(*place, cause);
        }
    }

    fn undo_rules(&mut self, fault: u32, action: &Action, places: &[u32], cause: EventId) {
        let now = self.now;
        self.network.remove_rules(fault);
        self.release_held(fault);
        self.registry.remove_rules(fault);
        for place in 0..index(self.hosts.len()) {
            let host = &mut self.hosts[place as usize];
            host.disk.remove_fault(fault);
            let Some(runtime) = &mut host.runtime else {
                continue;
            };
            let is_struck = places.contains(&place);
            blows::relieve_runtime(fault, action, runtime, now, is_struck);
            self.pump_runtime(place, cause);
        }
        for (place, id) in self.faults.runs[fault as usize].containers.clone() {
            if let Some(runtime) = &mut self.hosts[place as usize].runtime {
                runtime.set_unhealthy(&id, fault, false);
                self.pump_runtime(place, cause);
            }
        }
    }
}
