//! From observations to the truth, without IO: listings and events in, payloads out.
//!
//! A listing is the truth, an event a hint that is more exact. An observation that failed is not
//! told to the tracker at all: then nothing is known, and nothing changes.

use std::collections::BTreeMap;

use wavetank_port::{ContainerId, ContainerState, RuntimeEvent};
use wavetank_trace::{ExitCause, Payload};

use super::life::{GRACE_NS, Life};

/// Something that really happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// When, in wall-clock nanoseconds. Never earlier than what was told of the same container.
    pub at: u64,
    /// What.
    pub payload: Payload,
}

/// Says which volumes a container writes to: runtimes do not list them.
pub type Volumes = Box<dyn Fn(&ContainerId) -> Vec<String> + Send>;

/// The containers of one host. All times are wall-clock nanoseconds.
pub struct Tracker {
    volumes: Volumes,
    lives: BTreeMap<ContainerId, Life>,
    /// When the newest life under an id was over: whatever is older concerns that one.
    graves: BTreeMap<ContainerId, u64>,
    marks: BTreeMap<ContainerId, ExitCause>,
    power_lost_at: Option<u64>,
    told: Vec<Told>,
}

impl Tracker {
    /// Knows of no container.
    pub fn new(volumes: Volumes) -> Self {
        Tracker {
            volumes,
            lives: BTreeMap::new(),
            graves: BTreeMap::new(),
            marks: BTreeMap::new(),
            power_lost_at: None,
            told: Vec::new(),
        }
    }

    /// What has become certain since the last time, in order for each container.
    pub fn drain_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// A listing of all containers, asked for and answered at these times.
    pub fn listed(&mut self, asked_at: u64, answered_at: u64, states: &[ContainerState]) {
        for state in states {
            self.show(state, asked_at, answered_at);
        }
        for (id, life) in &mut self.lives {
            let is_shown = states.iter().any(|state| state.id == *id);
            if !is_shown && asked_at > life.last_seen() {
                life.miss(answered_at);
            }
        }
        self.settle(answered_at);
    }

    fn show(&mut self, state: &ContainerState, asked_at: u64, answered_at: u64) {
        let id = &state.id;
        let is_alive = self.lives.contains_key(id);
        if let Some(over_at) = self.graves.get(id)
            && (asked_at <= *over_at || !is_alive && may_be_old(state, asked_at, *over_at))
        {
            return;
        }
        if self
            .lives
            .get(id)
            .is_some_and(|life| life.is_other(state, asked_at))
        {
            self.bury(id, answered_at);
        }
        self.life(id, answered_at)
            .show(state, asked_at, answered_at);
        self.judge_power_loss(id);
    }

    /// What ran when the power was lost ended then, if the runtime does not know better.
    fn judge_power_loss(&mut self, id: &ContainerId) {
        let (Some(lost_at), Some(life)) = (self.power_lost_at, self.lives.get_mut(id)) else {
            return;
        };
        if life
            .started_at()
            .is_some_and(|started_at| started_at < lost_at)
        {
            life.lost_power(lost_at);
        }
    }

    /// An event, come at `now`.
    pub fn heard(&mut self, now: u64, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Started { id, pid, at } => {
                let at = if at.0 == 0 { now } else { at.0 };
                if self.concerns(id, at) {
                    self.life(id, at).started(at, *pid);
                }
            }
            RuntimeEvent::Exited { id, exit } => {
                let at = exit.exited_at.map_or(now, |it| it.0);
                // Without a time it ends the life that is there; a new one would have begun before.
                let is_late = exit.exited_at.is_none()
                    && self.graves.contains_key(id)
                    && !self.lives.contains_key(id);
                if !is_late && self.concerns(id, at) {
                    self.life(id, at).ended(*exit, now);
                }
            }
            RuntimeEvent::Deleted { id } => {
                if let Some(life) = self.lives.get_mut(id) {
                    life.miss(now);
                }
            }
            RuntimeEvent::Interrupted => {}
        }
        self.settle(now);
    }

    /// False for what happened in a life that is over.
    fn concerns(&self, id: &ContainerId, at: u64) -> bool {
        self.graves.get(id).is_none_or(|over_at| at > *over_at)
    }

    /// Says why a container's process ends or will end, before it is told. `Terminated` and
    /// `Killed` say that it was asked to: how it ends decides whether that was the cause.
    pub fn mark(&mut self, container: &ContainerId, cause: ExitCause) {
        match self.lives.get_mut(container) {
            Some(life) => life.mark(cause),
            None => {
                self.marks.insert(container.clone(), cause);
            }
        }
    }

    /// The machine lost power at a time: what ran has ended, and nobody will know how. With
    /// `wiped`, all records are gone too.
    pub fn power_lost(&mut self, at: u64, wiped: bool) {
        self.power_lost_at = Some(at);
        for life in self.lives.values_mut() {
            life.lost_power(at);
        }
        if wiped {
            let ids: Vec<ContainerId> = self.lives.keys().cloned().collect();
            for id in ids {
                self.bury(&id, at);
            }
        }
        self.settle(at);
    }

    /// The processes of which it is not known for good how they ended.
    pub fn open_processes(&self) -> Vec<u32> {
        let lives = self.lives.values();
        lives.filter_map(Life::open_process).collect()
    }

    /// Tells what time has made certain.
    pub fn settle(&mut self, now: u64) {
        for life in self.lives.values_mut() {
            life.settle(now, &mut self.told);
        }
        let graves = &mut self.graves;
        self.lives.retain(|id, life| {
            if life.is_over() {
                graves.insert(id.clone(), life.told_at());
            }
            !life.is_over()
        });
    }

    /// The run is over: tells of every end that was waiting for a better word. What exists goes on
    /// existing.
    pub fn close(&mut self) {
        self.settle(u64::MAX);
    }

    fn life(&mut self, id: &ContainerId, seen_at: u64) -> &mut Life {
        self.lives.entry(id.clone()).or_insert_with(|| {
            let over_at = self.graves.get(id).copied().unwrap_or(0);
            let mut life = Life::new(id.clone(), (self.volumes)(id), seen_at, over_at);
            if let Some(cause) = self.marks.remove(id) {
                life.mark(cause);
            }
            life
        })
    }

    /// Tells the rest of a life that is over, as far as it is known.
    fn bury(&mut self, id: &ContainerId, now: u64) {
        if let Some(mut life) = self.lives.remove(id) {
            life.finish(now, &mut self.told);
            self.graves.insert(id.clone(), life.told_at());
        }
    }
}

/// A listing may lag a little behind: one that was asked for soon after the last life under an id
/// was over may still show that one, unless it shows what has started since.
fn may_be_old(state: &ContainerState, asked_at: u64, over_at: u64) -> bool {
    let is_new = state.started_at.is_some_and(|it| it.0 > over_at);
    asked_at <= over_at.saturating_add(GRACE_NS) && !is_new
}
