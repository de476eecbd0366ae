//! The table of all checkers: who judges what `wavetank_scenario::checks` names. Adding a checker
//! means a file, a line there and a line here.

use wavetank_scenario::checks;
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

/// Makes a checker for a run of the plan.
pub type Constructor = fn(&Plan) -> Box<dyn Checker>;

/// Judged by the run harness, which runs a plan twice; here only so that it can be named.
struct JudgedElsewhere(&'static str);

impl Checker for JudgedElsewhere {
    fn id(&self) -> &'static str {
        self.0
    }
    fn observe(&mut self, _event: &Event, _report: &mut Report) {}
    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

/// The constructor of every checker by its id, in the order of `checks::CHECKS`.
pub const CHECKERS: &[(&str, Constructor)] = &[
    ("I1", |_| Box::new(EffectiveLeader::default())),
    ("I2", |plan| Box::new(DurableCommits::new(plan))),
    ("I3", |plan| Box::new(Convergence::new(plan))),
    ("I4", |plan| Box::new(BoundedInstances::new(plan))),
    ("I5", |_| Box::new(TruthfulExits::default())),
    ("I6", |_| Box::new(LegalTransitions::default())),
    ("I7", |_| Box::new(IdempotentStop)),
    ("I8", |_| Box::new(NoOrphans)),
    ("I9", |plan| Box::new(BoundedRestarts::new(plan))),
    ("I10", |_| Box::new(StaysStopped::default())),
    ("I12", |plan| Box::new(StopGrace::new(plan))),
    ("I13", |_| Box::new(NoSilentSuccess::default())),
    ("I14", |_| Box::new(CompleteReports::default())),
    ("I16", |plan| Box::new(DownVerdicts::new(plan))),
    ("I17", |_| Box::new(Availability::default())),
    ("I20", |plan| Box::new(Placement::new(plan))),
    ("I21", |_| Box::new(UnknownIsNotAbsent)),
    ("I23", |_| Box::new(WorkloadsSurvive)),
    ("I24", |_| Box::new(JudgedElsewhere("I24"))),
    ("linearizable", |_| Box::new(Linearizable::default())),
];

/// The name that belongs to an id; expectations are their own name.
pub(crate) fn name_of(id: &'static str) -> &'static str {
    checks::find(id).map_or(id, |check| check.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_a_file_may_name_has_its_checker() {
        let named: Vec<&str> = checks::CHECKS.iter().map(|check| check.id).collect();
        let made: Vec<&str> = CHECKERS.iter().map(|(id, _)| *id).collect();
        assert_eq!(made, named);
        let plan = crate::testing::plan(&["all"]);
        for (id, constructor) in CHECKERS {
            assert_eq!(constructor(&plan).id(), *id);
        }
    }
}
