//! Every mutant: what it does wrong, which checker must catch it, and in which scenario.

use rand_chacha::ChaCha8Rng;
use wavetank_core::{Agent, AgentConfig, Manager, ManagerConfig, Process, Stored};
use wavetank_engine::System;
use wavetank_model::Instant;

use crate::wrapper::{Edit, Mutated};
use crate::{agents, managers};

/// Where an edit sits.
#[derive(Clone, Copy)]
enum Place {
    /// Around every manager.
    Managers(fn() -> Box<dyn Edit>),
    /// Around every agent.
    Agents(fn() -> Box<dyn Edit>),
}

/// One system that was broken on purpose.
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// What it does wrong.
    pub summary: &'static str,
    /// The checker that must catch it.
    pub caught_by: &'static str,
    /// The scenario in which it does, below `scenarios/`.
    pub scenario: &'static str,
    place: Place,
}

impl System for Mutant {
    fn manager(
        &self,
        config: ManagerConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Box<dyn Process>, String> {
        let manager = Manager::start(config, stored, now, rng)?;
        Ok(match self.place {
            Place::Managers(edit) => Box::new(Mutated::new(Box::new(manager), edit())),
            Place::Agents(_) => Box::new(manager),
        })
    }

    fn agent(
        &self,
        config: AgentConfig,
        stored: Vec<Stored>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Result<Box<dyn Process>, String> {
        let agent = Agent::start(config, stored, now, rng)?;
        Ok(match self.place {
            Place::Agents(edit) => Box::new(Mutated::new(Box::new(agent), edit())),
            Place::Managers(_) => Box::new(agent),
        })
    }
}

macro_rules! mutants {
    ($($name:literal, $caught_by:literal, $scenario:literal, $place:ident $edit:expr,
       $summary:literal;)*) => {
        /// All mutants, by the checker that must catch them.
        pub const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            summary: $summary,
            caught_by: $caught_by,
            scenario: $scenario,
            place: Place::$place(|| Box::new($edit)),
        }),*];
    };
}

mutants! {
    "forgets-to-fence", "I1", "leases/lease-holder-paused.yaml",
        Managers managers::ForgetsToFence,
        "accepts a lease holder's write without looking at its token";
    "stops-persisting", "I2", "control-plane/all-managers-restart.yaml",
        Managers managers::StopsPersisting::default(),
        "promises before it has written";
    "never-listens", "I3", "machines/process-kill.yaml",
        Agents agents::NeverListens,
        "never listens to what it should run";
    "runs-twice", "I4", "machines/process-kill.yaml",
        Agents agents::RunsTwice,
        "runs a second container beside each one";
    "loses-exit-codes", "I5", "runtime/crash-loop.yaml",
        Agents agents::LosesExitCodes,
        "reports every exit as a success";
    "skips-running", "I6", "runtime/fast-exit-storm.yaml",
        Agents agents::SkipsRunning,
        "never says that a task runs";
    "fails-on-dead-process", "I7", "operations/stubborn-process.yaml",
        Agents agents::FailsOnDeadProcess,
        "takes a missing process for a failure of the stop";
    "leaks-containers", "I8", "operations/delete-in-every-state.yaml",
        Agents agents::LeaksContainers,
        "forgets to delete containers";
    "restarts-for-ever", "I9", "runtime/crash-loop.yaml",
        Agents agents::RestartsForEver,
        "restarts without budget and without waiting";
    "forgets-user-stop", "I10", "operations/user-stopped-reboot.yaml",
        Agents agents::ForgetsUserStop,
        "starts what its user has stopped";
    "cuts-grace-short", "I12", "operations/stubborn-process.yaml",
        Agents agents::CutsGraceShort,
        "kills before the grace is over";
    "gives-no-reason", "I13", "runtime/crash-loop.yaml",
        Agents agents::GivesNoReason,
        "fails without a reason";
    "loses-transitions", "I14", "runtime/fast-exit-storm.yaml",
        Agents agents::LosesTransitions::default(),
        "marks transitions as reported that nobody has heard of";
    "stops-heartbeats", "I16", "machines/process-kill.yaml",
        Agents agents::StopsHeartbeats::default(),
        "becomes too busy to send heartbeats";
    "ignores-update-policy", "I17", "operations/rolling-update.yaml",
        Managers managers::IgnoresUpdatePolicy::default(),
        "replaces everything at once in a rolling update";
    "overcommits", "I20", "operations/capacity.yaml",
        Managers managers::Overcommits,
        "believes that nodes have a hundred times their memory";
    "unknown-is-absent", "I21", "runtime/daemon-restart.yaml",
        Agents agents::TakesUnknownForAbsent::default(),
        "takes a failed observation for an empty one";
    "stops-with-its-manager", "I23", "control-plane/flapping-leadership.yaml",
        Agents agents::StopsWithItsManager::default(),
        "forgets what it runs when it changes managers";
    "draws-outside", "I24", "machines/process-kill.yaml",
        Managers managers::DrawsOutside,
        "draws on something that no seed controls";
    "reads-stale", "linearizable", "control-plane/linearizable-store.yaml",
        Managers managers::ReadsStale::default(),
        "answers reads from its own state, also when it no longer leads";
}
