//! Taking a container down: grace, then kill, then removal; one call at a time, and every step
//! may be repeated.
//!
//! The runtime sends the signals (SIGTERM at once, SIGKILL after the grace); this file only
//! decides what to ask next from what is known. Used for tasks that end and for orphans.

use std::time::Duration;

use wavetank_model::Instant;

use super::calls::Verb;
use super::observe::{Container, Handle};

/// The next thing to ask on the way down, and when it may be asked; `None` if nothing is left.
///
/// `patience` is how much longer than its grace a stop may take before the container is removed
/// by force. The price of asking a deaf runtime twice is a second SIGTERM; it never shortens the
/// grace, because force waits for the first request that may have been heard.
pub(super) fn next_step(
    handle: &Handle,
    grace: Duration,
    patience: Duration,
    now: Instant,
) -> Option<(Verb, Instant)> {
    let change = |verb| Some((verb, handle.changes.not_before));
    match handle.known {
        Container::Unknown => Some((Verb::Inspect, handle.looks.not_before)),
        Container::Absent => None,
        // Without force, so that a process that only was not seen is not killed.
        Container::Missing => change(Verb::Delete { force: false }),
        // A start that was given up may still take effect: force, in case it just has.
        Container::Created => change(Verb::Delete { force: true }),
        Container::Running if is_overdue(handle, grace + patience, now) => {
            change(Verb::Delete { force: true })
        }
        Container::Running => change(Verb::Stop),
        Container::Exited(_) => change(Verb::Delete {
            force: handle.changes.failures > 0,
        }),
    }
}

fn is_overdue(handle: &Handle, after: Duration, now: Instant) -> bool {
    handle
        .asked_to_stop_at
        .is_some_and(|asked_at| asked_at + after <= now)
}

#[cfg(test)]
mod tests {
    use wavetank_port::{ExitCode, ExitStatus};

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn step(handle: &Handle, seconds: u64) -> Option<Verb> {
        let now = Instant(seconds * 1_000_000_000);
        next_step(handle, GRACE, PATIENCE, now).map(|(verb, _)| verb)
    }

    #[test]
    fn a_running_process_is_asked_and_removed_by_force_only_after_its_grace() {
        let mut handle = Handle::new(Container::Running);
        assert_eq!(step(&handle, 100), Some(Verb::Stop));
        handle.asked_to_stop_at = Some(Instant(100_000_000_000));
        assert_eq!(step(&handle, 114), Some(Verb::Stop));
        assert_eq!(step(&handle, 115), Some(Verb::Delete { force: true }));
    }

    #[test]
    fn what_is_unknown_is_looked_at_and_what_is_gone_is_left_alone() {
        assert_eq!(
            step(&Handle::new(Container::Unknown), 0),
            Some(Verb::Inspect)
        );
        assert_eq!(step(&Handle::new(Container::Absent), 0), None);
    }

    #[test]
    fn what_was_not_seen_is_removed_without_force() {
        let missing = Handle::new(Container::Missing);
        assert_eq!(step(&missing, 0), Some(Verb::Delete { force: false }));
    }

    #[test]
    fn an_ended_process_needs_no_force_unless_the_runtime_insists() {
        let exit = ExitStatus {
            code: ExitCode::Known(0),
            exited_at: None,
            oom_killed: false,
        };
        let mut handle = Handle::new(Container::Exited(exit));
        assert_eq!(step(&handle, 0), Some(Verb::Delete { force: false }));
        handle.changes.failures = 1;
        assert_eq!(step(&handle, 0), Some(Verb::Delete { force: true }));
    }
}
