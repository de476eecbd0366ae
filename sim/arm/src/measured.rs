//! What was measured on a runtime, as the steps that a scenario gives to simulated ones.

use wavetank_conformance::latency::{Calibration, Step};
use wavetank_scenario::plan::{Quantiles, RuntimeStep, RuntimeSteps};

/// The measured step behind each of a scenario's. A program that ends at once tells when its
/// process began; an inspect stands for all other calls.
const SOURCES: [(RuntimeStep, Step); 8] = [
    (RuntimeStep::Pull, Step::Pull),
    (RuntimeStep::Create, Step::Create),
    (RuntimeStep::Start, Step::Start),
    (RuntimeStep::Begin, Step::StartToEnd),
    (RuntimeStep::ExitSeen, Step::ExitSeen),
    (RuntimeStep::Event, Step::ExitEvent),
    (RuntimeStep::Delete, Step::Delete),
    (RuntimeStep::Call, Step::Inspect),
];

/// The steps that were measured. A process of a simulated runtime begins before its start is
/// answered, so the beginning is put no later than that.
pub fn steps_of(calibration: &Calibration) -> RuntimeSteps {
    let quantiles = |(step, source): (RuntimeStep, Step)| {
        let samples = calibration.samples.get(&source)?;
        Some((step, Quantiles::of_samples(samples)?))
    };
    let mut steps: RuntimeSteps = SOURCES.into_iter().filter_map(quantiles).collect();
    if let Some(begin) = steps.remove(&RuntimeStep::Begin)
        && let Some(start) = steps.get(&RuntimeStep::Start)
        && let Some(begin) = no_later(&begin, start)
    {
        steps.insert(RuntimeStep::Begin, begin);
    }
    steps
}

fn no_later(begin: &Quantiles, start: &Quantiles) -> Option<Quantiles> {
    let bounds = start.points().iter();
    let points = begin.points().iter().zip(bounds);
    let points = points.map(|((percent, value), (_, bound))| (*percent, *value.min(bound)));
    Quantiles::new(points.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_beginning_is_put_before_the_answer() {
        let micros = |values: &[u64]| values.iter().copied().map(Duration::from_micros).collect();
        let mut calibration = Calibration::default();
        let samples = &mut calibration.samples;
        samples.insert(Step::Start, micros(&[10, 20, 30]));
        samples.insert(Step::StartToEnd, micros(&[9, 22, 28]));
        samples.insert(Step::Inspect, micros(&[1]));
        let steps = steps_of(&calibration);
        let at = |step, percent| steps[&step].percent(percent).as_micros();
        let begin = [0, 50, 100].map(|percent| at(RuntimeStep::Begin, percent));
        assert_eq!(begin, [9, 20, 28]);
        assert_eq!(at(RuntimeStep::Call, 50), 1);
        assert_eq!(steps.len(), 3);
    }
}
