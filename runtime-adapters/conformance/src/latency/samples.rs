//! Durations by step, and their quantiles.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// One step of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A pull of what is here already, with one question to the registry.
    Pull,
    /// From the request for a container to its record.
    Create,
    /// From the request to start to the answer.
    Start,
    /// From the request to start to the end of the process, which ends at once.
    StartToEnd,
    /// From the answer of the start to the answer of a wait; the program ends at once.
    ExitSeen,
    /// From the request to start to the answer of the wait: all that a command line shows which
    /// waits for the end.
    StartToExit,
    /// From the end of the process to its event.
    ExitEvent,
    /// A look at a container.
    Inspect,
    /// From the request to delete to the answer.
    Delete,
}

impl Step {
    /// In the order of a life.
    pub const ALL: [Step; 9] = [
        Step::Pull,
        Step::Create,
        Step::Start,
        Step::StartToEnd,
        Step::ExitSeen,
        Step::StartToExit,
        Step::ExitEvent,
        Step::Inspect,
        Step::Delete,
    ];

    /// Those that [`super::measure`] takes, in the order of a life.
    pub const COMPARED: [Step; 6] = [
        Step::Pull,
        Step::Create,
        Step::Start,
        Step::ExitSeen,
        Step::StartToExit,
        Step::Delete,
    ];

    /// As tables print it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Pull => "pull (cached)",
            Step::Create => "create",
            Step::Start => "start",
            Step::StartToEnd => "start to end",
            Step::ExitSeen => "exit seen",
            Step::StartToExit => "start to exit seen",
            Step::ExitEvent => "exit event",
            Step::Inspect => "inspect",
            Step::Delete => "delete",
        }
    }
}

/// Durations of one step, in the order in which they were measured.
pub type Samples = BTreeMap<Step, Vec<Duration>>;

/// The middle of some durations; the lower one of two. `None` without any.
pub fn median(samples: &[Duration]) -> Option<Duration> {
    quantile(samples, 50)
}

/// The duration that `percent` of the samples do not exceed, by nearest rank.
pub fn quantile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(median(&samples), Some(Duration::from_millis(100)));
        assert_eq!(quantile(&samples, 99), Some(Duration::from_millis(198)));
        assert_eq!(median(&samples[..1]), Some(Duration::from_millis(200)));
        assert_eq!(median(&[]), None);
    }
}
