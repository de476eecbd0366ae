//! Faults of what hosts are made of: registry, runtimes, monitors, disks.

use rustix::process::Signal;
use wavetank_model::NodeId;
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Action, Target};
use wavetank_trace::ExitCause;

use crate::agent::Agent;
use crate::room::{Records, RoomError};
use crate::scene::{Scene, SceneError};

/// What came of a fault that was to be done.
pub enum Struck {
    /// It has hit something.
    Hit,
    /// It is there, and will hit what comes its way.
    Armed,
    /// It could not be done, and why.
    Not(String),
}

impl Scene {
    /// Does a fault to what is not a node's process, machine or link.
    pub async fn strike(
        &mut self,
        fault: u32,
        action: &Action,
        target: &Target,
        hosts: &[NodeId],
        containers: &[(NodeId, ContainerId)],
    ) -> Result<Struck, SceneError> {
        let hit_if = |has_hit: bool| if has_hit { Struck::Hit } else { Struck::Armed };
        Ok(match action {
            Action::RegistryError { .. }
            | Action::RegistrySlow { .. }
            | Action::RegistryStall { .. }
            | Action::RegistryTruncate { .. }
            | Action::RegistryWrongDigest { .. }
            | Action::RegistryMovedTag => self.strike_registry(fault, action, target),
            Action::DaemonRestart { .. } => {
                for host in hosts {
                    self.room.kill_daemon(&host.to_string()).await?;
                }
                hit_if(!hosts.is_empty())
            }
            Action::MonitorKill => hit_if(self.kill_monitors(containers).await?),
            Action::DiskFull => {
                for host in hosts {
                    self.room.fill_disk(&host.to_string()).await?;
                }
                hit_if(!hosts.is_empty())
            }
            action => {
                let speed = self.pace.speed;
                let strike = |host| match self.agents.get_mut(host) {
                    Some(agent) => agent.strike(fault, action, speed),
                    None => Ok(()),
                };
                match hosts.iter().try_for_each(strike) {
                    Ok(()) => Struck::Armed,
                    Err(why) => Struck::Not(why),
                }
            }
        })
    }

    /// True if there were any.
    async fn kill_monitors(
        &self,
        containers: &[(NodeId, ContainerId)],
    ) -> Result<bool, SceneError> {
        let mut has_killed = false;
        for (host, container) in containers {
            let Some(agent) = self.agents.get(host) else {
                continue;
            };
            // First, so that it cannot be told too late; one that ended before it could be killed
            // ended for another reason.
            agent.observer.mark(container, ExitCause::Fault);
            let (name, monitor) = (host.to_string(), agent.monitor_of(container));
            let kill = self.room.signal_monitor(&name, &monitor, Signal::KILL);
            match kill.await {
                Ok(()) => has_killed = true,
                Err(RoomError::NoMonitor { .. }) => {
                    agent.observer.mark(container, ExitCause::Itself);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(has_killed)
    }

    fn strike_registry(&mut self, fault: u32, action: &Action, target: &Target) -> Struck {
        let images = match target {
            Target::Registry { images } => images.as_slice(),
            _ => &[],
        };
        match self.images.strike(&self.registry, action, images) {
            Ok(struck) => {
                self.registry_faults.insert(fault, struck);
                Struck::Armed
            }
            Err(error) => Struck::Not(error.to_string()),
        }
    }

    /// Takes back what such a fault did.
    pub async fn relieve(
        &mut self,
        fault: u32,
        action: &Action,
        hosts: &[NodeId],
    ) -> Result<bool, SceneError> {
        if let Some(struck) = self.registry_faults.remove(&fault) {
            return Ok(struck.heal(&self.registry) > 0);
        }
        let mut has_hit = false;
        for host in hosts {
            let name = host.to_string();
            match action {
                Action::DaemonRestart { keeps_state } => {
                    let records = match keeps_state {
                        true => Records::Keep,
                        false => Records::Lose,
                    };
                    self.room.restart_daemon(&name, records).await?;
                }
                Action::DiskFull => self.room.free_disk(&name).await?,
                _ => {
                    let agent = self.agents.get_mut(host);
                    has_hit |= agent.is_some_and(|agent| agent.relieve(fault));
                }
            }
        }
        Ok(has_hit)
    }

    /// Faults that had a part in something since they were asked last.
    pub fn hits(&self) -> Vec<u32> {
        let met = self
            .registry_faults
            .iter()
            .filter(|(_, fault)| fault.hits(&self.registry) > 0);
        let of_calls = self.agents.values().flat_map(Agent::hits);
        met.map(|(fault, _)| *fault).chain(of_calls).collect()
    }
}
