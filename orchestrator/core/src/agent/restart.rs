//! What follows the end of an attempt that nobody ordered: the end of the task, or the next
//! attempt after a wait.
//!
//! Pure. The count of restarts is durable (`recovery.rs`), so that an agent that restarts in a
//! crash loop does not start the count anew.

use wavetank_model::{Reason, RestartCondition, RestartPolicy};
use wavetank_port::{ExitCode, ExitStatus};

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did what it was for.
    Complete,
    /// It failed for good.
    Failed(Reason),
    /// Another attempt, for this reason.
    Again(Reason),
}

/// Why an exit is a failure; `None` for a success.
pub(super) fn failure_of(exit: ExitStatus) -> Option<Reason> {
    match exit.code {
        _ if exit.oom_killed => Some(Reason::OomKilled),
        ExitCode::Known(0) => None,
        ExitCode::Known(_) => Some(Reason::ExitedNonZero),
        ExitCode::Unknown => Some(Reason::ExitUnknown),
    }
}

/// Applies the policy to an end: `failure` is why it is one, `restarts` how many there were
/// without a stable run.
pub(super) fn judge(policy: &RestartPolicy, restarts: u32, failure: Option<Reason>) -> Verdict {
    let reason = match (policy.condition, failure) {
        (RestartCondition::Never | RestartCondition::OnFailure, None) => return Verdict::Complete,
        (RestartCondition::Never, Some(reason)) => return Verdict::Failed(reason),
        (RestartCondition::Always, None) => Reason::ExitedEarly,
        (RestartCondition::OnFailure | RestartCondition::Always, Some(reason)) => reason,
    };
    if restarts >= policy.restarts_max {
        return Verdict::Failed(Reason::CrashLoopBackoff);
    }
    Verdict::Again(reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wavetank_model::Backoff;

    use super::*;

    fn policy(condition: RestartCondition) -> RestartPolicy {
        let backoff = Backoff {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(60),
        };
        RestartPolicy {
            condition,
            restarts_max: 2,
            backoff,
            stable_after: Duration::from_secs(10),
        }
    }

    #[test]
    fn never_makes_every_end_final() {
        let policy = policy(RestartCondition::Never);
        assert_eq!(judge(&policy, 0, None), Verdict::Complete);
        let failed = Verdict::Failed(Reason::OomKilled);
        assert_eq!(judge(&policy, 0, Some(Reason::OomKilled)), failed);
    }

    #[test]
    fn on_failure_completes_on_success_and_spends_its_budget_otherwise() {
        let policy = policy(RestartCondition::OnFailure);
        let failure = Some(Reason::ExitedNonZero);
        assert_eq!(judge(&policy, 9, None), Verdict::Complete);
        assert_eq!(
            judge(&policy, 1, failure),
            Verdict::Again(Reason::ExitedNonZero)
        );
        assert_eq!(
            judge(&policy, 2, failure),
            Verdict::Failed(Reason::CrashLoopBackoff)
        );
    }

    #[test]
    fn always_restarts_after_a_success_too() {
        let policy = policy(RestartCondition::Always);
        assert_eq!(judge(&policy, 0, None), Verdict::Again(Reason::ExitedEarly));
        assert_eq!(
            judge(&policy, 2, None),
            Verdict::Failed(Reason::CrashLoopBackoff)
        );
    }

    #[test]
    fn a_code_of_137_is_no_proof_of_too_little_memory() {
        let mut exit = ExitStatus {
            code: ExitCode::Known(137),
            exited_at: None,
            oom_killed: false,
        };
        assert_eq!(failure_of(exit), Some(Reason::ExitedNonZero));
        exit.oom_killed = true;
        assert_eq!(failure_of(exit), Some(Reason::OomKilled));
        exit = ExitStatus {
            code: ExitCode::Unknown,
            exited_at: None,
            oom_killed: false,
        };
        assert_eq!(failure_of(exit), Some(Reason::ExitUnknown));
    }
}
