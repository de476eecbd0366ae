//! What each fault does to the machines of a stage, and how it is undone.

use std::sync::PoisonError;

use wavetank_engine::blows;
use wavetank_model::Operation;
use wavetank_scenario::plan::Action;
use wavetank_trace::{EventId, HostState, Payload};

use crate::simulator::Simulator;
use crate::stage::{Happening, Stage};

impl Stage<'_> {
    /// A fault comes into force.
    pub(crate) fn strike(&mut self, fault: u32, cause: EventId, simulator: &mut dyn Simulator) {
        let plan = self.plan;
        let places = self.faults.runs[fault as usize].places.clone();
        match &plan.faults[fault as usize].action {
            Action::ProcessExit => {
                self.end_all(fault, &places, HostState::Exited, cause, simulator);
            }
            Action::ProcessKill => {
                self.end_all(fault, &places, HostState::Killed, cause, simulator);
            }
            Action::PowerLoss { torn: true } => self.lay_fuses(fault, &places),
            Action::PowerLoss { torn: false } => {
                self.end_all(fault, &places, HostState::PowerLost, cause, simulator);
            }
            Action::Wipe => self.end_all(fault, &places, HostState::Wiped, cause, simulator),
            Action::Pause => self.pause_all(fault, &places, cause, simulator),
            Action::ClockJump { by_ns } => self.jump(&places, *by_ns, fault),
            Action::ClockDrift { ppm } => self.drift(&places, *ppm, fault),
            Action::Membership { join } => {
                self.change_membership(fault, &places, *join, cause, simulator);
            }
            Action::Operator { operation } => {
                self.operator.push(operation.clone(), cause);
                self.hit(fault);
                self.operate(simulator);
            }
            action => self.strike_parts(fault, action, &places, simulator),
        }
    }

    /// Strikes what machines are made of, and what is between them.
    fn strike_parts(
        &mut self,
        fault: u32,
        action: &Action,
        places: &[u32],
        simulator: &mut dyn Simulator,
    ) {
        if let Some(rule) = blows::link_rule(fault, action, places, self.roster) {
            self.rules.push(rule);
            self.set_links(simulator);
        }
        let target = &self.plan.faults[fault as usize].target;
        if let Some(rule) = blows::registry_rule(fault, action, target) {
            let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry.add_rule(rule);
        }
        if blows::strikes_containers(action) {
            self.strike_containers(fault, action);
        }
        for place in places {
            self.strike_machine(fault, action, *place);
        }
    }

    fn strike_containers(&mut self, fault: u32, action: &Action) {
        for (place, id) in self.faults.runs[fault as usize].containers.clone() {
            if let Some(runtime) = &self.machines[place as usize].runtime {
                runtime.strike(|world, now, clock| {
                    blows::strike_container(fault, action, world, now, clock, &id);
                });
                self.hit(fault);
            }
        }
    }

    fn strike_machine(&mut self, fault: u32, action: &Action, place: u32) {
        let machine = &self.machines[place as usize];
        let mut hit = false;
        if let Action::BitRot { draw } = action {
            hit = machine.disk.rot(*draw);
        }
        if let Some(effect) = blows::disk_fault(action) {
            machine.disk.add_fault(fault, effect);
        }
        if let Some(runtime) = &machine.runtime {
            hit |= runtime.strike(|world, now, clock| {
                blows::strike_runtime(fault, action, world, now, clock)
            });
        }
        if hit {
            self.hit(fault);
        }
    }

    fn end_all(
        &mut self,
        fault: u32,
        places: &[u32],
        state: HostState,
        cause: EventId,
        simulator: &mut dyn Simulator,
    ) {
        for place in places {
            self.hosts[*place as usize].down_by.insert(fault);
            if self.stop(*place, state, false, cause, simulator) {
                self.hit(fault);
            }
        }
    }

    /// The power goes while something is being written; if nothing is, it goes all the same.
    fn lay_fuses(&mut self, fault: u32, places: &[u32]) {
        for place in places {
            self.hosts[*place as usize].down_by.insert(fault);
            self.machines[*place as usize].disk.lay_fuse();
            let at = self.now + Stage::fuse_time();
            let place = *place;
            self.queue.push(at, Happening::Blackout { place, fault });
        }
        self.hit(fault);
    }

    /// A machine whose fuse was laid loses power.
    pub(crate) fn black_out(&mut self, place: u32, simulator: &mut dyn Simulator) {
        let state = HostState::PowerLost;
        self.stop(place, state, true, EventId(0), simulator);
    }

    fn pause_all(
        &mut self,
        fault: u32,
        places: &[u32],
        cause: EventId,
        simulator: &mut dyn Simulator,
    ) {
        for place in places {
            let now = self.now;
            let host = &mut self.hosts[*place as usize];
            if host.paused_by.is_empty() {
                host.paused_since = now;
                simulator.pause(*place);
            }
            host.paused_by.insert(fault);
            self.record_host(*place, HostState::Paused, cause);
        }
        self.hit(fault);
    }

    fn resume_all(
        &mut self,
        fault: u32,
        places: &[u32],
        cause: EventId,
        simulator: &mut dyn Simulator,
    ) {
        for place in places {
            let host = &mut self.hosts[*place as usize];
            host.paused_by.remove(&fault);
            if !host.paused_by.is_empty() {
                continue;
            }
            let since = host.paused_since;
            if let Some(runtime) = &self.machines[*place as usize].runtime {
                runtime.strike(|world, now, _| world.shift(since, now));
            }
            self.record_host(*place, HostState::Resumed, cause);
            simulator.resume(*place);
        }
    }

    fn record_host(&mut self, place: u32, state: HostState, cause: EventId) {
        let machine = &self.machines[place as usize];
        let (host, incarnation) = (Some(machine.id), machine.incarnation());
        self.record(host, cause, Payload::Host { state, incarnation });
    }

    fn jump(&mut self, places: &[u32], by_ns: i64, fault: u32) {
        for place in places {
            self.machines[*place as usize].set_clock(|clock, _| clock.jump_wall(by_ns));
        }
        self.hit(fault);
    }

    fn drift(&mut self, places: &[u32], ppm: i64, fault: u32) {
        for place in places {
            self.machines[*place as usize].set_clock(|clock, now| clock.set_drift(now, ppm));
        }
        self.hit(fault);
    }

    fn change_membership(
        &mut self,
        fault: u32,
        places: &[u32],
        join: bool,
        cause: EventId,
        simulator: &mut dyn Simulator,
    ) {
        for place in places {
            if join {
                self.start(*place, simulator);
                continue;
            }
            let node = self.roster.id_of(*place);
            self.operator.push(Operation::RemoveManager { node }, cause);
            self.hosts[*place as usize].down_by.insert(fault);
            self.stop(*place, HostState::Exited, false, cause, simulator);
        }
        self.operate(simulator);
        self.hit(fault);
    }

    /// A fault is no longer in force.
    pub(crate) fn undo(&mut self, fault: u32, cause: EventId, simulator: &mut dyn Simulator) {
        let plan = self.plan;
        let places = self.faults.runs[fault as usize].places.clone();
        match &plan.faults[fault as usize].action {
            Action::ProcessExit | Action::ProcessKill | Action::PowerLoss { .. } | Action::Wipe => {
                self.start_all(fault, &places, simulator);
            }
            Action::Pause => self.resume_all(fault, &places, cause, simulator),
            Action::ClockJump { by_ns } => self.jump(&places, by_ns.saturating_neg(), fault),
            Action::ClockDrift { .. } => self.drift(&places, 0, fault),
            action => self.relieve(fault, action, &places, simulator),
        }
    }

    fn start_all(&mut self, fault: u32, places: &[u32], simulator: &mut dyn Simulator) {
        for place in places {
            let host = &mut self.hosts[*place as usize];
            host.down_by.remove(&fault);
            if !host.down_by.is_empty() {
                continue;
            }
            self.machines[*place as usize].disk.douse();
            if std::mem::take(&mut host.dark) {
                self.machines[*place as usize].set_clock(|clock, now| clock.reboot(now));
                self.set_links(simulator);
            }
            self.start(*place, simulator);
        }
    }

    fn relieve(
        &mut self,
        fault: u32,
        action: &Action,
        places: &[u32],
        simulator: &mut dyn Simulator,
    ) {
        if self.rules.iter().any(|rule| rule.fault == fault) {
            self.rules.retain(|rule| rule.fault != fault);
            self.set_links(simulator);
        }
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.remove_rules(fault);
        drop(registry);
        for machine in &self.machines {
            machine.disk.remove_fault(fault);
            if let Some(runtime) = &machine.runtime {
                let is_struck = places.contains(&machine.place);
                runtime.strike(|world, now, _| {
                    blows::relieve_runtime(fault, action, world, now, is_struck);
                });
            }
        }
        for (place, id) in self.faults.runs[fault as usize].containers.clone() {
            if let Some(runtime) = &self.machines[place as usize].runtime {
                runtime.strike(|world, _, _| world.set_unhealthy(&id, fault, false));
            }
        }
    }
}
