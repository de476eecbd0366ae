//! A runtime that takes what was measured on a real one.

use std::time::Duration;

use wavetank_port::{ContainerSpec, ImageReference, PullPolicy, PullRequest, RuntimeCommand};
use wavetank_scenario::plan::{Quantiles, Range, RuntimeStep};

use super::{Bench, id};
use crate::runtime::PortCommand;

/// Skewed as measured times are, in microseconds.
fn skewed(scale: u64) -> Quantiles {
    let points = [(0, 30), (50, 36), (95, 60), (99, 70), (100, 500)];
    let points = points.map(|(percent, value)| (percent, Duration::from_micros(value * scale)));
    Quantiles::new(points.to_vec()).expect("they rise")
}

fn assert_like(drawn: &[Duration], given: &Quantiles) {
    let drawn = Quantiles::of_samples(drawn).expect("something was drawn");
    for percent in [50, 95] {
        let (drawn, given) = (drawn.percent(percent), given.percent(percent));
        let off = drawn.abs_diff(given).as_nanos() * 100;
        assert!(
            off <= given.as_nanos() * 4,
            "p{percent}: {drawn:?}, given {given:?}"
        );
    }
}

#[test]
fn measured_calls_take_what_was_measured() {
    let steps = [
        (RuntimeStep::Call, skewed(10)),
        (RuntimeStep::Create, skewed(100)),
    ];
    let mut bench = Bench::measured(steps.clone().into());
    let mut drawn = [Vec::new(), Vec::new()];
    for number in 0..4_000 {
        let image = ImageReference("job".into());
        let spec = ContainerSpec::of(id(&number.to_string()), image);
        drawn[1].push(bench.takes(RuntimeCommand::Create { spec }));
        drawn[0].push(bench.takes(RuntimeCommand::Inspect { id: id("0") }));
    }
    for (drawn, (_, given)) in drawn.iter().zip(&steps) {
        assert_like(drawn, given);
    }
}

#[test]
fn a_process_begins_within_a_measured_start_and_its_event_keeps_the_order() {
    let begin = skewed(50);
    let steps = [
        (RuntimeStep::Start, skewed(100)),
        (RuntimeStep::Begin, begin.clone()),
        (RuntimeStep::Event, skewed(1_000)),
    ];
    let mut bench = Bench::measured(steps.into());
    let (mut begins, mut whole, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..2_000 {
        let name = number.to_string();
        assert_eq!(bench.create(&name, "job"), None);
        let asked = bench.now;
        whole.push(bench.takes(RuntimeCommand::Start { id: id(&name) }));
        let at = bench.state(&name).and_then(|it| it.started_at);
        let began = bench.clock.wall(asked).0;
        begins.push(Duration::from_nanos(at.expect("it was started").0 - began));
        bench.advance(Duration::from_millis(20));
        said.push(name);
    }
    assert!(
        begins
            .iter()
            .zip(&whole)
            .all(|(begin, whole)| begin <= whole)
    );
    assert_like(&begins, &begin);
    assert_like(&whole, &skewed(100));
    bench.advance(Duration::from_secs(1));
    let exits = bench.events.iter().filter(|it| it.name() == "exit");
    let told: Vec<String> = exits
        .filter_map(|it| Some(it.container()?.0.clone()))
        .collect();
    assert_eq!(told, said);
}

#[test]
fn what_is_measured_of_a_wait_comes_after_the_end_and_of_a_pull_holds_the_question() {
    let ms = Duration::from_millis;
    let exactly = |time| {
        Quantiles::from(Range {
            min: time,
            max: time,
        })
    };
    let steps = [
        (RuntimeStep::ExitSeen, exactly(ms(7))),
        (RuntimeStep::Pull, exactly(ms(2))),
    ];
    let mut bench = Bench::measured(steps.into());
    bench.run("a", "job");
    // It was started 2.5 ms ago and runs for 5 ms.
    for expected in [Duration::from_micros(9_500), ms(7)] {
        let wait = PortCommand::Wait(id("a"));
        assert_eq!(bench.takes_by_port(wait), expected);
    }
    let request = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(ImageReference("job".into()))
    };
    assert_eq!(bench.takes_by_port(PortCommand::Pull(request)), ms(2));
}
