//! Durations as they were measured: a distribution by its quantiles, one for each step of a
//! container's life. Owns how values are drawn from it and how it is written into a file;
//! `resolve::steps` reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Range;
use crate::scalars;

/// The percentages at which a distribution is known, ascending. Close together at the slow end: it
/// is so steep there that a straight line from the 95th to the slowest, or even to the 99th, would
/// put far too much in between.
pub const PERCENTS: [u8; 14] = [0, 1, 5, 10, 25, 50, 75, 90, 95, 96, 97, 98, 99, 100];

/// Points on a line of a file: with times of less than 100 s it has at most 100 columns.
const POINTS_PER_LINE: usize = 5;

/// How long each measured step of a container's life takes.
pub type RuntimeSteps = BTreeMap<RuntimeStep, Quantiles>;

/// A step of a container's life that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeStep {
    /// A pull of what is there already: the question to the registry. Content comes on top.
    Pull,
    /// From the request for a container to the answer.
    Create,
    /// From the request to start to the answer.
    Start,
    /// From the request to start to the beginning of the process; never later than the answer.
    Begin,
    /// From the end of a process to the answer of whoever waits for it.
    ExitSeen,
    /// From what happened to its event.
    Event,
    /// From the request to delete to the answer.
    Delete,
    /// Every other call.
    Call,
}

impl RuntimeStep {
    /// In the order of a life.
    pub const ALL: [RuntimeStep; 8] = [
        RuntimeStep::Pull,
        RuntimeStep::Create,
        RuntimeStep::Start,
        RuntimeStep::Begin,
        RuntimeStep::ExitSeen,
        RuntimeStep::Event,
        RuntimeStep::Delete,
        RuntimeStep::Call,
    ];

    /// As scenario files spell it.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeStep::Pull => "pull",
            RuntimeStep::Create => "create",
            RuntimeStep::Start => "start",
            RuntimeStep::Begin => "begin",
            RuntimeStep::ExitSeen => "exit_seen",
            RuntimeStep::Event => "event",
            RuntimeStep::Delete => "delete",
            RuntimeStep::Call => "call",
        }
    }
}

/// A distribution of durations: ascending values at ascending percentages, straight lines between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantiles {
    points: Vec<(u8, Duration)>,
}

impl Quantiles {
    /// Of values at percentages. `None` unless they reach from 0 to 100 and never fall.
    pub fn new(points: Vec<(u8, Duration)>) -> Option<Self> {
        let reaches = matches!(points.as_slice(), [(0, _), .., (100, _)]);
        let rises = points
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        (reaches && rises).then_some(Quantiles { points })
    }

    /// Of durations that were measured, each a quantile by nearest rank. `None` without any.
    pub fn of_samples(samples: &[Duration]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let value = |percent: u8| {
            let rank = (sorted.len() * usize::from(percent)).div_ceil(100).max(1);
            Some((percent, *sorted.get(rank - 1)?))
        };
        let points: Option<Vec<_>> = PERCENTS.into_iter().map(value).collect();
        Quantiles::new(points?)
    }

    /// The value that this share of all does not exceed, in nanoseconds. The share is counted in
    /// 2^-32: an evenly drawn number gives a value of the distribution.
    pub fn at(&self, share: u32) -> u64 {
        let place = u128::from(share) * 100;
        let point = |(percent, value): (u8, Duration)| (u128::from(percent) << 32, value);
        let after = self
            .points
            .iter()
            .position(|it| point(*it).0 > place)
            .unwrap_or(self.points.len().saturating_sub(1));
        let (Some(low), Some(high)) = (
            self.points.get(after.saturating_sub(1)),
            self.points.get(after),
        ) else {
            return 0;
        };
        let ((from, low), (to, high)) = (point(*low), point(*high));
        let rise = high.saturating_sub(low).as_nanos();
        let part = rise * place.saturating_sub(from) / (to - from).max(1);
        u64::try_from(low.as_nanos() + part).unwrap_or(u64::MAX)
    }

    /// The value at a percentage; above 100 the greatest.
    pub fn percent(&self, percent: u8) -> Duration {
        if percent >= 100 {
            return self.max();
        }
        let share = (u64::from(percent) << 32).div_ceil(100);
        Duration::from_nanos(self.at(u32::try_from(share).unwrap_or(u32::MAX)))
    }

    /// The greatest value.
    pub fn max(&self) -> Duration {
        let last = self.points.last();
        last.map_or(Duration::ZERO, |(_, value)| *value)
    }

    /// The values with their percentages, ascending.
    pub fn points(&self) -> &[(u8, Duration)] {
        &self.points
    }
}

/// Evenly distributed.
impl From<Range> for Quantiles {
    fn from(range: Range) -> Self {
        Quantiles {
            points: vec![(0, range.min), (100, range.max)],
        }
    }
}

/// Measured steps as the part of a scenario file that says so, to be included by others. Times are
/// rounded to microseconds.
pub fn steps_as_yaml(steps: &RuntimeSteps) -> String {
    let mut text = "cluster:\n  runtime:\n    steps:\n".to_owned();
    for (step, quantiles) in steps {
        let fields: Vec<String> = quantiles
            .points
            .iter()
            .map(|(percent, value)| format!("p{percent}: {}", scalars::show_decimal(*value)))
            .collect();
        let lines = fields.chunks(POINTS_PER_LINE).map(|line| line.join(", "));
        let lines: Vec<String> = lines.collect();
        let _ = writeln!(text, "      {}:", step.name());
        let _ = writeln!(text, "        {{ {} }}", lines.join(",\n          "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: &[u64]) -> Vec<Duration> {
        values.iter().copied().map(Duration::from_micros).collect()
    }

    #[test]
    fn a_share_lies_on_the_line_between_its_neighbours() {
        let points = [(0, 10), (50, 30), (100, 130)];
        let points = points.map(|(percent, value)| (percent, Duration::from_nanos(value)));
        let quantiles = Quantiles::new(points.to_vec()).unwrap();
        let quarter = 1 << 30;
        assert_eq!(
            [0, quarter, 2 * quarter].map(|it| quantiles.at(it)),
            [10, 20, 30]
        );
        assert_eq!(quantiles.at(3 * quarter), 80);
        assert_eq!(quantiles.at(u32::MAX), 129);
        assert_eq!(quantiles.percent(50), Duration::from_nanos(30));
        assert_eq!(quantiles.percent(100), quantiles.max());
        let longest = Duration::from_secs(366 * 24 * 3600);
        let wide = Quantiles::from(Range {
            min: Duration::ZERO,
            max: longest,
        });
        assert_eq!(u128::from(wide.at(1 << 31)), longest.as_nanos() / 2);
    }

    #[test]
    fn what_falls_or_does_not_reach_is_no_distribution() {
        let of = |points: &[(u8, u64)]| {
            let points = points.iter();
            let points = points.map(|(percent, value)| (*percent, Duration::from_nanos(*value)));
            Quantiles::new(points.collect())
        };
        assert!(of(&[(0, 1), (50, 1), (100, 2)]).is_some());
        for wrong in [
            &[][..],
            &[(0, 1)],
            &[(0, 1), (99, 2)],
            &[(1, 1), (100, 2)],
            &[(0, 2), (100, 1)],
            &[(0, 1), (50, 2), (50, 2), (100, 3)],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        assert_eq!(Quantiles::of_samples(&[]), None);
    }

    #[test]
    fn samples_have_quantiles_by_nearest_rank() {
        let samples: Vec<u64> = (1..=200).rev().collect();
        let quantiles = Quantiles::of_samples(&micros(&samples)).unwrap();
        let values: Vec<u128> = quantiles
            .points()
            .iter()
            .map(|(_, it)| it.as_micros())
            .collect();
        assert_eq!(
            values,
            [
                1, 2, 10, 20, 50, 100, 150, 180, 190, 192, 194, 196, 198, 200
            ]
        );
        let one = Quantiles::of_samples(&micros(&[7])).unwrap();
        assert_eq!((one.at(0), one.max()), (7_000, Duration::from_micros(7)));
    }
}
