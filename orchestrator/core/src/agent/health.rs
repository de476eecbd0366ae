//! Whether an instance works: when to probe next, and what a verdict means.
//!
//! A probe that failed to run, or took too long, is no verdict: the instance stays what it was.

use wavetank_model::{HealthCheck, Instant};

/// What a verdict leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing changes.
    None,
    /// It works.
    Healthy,
    /// It failed too often in a row.
    Failed,
}

/// The health of one running instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Unhealthy verdicts in a row that count.
    failures: u32,
    /// When to ask next.
    pub probe_at: Instant,
}

impl Health {
    /// An instance runs since `now`: nothing is known yet.
    pub fn begin(check: Option<&HealthCheck>, now: Instant) -> Self {
        let probe_at = check.map_or(Instant::NEVER, |check| now + check.interval);
        Health {
            failures: 0,
            probe_at,
        }
    }

    /// A probe was sent.
    pub fn probed(&mut self, check: &HealthCheck, now: Instant) {
        self.probe_at = now + check.interval;
    }

    /// A probe came to a verdict.
    pub fn judge(
        &mut self,
        check: &HealthCheck,
        running_since: Instant,
        now: Instant,
        healthy: bool,
    ) -> Judgement {
        if healthy {
            self.failures = 0;
            return Judgement::Healthy;
        }
        if now < running_since + check.start_period {
            return Judgement::None;
        }
        self.failures += 1;
        if self.failures >= check.failures_max.max(1) {
            Judgement::Failed
        } else {
            Judgement::None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CHECK: HealthCheck = HealthCheck {
        command: Vec::new(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        start_period: Duration::from_secs(5),
        failures_max: 3,
    };

    fn judge(health: &mut Health, second: u64, healthy: bool) -> Judgement {
        health.judge(
            &CHECK,
            Instant::ZERO,
            Instant(second * 1_000_000_000),
            healthy,
        )
    }

    #[test]
    fn only_failures_in_a_row_fail_an_instance() {
        let mut health = Health::begin(Some(&CHECK), Instant::ZERO);
        assert_eq!(judge(&mut health, 6, false), Judgement::None);
        assert_eq!(judge(&mut health, 7, false), Judgement::None);
        assert_eq!(judge(&mut health, 8, true), Judgement::Healthy);
        assert_eq!(judge(&mut health, 9, false), Judgement::None);
        assert_eq!(judge(&mut health, 10, false), Judgement::None);
        assert_eq!(judge(&mut health, 11, false), Judgement::Failed);
    }

    #[test]
    fn failures_do_not_count_while_it_starts() {
        let mut health = Health::begin(Some(&CHECK), Instant::ZERO);
        for second in 1..5 {
            assert_eq!(judge(&mut health, second, false), Judgement::None);
        }
        assert_eq!(
            judge(&mut health, 5, false),
            Judgement::None,
            "the first one that counts"
        );
    }
}
