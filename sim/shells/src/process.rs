//! Processes start, give up and end, with or without their machine.

use std::sync::Arc;

use wavetank_trace::{EventId, HostState, Payload};

use crate::links::Links;
use crate::log::Ending;
use crate::machine::Machine;
use crate::simulator::Simulator;
use crate::stage::{Happening, Stage};

impl Stage<'_> {
    /// Starts a machine's process, if nothing keeps it from running.
    pub(crate) fn start(&mut self, place: u32, simulator: &mut dyn Simulator) {
        let host = &mut self.hosts[place as usize];
        if host.up || host.dark || !host.down_by.is_empty() {
            return;
        }
        host.up = true;
        host.lives += 1;
        simulator.start(place);
    }

    /// Ends a machine's process, and with a power loss or a wipe the machine; false if there was
    /// nothing to end.
    pub(crate) fn stop(
        &mut self,
        place: u32,
        state: HostState,
        torn: bool,
        cause: EventId,
        simulator: &mut dyn Simulator,
    ) -> bool {
        let silent = matches!(state, HostState::PowerLost | HostState::Wiped);
        let host = &mut self.hosts[place as usize];
        if !(host.up || silent && !host.dark) {
            return false;
        }
        let was_up = std::mem::take(&mut host.up);
        host.lives += 1;
        if silent {
            // First: not even the end of its connections may be heard.
            host.dark = true;
            self.set_links(simulator);
        }
        if was_up {
            simulator.stop(place);
        }
        let machine = Arc::clone(&self.machines[place as usize]);
        if silent {
            lose_power(&machine, state, torn);
        } else if let Some(runtime) = &machine.runtime {
            runtime.strike(|world, _, _| world.disconnect());
        }
        self.leadership.forget(place);
        let incarnation = machine.incarnation();
        let host = Some(machine.id);
        self.record(host, cause, Payload::Host { state, incarnation });
        true
    }

    pub(crate) fn set_links(&mut self, simulator: &mut dyn Simulator) {
        let dark = (0..).zip(&self.hosts).filter(|(_, host)| host.dark);
        let dark = dark.map(|(place, _)| place).collect();
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let links = Links::of(&self.rules, &dark, hosts);
        self.common.cuts.set(links.cut.clone());
        simulator.set_links(&links);
    }

    /// A process has ended by itself; its supervisor starts it again after a while. Where the disk
    /// cannot be trusted, the runbook is to wipe it and to join again.
    pub(crate) fn ended(&mut self, place: u32, ending: Ending, simulator: &mut dyn Simulator) {
        if !self.hosts[place as usize].up {
            return;
        }
        if self.machines[place as usize].disk.is_dead() {
            self.black_out(place, simulator);
            return;
        }
        let Ending {
            why,
            distrusts_disk,
        } = ending;
        let host = Some(self.roster.id_of(place));
        let cause = self.record(host, EventId(0), Payload::GaveUp { why }).id;
        self.stop(place, HostState::Crashed, false, cause, simulator);
        if distrusts_disk {
            self.machines[place as usize].disk.wipe();
        }
        let starts = self.hosts[place as usize].lives;
        let at = self.now + self.plan.cluster.restart_delay;
        self.queue.push(at, Happening::Restart { place, starts });
    }
}

fn lose_power(machine: &Machine, state: HostState, torn: bool) {
    machine.disk.lose_power(torn);
    if state == HostState::Wiped {
        machine.disk.wipe();
    }
    if let Some(runtime) = &machine.runtime {
        runtime.strike(|world, now, clock| match state {
            HostState::Wiped => world.wipe(now, clock),
            _ => world.lose_power(now, clock),
        });
        runtime.hang_up();
    }
}
