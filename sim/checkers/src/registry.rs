//! The table of all checkers. Adding a checker means adding a file and a line here.

use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, VirtualTime};

use crate::checker::{Checker, Report};
use crate::i01_effective_leader::EffectiveLeader;
use crate::i02_durable_commits::DurableCommits;
use crate::i03_convergence::Convergence;
use crate::i04_bounded_instances::BoundedInstances;
use crate::i05_truthful_exits::TruthfulExits;
use crate::i06_legal_transitions::LegalTransitions;
use crate::i07_idempotent_stop::IdempotentStop;
use crate::i08_no_orphans::NoOrphans;
use crate::i09_bounded_restarts::BoundedRestarts;
use crate::i10_stays_stopped::StaysStopped;
use crate::i12_stop_grace::StopGrace;
use crate::i13_no_silent_success::NoSilentSuccess;
use crate::i14_complete_reports::CompleteReports;
use crate::i16_down_verdicts::DownVerdicts;
use crate::i17_availability::Availability;
use crate::i20_placement::Placement;
use crate::i21_unknown_is_not_absent::UnknownIsNotAbsent;
use crate::i23_workloads_survive::WorkloadsSurvive;
use crate::linearizable::Linearizable;

/// One line of the table.
pub struct CheckerEntry {
    /// As systems.md numbers it: `I4`.
    pub id: &'static str,
    /// The kebab-case name.
    pub name: &'static str,
    /// What it demands, in one line.
    pub summary: &'static str,
    /// Makes one for a run of the plan.
    pub constructor: fn(&Plan) -> Box<dyn Checker>,
}

/// Judged by the run harness, which runs a plan twice; here only so that it can be named.
struct JudgedElsewhere(&'static str);

impl Checker for JudgedElsewhere {
    fn id(&self) -> &'static str {
        self.0
    }
    fn observe(&mut self, _event: &Event, _report: &mut Report) {}
    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

macro_rules! checkers {
    ($($id:literal $name:literal $summary:literal $constructor:expr;)*) => {
        /// Every checker, in the order of the catalogue.
        pub const CHECKERS: &[CheckerEntry] = &[$(CheckerEntry {
            id: $id,
            name: $name,
            summary: $summary,
            constructor: $constructor,
        }),*];
    };
}

checkers! {
    "I1" "effective-leader" "at most one leader per epoch, at most one effective lease holder"
        |_| Box::new(EffectiveLeader::default());
    "I2" "durable-commits" "committed entries are the same everywhere, in order, and never lost"
        |plan| Box::new(DurableCommits::new(plan));
    "I3" "convergence" "after the last fault the cluster becomes what was asked for"
        |plan| Box::new(Convergence::new(plan));
    "I4" "bounded-instances" "no more instances than asked for plus surge; one writer per volume"
        |plan| Box::new(BoundedInstances::new(plan));
    "I5" "truthful-exits" "reported exits are the true ones, written once"
        |_| Box::new(TruthfulExits::default());
    "I6" "legal-transitions" "task states move only as the state machine allows"
        |_| Box::new(LegalTransitions::default());
    "I7" "idempotent-stop" "stopping what is gone is no error, and stopping has an effect"
        |_| Box::new(IdempotentStop);
    "I8" "no-orphans" "at rest every container has a task and every running task a container"
        |_| Box::new(NoOrphans);
    "I9" "bounded-restarts" "restarts, replacements and kept records are bounded"
        |plan| Box::new(BoundedRestarts::new(plan));
    "I10" "stays-stopped" "what an operator stopped stays stopped"
        |_| Box::new(StaysStopped::default());
    "I12" "stop-grace" "no SIGKILL before the grace is over, and always after it"
        |plan| Box::new(StopGrace::new(plan));
    "I13" "no-silent-success" "every failure has a reason, every success was one"
        |_| Box::new(NoSilentSuccess::default());
    "I14" "complete-reports" "every transition reaches the store once and in order"
        |_| Box::new(CompleteReports::default());
    "I16" "down-verdicts" "healthy agents are never declared down, lost ones are in time"
        |plan| Box::new(DownVerdicts::new(plan));
    "I17" "availability" "planned operations keep the promised number of tasks ready"
        |_| Box::new(Availability::default());
    "I20" "placement" "tasks are placed only where they may and fit"
        |plan| Box::new(Placement::new(plan));
    "I21" "unknown-is-not-absent" "a failed observation never leads to a destructive action"
        |_| Box::new(UnknownIsNotAbsent);
    "I23" "workloads-survive" "trouble of the managers stops no container"
        |_| Box::new(WorkloadsSurvive);
    "I24" "reproducible" "the same plan gives the same trace (judged by running twice)"
        |_| Box::new(JudgedElsewhere("I24"));
    "linearizable" "linearizable" "clients see one register per key and one holder per lease"
        |_| Box::new(Linearizable::default());
}

/// The checker that `name` stands for: an id in any case, or a name.
pub fn entry(name: &str) -> Option<&'static CheckerEntry> {
    CHECKERS
        .iter()
        .find(|entry| entry.id.eq_ignore_ascii_case(name) || entry.name == name)
}

/// The name that belongs to an id; expectations are their own name.
pub(crate) fn name_of(id: &'static str) -> &'static str {
    entry(id).map_or(id, |entry| entry.name)
}
