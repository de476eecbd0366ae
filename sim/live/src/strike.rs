//! What each fault does to the hosts of a stage, and how it is undone.

use wavetank_engine::blows;
use wavetank_model::Operation;
use wavetank_scenario::plan::Action;
use wavetank_trace::{EventId, FaultState, HostState, Payload};

use crate::images;
use crate::parts::Struck;
use crate::scene::SceneError;
use crate::stage::{Stage, TELLING};

impl Stage<'_> {
    /// A fault comes into force.
    pub(crate) async fn strike(&mut self, fault: u32) -> Result<(), SceneError> {
        let plan = self.plan;
        let places = self.faults.runs[fault as usize].places.clone();
        match &plan.faults[fault as usize].action {
            Action::ProcessExit => self.end_all(fault, &places, HostState::Exited).await,
            Action::ProcessKill => self.end_all(fault, &places, HostState::Killed).await,
            Action::PowerLoss { .. } => self.end_all(fault, &places, HostState::PowerLost).await,
            Action::Wipe => self.end_all(fault, &places, HostState::Wiped).await,
            Action::Pause => self.pause_all(fault, &places).await,
            Action::ClockJump { by_ns } => {
                self.jump_clocks(&places, *by_ns)?;
                self.hit(fault);
                Ok(())
            }
            Action::Membership { join } => self.change_membership(fault, &places, *join).await,
            Action::Operator { operation } => {
                self.operator.push(operation.clone(), EventId(0));
                self.hit(fault);
                self.operate();
                Ok(())
            }
            Action::TaskUnhealthy => {
                self.set_health(fault, false);
                Ok(())
            }
            action => self.strike_parts(fault, action, &places).await,
        }
    }

    /// Strikes what hosts are made of, and what is between them.
    async fn strike_parts(
        &mut self,
        fault: u32,
        action: &Action,
        places: &[u32],
    ) -> Result<(), SceneError> {
        if let Some(rule) = blows::link_rule(fault, action, places, self.roster) {
            self.rules.push(rule);
            return self.set_network(fault).await;
        }
        let target = &self.plan.faults[fault as usize].target;
        let hosts: Vec<_> = places
            .iter()
            .map(|place| self.roster.id_of(*place))
            .collect();
        let containers = self.faults.runs[fault as usize].containers.clone();
        let containers: Vec<_> = containers
            .into_iter()
            .map(|(place, id)| (self.roster.id_of(place), id))
            .collect();
        if let Action::DaemonRestart { .. } = action {
            self.blindness.begins(fault, self.wall_before(TELLING));
        }
        let scene = &mut self.scene;
        match scene
            .strike(fault, action, target, &hosts, &containers)
            .await?
        {
            Struck::Hit => self.hit(fault),
            Struck::Armed => {}
            Struck::Not(why) => {
                self.tell_fault(fault, FaultState::NotApplied, (Vec::new(), why));
            }
        }
        Ok(())
    }

    fn jump_clocks(&self, places: &[u32], by_ns: i64) -> Result<(), SceneError> {
        let mut nodes = places.iter().map(|place| self.roster.id_of(*place));
        nodes.try_for_each(|node| self.scene.jump_clock(node, by_ns))
    }

    async fn set_network(&mut self, fault: u32) -> Result<(), SceneError> {
        self.scene.set_network(&self.rules, self.roster).await?;
        // Whoever is cut off will notice: something is on its way all the time.
        if self.rules.iter().any(|rule| rule.fault == fault) {
            self.hit(fault);
        }
        Ok(())
    }

    async fn end_all(
        &mut self,
        fault: u32,
        places: &[u32],
        state: HostState,
    ) -> Result<(), SceneError> {
        for place in places {
            self.hosts[*place as usize].down_by.insert(fault);
            if self.stop(*place, state).await? {
                self.hit(fault);
            }
        }
        Ok(())
    }

    async fn pause_all(&mut self, fault: u32, places: &[u32]) -> Result<(), SceneError> {
        for place in places {
            if self.hosts[*place as usize].paused_by.is_empty() {
                self.scene.pause(self.roster.id_of(*place)).await?;
            }
            self.hosts[*place as usize].paused_by.insert(fault);
            self.tell_host(*place, HostState::Paused);
        }
        self.hit(fault);
        Ok(())
    }

    async fn resume_all(&mut self, fault: u32, places: &[u32]) -> Result<(), SceneError> {
        for place in places {
            let host = &mut self.hosts[*place as usize];
            host.paused_by.remove(&fault);
            if host.paused_by.is_empty() {
                self.tell_host(*place, HostState::Resumed);
                self.scene.resume(self.roster.id_of(*place)).await?;
            }
        }
        Ok(())
    }

    fn tell_host(&mut self, place: u32, state: HostState) {
        let incarnation = self.hosts[place as usize].incarnation;
        let id = self.roster.id_of(place);
        self.tell(Some(id), Payload::Host { state, incarnation });
    }

    /// Has the probes of the struck containers succeed or fail.
    fn set_health(&mut self, fault: u32, healthy: bool) {
        for (place, container) in self.faults.runs[fault as usize].containers.clone() {
            let host = &self.hosts[place as usize];
            let pid = host.running.get(&container).copied();
            if pid.is_some_and(|pid| images::set_health(pid, healthy).is_ok()) {
                let id = self.roster.id_of(place);
                self.tell(Some(id), Payload::ContainerHealth { container, healthy });
                self.hit(fault);
            }
        }
    }

    async fn change_membership(
        &mut self,
        fault: u32,
        places: &[u32],
        join: bool,
    ) -> Result<(), SceneError> {
        for place in places {
            if join {
                self.start(*place).await?;
                continue;
            }
            let node = self.roster.id_of(*place);
            self.operator
                .push(Operation::RemoveManager { node }, EventId(0));
            self.hosts[*place as usize].down_by.insert(fault);
            self.stop(*place, HostState::Exited).await?;
        }
        self.operate();
        self.hit(fault);
        Ok(())
    }

    /// A fault is no longer in force.
    pub(crate) async fn undo(&mut self, fault: u32) -> Result<(), SceneError> {
        let plan = self.plan;
        let places = self.faults.runs[fault as usize].places.clone();
        match &plan.faults[fault as usize].action {
            Action::ProcessExit | Action::ProcessKill | Action::PowerLoss { .. } | Action::Wipe => {
                for place in places {
                    self.hosts[place as usize].down_by.remove(&fault);
                    if self.hosts[place as usize].down_by.is_empty() {
                        self.power_up(place).await?;
                        self.start(place).await?;
                    }
                }
                Ok(())
            }
            Action::Pause => self.resume_all(fault, &places).await,
            Action::ClockJump { by_ns } => self.jump_clocks(&places, by_ns.saturating_neg()),
            Action::TaskUnhealthy => {
                self.set_health(fault, true);
                Ok(())
            }
            action => self.relieve(fault, action).await,
        }
    }

    async fn relieve(&mut self, fault: u32, action: &Action) -> Result<(), SceneError> {
        if self.rules.iter().any(|rule| rule.fault == fault) {
            self.rules.retain(|rule| rule.fault != fault);
            return self.set_network(fault).await;
        }
        let places = &self.faults.runs[fault as usize].places;
        let hosts: Vec<_> = places
            .iter()
            .map(|place| self.roster.id_of(*place))
            .collect();
        if self.scene.relieve(fault, action, &hosts).await? {
            self.hit(fault);
        }
        if let Action::DaemonRestart { .. } = action {
            self.blindness.ends(fault, self.wall());
        }
        Ok(())
    }
}
