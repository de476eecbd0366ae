//! The suite can fail: each flaw that a runtime can have is caught by the case that is about it.

use std::collections::BTreeSet;

use async_trait::async_trait;
use wavetank_conformance::{Arm, ArmError, Bench, CASES, Outcome, case, run_case};
use wavetank_sim_arm::{SimArm, block_on_virtual_time};

use crate::flawed::Flaw;
use crate::flawed_arm::FlawedArm;

/// Each flaw with a case that must catch it.
const CATCHES: &[(Flaw, u8)] = &[
    (Flaw::DigestsAreMadeUp, 1),
    (Flaw::NamesAreNotCompleted, 2),
    (Flaw::ImagesAreRenamed, 3),
    (Flaw::FetchesAgain, 4),
    (Flaw::AbsentImageIsUnavailable, 5),
    (Flaw::AbsentImageIsPulled, 5),
    (Flaw::AnyPasswordWillDo, 6),
    (Flaw::BrokenRegistryIsUnknown, 7),
    (Flaw::PullIgnoresItsDeadline, 8),
    (Flaw::CancelledPullKeepsALock, 9),
    (Flaw::CancelledPullKeepsALock, 10),
    (Flaw::ImagesOutOfOrder, 11),
    (Flaw::SecondRemoveOfAnImageFails, 12),
    (Flaw::RemovesUsedImages, 13),
    (Flaw::NeverAsksTheRegistryAgain, 14),
    (Flaw::DamageHangs, 15),
    (Flaw::CreateStarts, 16),
    (Flaw::ForgetsLabels, 16),
    (Flaw::CreateReplaces, 17),
    (Flaw::AcceptsBadSpecs, 18),
    (Flaw::CreateWithoutImageIsInvalid, 19),
    (Flaw::CreateReplaces, 20),
    (Flaw::HalfACreateIsLeft, 21),
    (Flaw::NoStartTime, 22),
    (Flaw::StartTwiceWorks, 23),
    (Flaw::StartTwiceWorks, 24),
    (Flaw::MissingIsUnknown, 25),
    (Flaw::BadProgramIsUnknown, 26),
    (Flaw::StopKillsAtOnce, 27),
    (Flaw::StopNeverKills, 28),
    (Flaw::StopNeverKills, 29),
    (Flaw::StopOfExitedFails, 30),
    (Flaw::CancelledStopKills, 31),
    (Flaw::ForgetsTheStopSignal, 32),
    (Flaw::EverySignalKills, 33),
    (Flaw::AcceptsAnySignal, 34),
    (Flaw::KillOfDeadIsUnknown, 35),
    (Flaw::KillOfDeadWorks, 35),
    (Flaw::KillOfDeadWorks, 36),
    (Flaw::PausedIsRunning, 37),
    (Flaw::ExitCodesAreZero, 38),
    (Flaw::DeletesWithForce, 39),
    (Flaw::DeleteLeavesTheRecord, 40),
    (Flaw::DeleteOfNobodyWorks, 41),
    (Flaw::VolumesAreForgotten, 42),
    (Flaw::OldExitsAreKept, 43),
    (Flaw::ExitCodesAreZero, 44),
    (Flaw::Every137IsMemory, 44),
    (Flaw::OneExitIsSaidTwice, 45),
    (Flaw::OneEventIsLost, 45),
    (Flaw::LateWaitersHang, 46),
    (Flaw::WaitForNobodyHangs, 47),
    (Flaw::ExitTimesDrift, 48),
    (Flaw::NoExitTimes, 48),
    (Flaw::NothingIsMemory, 49),
    (Flaw::RestartsWhatFailed, 50),
    (Flaw::OutputsAreMixed, 51),
    (Flaw::LinesGetAnEnd, 51),
    (Flaw::LongLinesAreCut, 51),
    (Flaw::FollowNeverEnds, 52),
    (Flaw::TailIsIgnored, 52),
    (Flaw::TimesAreIgnored, 52),
    (Flaw::PiecesOfLogsGetLost, 53),
    (Flaw::OneEventIsLost, 54),
    (Flaw::ExitsComeFirst, 54),
    (Flaw::CursorsAreIgnored, 55),
    (Flaw::LabelFilterIsIgnored, 56),
    (Flaw::StatusFilterIsIgnored, 56),
    (Flaw::FirstOfSeveralIsMeant, 56),
    (Flaw::ListFailsWhenOneVanishes, 57),
    (Flaw::ExecForgetsTheCode, 58),
    (Flaw::ExecIgnoresItsTimeout, 58),
    (Flaw::ExitedUsesNothing, 59),
    (Flaw::UpdateDoesNothing, 60),
    (Flaw::PidChangesWhenTheDaemonRestarts, 61),
    (Flaw::NobodyThereIsNothingThere, 62),
    (Flaw::UnknownIsZero, 63),
    (Flaw::UnknownIsZero, 64),
    (Flaw::DeadlinesAreIgnored, 65),
    (Flaw::UnknownIsZero, 66),
    (Flaw::LeavesSomethingBehind, 67),
    (Flaw::LogsAreMixedUp, 68),
    (Flaw::OneNamespace, 69),
    (Flaw::FailedDeleteStops, 70),
];

/// Makes arms with one flaw.
struct FlawedBench(Flaw);

#[async_trait]
impl Bench for FlawedBench {
    fn runtime(&self) -> &'static str {
        "sim"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Ok(Box::new(FlawedArm::new(SimArm::new(), self.0)))
    }
}

fn outcome(flaw: Flaw, number: u8) -> Outcome {
    let case = case(number).expect("the table has this case");
    let bench = FlawedBench(flaw);
    let result = block_on_virtual_time(run_case(&bench, case));
    result.expect("a tokio runtime").outcome
}

#[test]
fn each_flaw_is_caught_by_the_case_that_is_about_it() {
    let missed: Vec<_> = CATCHES
        .iter()
        .filter(|(flaw, number)| !matches!(outcome(*flaw, *number), Outcome::Fail { .. }))
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_case_catches_something() {
    let catching: BTreeSet<u8> = CATCHES.iter().map(|(_, number)| *number).collect();
    let all = CASES.iter().map(|case| case.number);
    let idle: Vec<u8> = all.filter(|number| !catching.contains(number)).collect();
    assert_eq!(idle, Vec::<u8>::new());
}

/// A decorator that broke everything would be caught by anything: without a flaw nothing is found.
#[test]
fn without_a_flaw_nothing_is_caught() {
    for case in CASES {
        let found = outcome(Flaw::None, case.number);
        assert_eq!(found, Outcome::Pass, "case {}", case.number);
    }
}

#[test]
fn what_is_not_applicable_must_be_in_the_capability_table() {
    match outcome(Flaw::SaysNotApplicable, 61) {
        Outcome::Fail { message } => assert_eq!(
            message,
            "not applicable for want of daemon, which the table of sim does not call missing"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_is_a_finding_and_keeps_its_words() {
    match outcome(Flaw::Panics, 25) {
        Outcome::Fail { message } => assert_eq!(message, "panicked: a flaw on purpose"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_case_that_hangs_is_ended_by_its_deadline() {
    match outcome(Flaw::InspectHangs, 22) {
        Outcome::Fail { message } => assert_eq!(message, "not done within 180s"),
        other => panic!("{other:?}"),
    }
}
