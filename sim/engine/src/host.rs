//! One machine: its clocks, disk, runtime and the process that runs on it.

use std::collections::{BTreeSet, VecDeque};

use rand_chacha::ChaCha8Rng;
use wavetank_core::{Effects, Input, Process, Record};
use wavetank_model::{Incarnation, NodeId};
use wavetank_trace::{EventId, VirtualTime};
use wavetank_world::{Disk, LocalClock, Runtime};

/// Effects of a step that wait until their records are durable.
pub struct Waiting {
    /// What the process wanted.
    pub effects: Effects,
    /// The event that led to the step.
    pub cause: EventId,
    /// Records are being written.
    pub writes: bool,
}

/// One machine.
pub struct Host {
    /// Its node's id.
    pub id: NodeId,
    /// Its clocks.
    pub clock: LocalClock,
    /// Its disk.
    pub disk: Disk<Record>,
    /// Its container runtime, if it has one.
    pub runtime: Option<Runtime>,
    /// The random numbers of its process.
    pub rng: ChaCha8Rng,
    /// Its process, while one runs.
    pub process: Option<Box<dyn Process>>,
    /// Grows with every start and end of the process: what was meant for an older one is void.
    pub boot: u64,
    /// Which boot the process is told it is.
    pub incarnation: Incarnation,
    /// False while the machine has no power.
    pub power: bool,
    /// Faults that keep the process from running.
    pub down_by: BTreeSet<u32>,
    /// Faults that freeze the machine.
    pub paused_by: BTreeSet<u32>,
    /// Since when it is frozen.
    pub paused_since: VirtualTime,
    /// Faults that slow it, each with how many milliseconds a step takes.
    pub slowed_by: Vec<(u32, u32)>,
    /// Its first boot from an empty disk is over: an empty disk now means it was wiped.
    pub seasoned: bool,
    /// Waits for its disk or its slow processor.
    pub waiting: Option<Waiting>,
    /// What arrived while it could not handle anything.
    pub inbox: VecDeque<(Input, EventId)>,
    /// When the process's timer event in the queue is due.
    pub timer: Option<VirtualTime>,
    /// When the runtime's timer event in the queue is due.
    pub runtime_timer: Option<VirtualTime>,
    /// When its process last had its timer, and how often at that very moment.
    pub spins: (VirtualTime, u32),
}

impl Host {
    /// True if the process runs and can handle something now.
    pub fn is_ready(&self) -> bool {
        self.process.is_some() && self.waiting.is_none() && self.paused_by.is_empty()
    }

    /// True if the machine stands still.
    pub fn is_paused(&self) -> bool {
        !self.paused_by.is_empty()
    }

    /// Milliseconds a step takes; 0 on a healthy machine.
    pub fn step_ms(&self) -> u64 {
        self.slowed_by
            .iter()
            .map(|(_, factor)| u64::from(*factor))
            .max()
            .unwrap_or(0)
    }

    /// The process is gone, whatever the reason.
    pub fn drop_process(&mut self) {
        self.process = None;
        self.boot += 1;
        self.waiting = None;
        self.inbox.clear();
        self.timer = None;
    }
}
