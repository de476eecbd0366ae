//! What each fault does when it fires, and how it is undone. One arm per action, nothing else.

use std::collections::BTreeSet;

use wavetank_model::{NodeId, Operation};
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Action, Direction, Shape, Target};
use wavetank_trace::{EventId, ExitCause, HostState, Payload};
use wavetank_world::{
    DiskFault, LinkEffect, LinkRule, RegistryEffect, RegistryRule, RuntimeEffect, RuntimeRule,
    Selection,
};

use crate::engine::{Engine, Happening, index};

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
        let touching = || Selection::Touching(places.iter().copied().collect());
        let (selection, effect) = match action {
            Action::Partition { shape, direction } => {
                (self.selection(shape, *direction, places), LinkEffect::Cut)
            }
            Action::LinkDelay { by } => (touching(), LinkEffect::Delay(*by)),
            Action::LinkLoss { percent } => (touching(), LinkEffect::Loss(*percent)),
            Action::LinkDuplicate { percent } => (touching(), LinkEffect::Duplicate(*percent)),
            Action::LinkReorder { percent, by } => (touching(), LinkEffect::Reorder(*percent, *by)),
            Action::LinkCorrupt { percent } => (touching(), LinkEffect::Corrupt(*percent)),
            Action::LinkBandwidth { bytes_per_second } => {
                (touching(), LinkEffect::Bandwidth(*bytes_per_second))
            }
            Action::LinkHold => (touching(), LinkEffect::Hold),
            _ => return false,
        };
        self.network.add_rule(LinkRule {
            fault,
            selection,
            effect,
        });
        true
    }

    fn selection(&self, shape: &Shape, direction: Direction, places: &[u32]) -> Selection {
        let (outward, inward) = match direction {
            Direction::Both => (true, true),
            Direction::From => (true, false),
            Direction::To => (false, true),
        };
        let set = |nodes: &[NodeId]| -> BTreeSet<u32> {
            nodes
                .iter()
                .filter_map(|node| self.place_of(*node))
                .collect()
        };
        match shape {
            Shape::Isolate => Selection::Border(places.iter().copied().collect(), outward, inward),
            Shape::FromManagers => {
                let others = (0..self.managers).filter(|place| !places.contains(place));
                let groups = vec![places.iter().copied().collect(), others.collect()];
                Selection::Groups(groups, outward, inward)
            }
            Shape::Groups(groups) => {
                Selection::Groups(groups.iter().map(|g| set(g)).collect(), outward, inward)
            }
            Shape::Bridge { left, right } => {
                Selection::Groups(vec![set(left), set(right)], outward, inward)
            }
            Shape::Pairs(pairs) => {
                let place = |pair: &(NodeId, NodeId)| {
                    Some((self.place_of(pair.0)?, self.place_of(pair.1)?))
                };
                Selection::Pairs(pairs.iter().filter_map(place).collect())
            }
        }
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
        let effect = match action {
            Action::DiskFull => DiskFault::Full,
            Action::DiskError => DiskFault::Error,
            Action::DiskSlow { by } => DiskFault::Slow(*by),
            Action::DiskLies => DiskFault::Lies,
            _ => return false,
        };
        for place in places {
            let host = &mut self.hosts[*place as usize];
            host.disk.add_fault(fault, effect.clone());
            if let (DiskFault::Full, Some(runtime)) = (&effect, &mut host.runtime) {
                let effect = RuntimeEffect::NoSpace;
                runtime.add_rule(RuntimeRule {
                    fault,
                    effect,
                    count: None,
                });
            }
        }
        true
    }

    fn strike_registry(&mut self, fault: u32, action: &Action, target: &Target) -> bool {
        let (effect, count) = match action {
            Action::RegistryError { class, count } => (RegistryEffect::Error(*class), *count),
            Action::RegistrySlow { bytes_per_second } => {
                (RegistryEffect::Slow(*bytes_per_second), None)
            }
            Action::RegistryStall { after_bytes } => (RegistryEffect::Stall(*after_bytes), None),
            Action::RegistryTruncate { count } => (RegistryEffect::Truncate, *count),
            Action::RegistryWrongDigest { count } => (RegistryEffect::WrongDigest, *count),
            Action::RegistryMovedTag => (RegistryEffect::MovedTag, None),
            _ => return false,
        };
        let images = match target {
            Target::Registry { images } => images.clone(),
            _ => Vec::new(),
        };
        self.registry.add_rule(RegistryRule {
            fault,
            images,
            effect,
            count,
        });
        true
    }

    fn strike_containers(&mut self, fault: u32, action: &Action, cause: EventId) -> bool {
        let now = self.now;
        if !matches!(
            action,
            Action::TaskExit { .. } | Action::TaskOom | Action::TaskUnhealthy | Action::MonitorKill
        ) {
            return false;
        }
        for (place, id) in self.faults.runs[fault as usize].containers.clone() {
            let host = &mut self.hosts[place as usize];
            let Some(runtime) = &mut host.runtime else {
                continue;
            };
            match action {
                Action::TaskExit { code } => {
                    runtime.end_running(now, &host.clock, &id, *code, ExitCause::Fault);
                }
                Action::TaskOom => {
                    runtime.end_running(now, &host.clock, &id, 137, ExitCause::OutOfMemory);
                }
                Action::MonitorKill => {
                    runtime.forget_exit(now, &host.clock, &id, ExitCause::Fault);
                }
                _ => runtime.set_unhealthy(&id, fault, true),
            }
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
            match action {
                Action::DaemonRestart { keeps_state } => {
                    runtime.daemon_down(now, &host.clock, fault, *keeps_state);
                }
                Action::Orphan => {
                    let id = ContainerId(format!("wt-task-{}.1", 900_000 + fault));
                    runtime.add_orphan(now, &host.clock, &id);
                }
                action => {
                    if let Some((effect, count)) = runtime_rule(action) {
                        runtime.add_rule(RuntimeRule {
                            fault,
                            effect,
                            count,
                        });
                    }
                }
            }
            if matches!(action, Action::Orphan) {
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
            runtime.remove_rules(now, fault);
            if matches!(action, Action::DaemonRestart { .. }) && places.contains(&place) {
                runtime.daemon_up(now, fault);
            }
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

/// The runtime rule that an action stands for.
fn runtime_rule(action: &Action) -> Option<(RuntimeEffect, Option<u32>)> {
    Some(match action {
        Action::RuntimeError { call, class, count } => {
            (RuntimeEffect::Error(call.clone(), *class), *count)
        }
        Action::RuntimeDelay { call, by } => (RuntimeEffect::Delay(call.clone(), *by), None),
        Action::RuntimeHang { call } => (RuntimeEffect::Hang(call.clone()), None),
        Action::RuntimeLostReply { call, count } => {
            (RuntimeEffect::LostReply(call.clone()), Some(*count))
        }
        Action::RuntimeEventDrop { event, count } => {
            (RuntimeEffect::DropEvent(event.clone()), *count)
        }
        Action::RuntimeEventDuplicate { event, count } => {
            (RuntimeEffect::DuplicateEvent(event.clone()), *count)
        }
        Action::RuntimeEventDelay { event, by, count } => {
            (RuntimeEffect::DelayEvent(event.clone(), *by), *count)
        }
        Action::ExitBeforeStart { count, code } => {
            (RuntimeEffect::ExitBeforeStart(*code), Some(*count))
        }
        Action::ExitCodeLost { count } => (RuntimeEffect::ExitCodeLost, Some(*count)),
        Action::ExitTimeMissing { count } => (RuntimeEffect::ExitTimeMissing, Some(*count)),
        Action::KillDeadErrors => (RuntimeEffect::KillDeadErrors, None),
        Action::EmptyListing { count } => (RuntimeEffect::EmptyListing, *count),
        _ => return None,
    })
}
