//! Processes start, give up and end, with or without their host.

use std::path::Path;
use std::process::ExitStatus;

use wavetank_model::NodeRole;
use wavetank_trace::{HostState, Payload};

use crate::scene::SceneError;
use crate::stage::{Happening, Stage};

/// How much of the end of a node's log is told when it ends by itself, in bytes.
const LAST_WORDS: usize = 400;

impl Stage<'_> {
    /// Starts a host's process, if nothing keeps it from running.
    pub(crate) async fn start(&mut self, place: u32) -> Result<(), SceneError> {
        let id = self.roster.id_of(place);
        let host = &mut self.hosts[place as usize];
        let is_kept = host.up || host.dark || !host.down_by.is_empty();
        if is_kept || id.role == NodeRole::Client {
            return Ok(());
        }
        host.up = true;
        host.life += 1;
        let (life, was_emptied) = (host.life, std::mem::take(&mut host.empty));
        self.scene.start(id, life, was_emptied).await?;
        self.freeze_if_paused(place).await
    }

    /// What begins to run on a host that is paused is paused as well.
    async fn freeze_if_paused(&mut self, place: u32) -> Result<(), SceneError> {
        if self.hosts[place as usize].paused_by.is_empty() {
            return Ok(());
        }
        self.scene.pause(self.roster.id_of(place)).await
    }

    /// Ends a host's process, and with a power loss or a wipe the host; false if there was nothing
    /// to end.
    pub(crate) async fn stop(&mut self, place: u32, state: HostState) -> Result<bool, SceneError> {
        let id = self.roster.id_of(place);
        let silent = matches!(state, HostState::PowerLost | HostState::Wiped);
        let host = &mut self.hosts[place as usize];
        if !(host.up || silent && !host.dark) {
            return Ok(false);
        }
        let was_up = std::mem::take(&mut host.up);
        host.life += 1;
        let incarnation = host.incarnation;
        if silent {
            host.dark = true;
            host.empty = state == HostState::Wiped;
            host.running.clear();
        }
        // Before: what it does no more must not be told after it.
        if state == HostState::Exited {
            self.scene.exit(id).await?;
            self.tell(Some(id), Payload::Host { state, incarnation });
        } else {
            self.tell(Some(id), Payload::Host { state, incarnation });
            match silent {
                true => self.scene.cut_power(id, state).await?,
                false if was_up => self.scene.kill(id).await?,
                false => {}
            }
        }
        self.leadership.forget(place);
        Ok(true)
    }

    /// A host has power again.
    pub(crate) async fn power_up(&mut self, place: u32) -> Result<(), SceneError> {
        if std::mem::take(&mut self.hosts[place as usize].dark) {
            let id = self.roster.id_of(place);
            self.scene.restore_power(id).await?;
            self.freeze_if_paused(place).await?;
        }
        Ok(())
    }

    /// A process has ended by itself; its supervisor starts it again after a while.
    pub(crate) fn ended(&mut self, place: u32, life: u64, why: String) {
        let host = &mut self.hosts[place as usize];
        if !host.up || host.life != life {
            return;
        }
        host.up = false;
        host.life += 1;
        let (life, incarnation) = (host.life, host.incarnation);
        let id = Some(self.roster.id_of(place));
        self.leadership.forget(place);
        self.tell(id, Payload::GaveUp { why });
        let state = HostState::Crashed;
        self.tell(id, Payload::Host { state, incarnation });
        let at = self.now() + self.plan.cluster.restart_delay;
        self.queue.push(at, Happening::Restart { place, life });
    }
}

/// How a process ended, and the end of what it said.
pub(crate) fn last_words(status: Option<ExitStatus>, log: &Path) -> String {
    let status = status.map_or_else(|| "ended".to_owned(), |status| status.to_string());
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let start = text.len().saturating_sub(LAST_WORDS);
    let end = (start..=text.len())
        .find_map(|at| text.get(at..))
        .unwrap_or_default();
    format!("{status}: {}", end.trim())
}
