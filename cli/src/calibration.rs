//! A real runtime beside two models of it: the simulated runtime as it is, and as it is with what
//! was measured. Judges and renders; measures nothing.

use std::time::Duration;

use serde::Serialize;
use wavetank_conformance::latency::{Calibration, Step, quantile};
use wavetank_reports::{Style, table};

/// A step of the model may be off by this many in a hundred.
const TOLERANCE_PERCENT: u64 = 25;

/// Below this a difference counts as none: a profile is kept in microseconds.
const GRAIN: Duration = Duration::from_micros(2);

/// The percentiles that are compared.
const COMPARED: [usize; 2] = [50, 95];

/// What was measured of a real runtime and of its models.
pub struct Comparison {
    /// The runtime's name.
    pub runtime: &'static str,
    /// The machine's load when the measurement began, if it tells.
    pub load: Option<String>,
    /// The real runtime.
    pub measured: Calibration,
    /// The simulated runtime without anything measured.
    pub before: Calibration,
    /// With what was measured.
    pub after: Calibration,
}

/// All of it, for machines. Times in microseconds.
#[derive(Serialize)]
pub struct Report<'a> {
    runtime: &'static str,
    version: &'a str,
    load: Option<&'a str>,
    lives: u32,
    simulated_lives: u32,
    tolerance_percent: u64,
    within: bool,
    steps: Vec<Row>,
    measured: Order,
    before: Order,
    after: Order,
}

/// A step.
#[derive(Serialize)]
struct Row {
    step: Step,
    measured: Option<Times>,
    before: Option<Times>,
    after: Option<Times>,
    /// Of the model after; `None` where there is nothing to compare.
    off_percent: Option<Off>,
}

#[derive(Clone, Copy, Serialize)]
struct Times {
    p50_us: u64,
    p95_us: u64,
}

#[derive(Serialize)]
struct Off {
    p50: i64,
    p95: i64,
}

/// What became of the events, in lives.
#[derive(Serialize)]
struct Order {
    lives: u32,
    event_streams_broken: u32,
    exit_events_lost: u32,
    start_events_lost: u32,
    exit_event_before_start_answered: u32,
    exit_event_before_start_event: u32,
}

impl Order {
    fn of(calibration: &Calibration) -> Self {
        Order {
            lives: calibration.lives,
            event_streams_broken: calibration.breaks,
            exit_events_lost: calibration.exits_lost,
            start_events_lost: calibration.starts_lost,
            exit_event_before_start_answered: calibration.exits_before_answer,
            exit_event_before_start_event: calibration.exits_before_start,
        }
    }

    /// In lives of a hundred, each with what it counts.
    fn shares(&self) -> [(&'static str, String); 4] {
        let share = |count: u32| {
            let tenths = u64::from(count) * 1_000 / u64::from(self.lives.max(1));
            format!("{}.{} %", tenths / 10, tenths % 10)
        };
        [
            ("no exit event", share(self.exit_events_lost)),
            ("no start event", share(self.start_events_lost)),
            (
                "exit event before start is answered",
                share(self.exit_event_before_start_answered),
            ),
            (
                "exit event before start event",
                share(self.exit_event_before_start_event),
            ),
        ]
    }
}

impl Comparison {
    /// The steps whose model is off by too much, each with what is said of it.
    pub fn off(&self) -> Vec<String> {
        let percentiles = |step: Step| COMPARED.map(|percent| (step, percent));
        let all = Step::ALL.into_iter().flat_map(percentiles);
        all.filter_map(|(step, percent)| {
            let (measured, after) = self.pair(step, percent)?;
            let off = is_off(measured, after);
            off.then(|| {
                let by = percent_off(measured, after);
                format!("{} is off by {by:+} % at p{percent}", step.name())
            })
        })
        .collect()
    }

    fn pair(&self, step: Step, percent: usize) -> Option<(Duration, Duration)> {
        let of = |it: &Calibration| quantile(it.samples.get(&step)?, percent);
        Some((of(&self.measured)?, of(&self.after)?))
    }

    /// For machines.
    pub fn report(&self) -> Report<'_> {
        Report {
            runtime: self.runtime,
            version: &self.measured.version,
            load: self.load.as_deref(),
            lives: self.measured.lives,
            simulated_lives: self.after.lives,
            tolerance_percent: TOLERANCE_PERCENT,
            within: self.off().is_empty(),
            steps: Step::ALL.into_iter().map(|step| self.row(step)).collect(),
            measured: Order::of(&self.measured),
            before: Order::of(&self.before),
            after: Order::of(&self.after),
        }
    }

    fn row(&self, step: Step) -> Row {
        let off = COMPARED.map(|percent| {
            let (measured, after) = self.pair(step, percent)?;
            Some(percent_off(measured, after))
        });
        Row {
            step,
            measured: times(&self.measured, step),
            before: times(&self.before, step),
            after: times(&self.after, step),
            off_percent: match off {
                [Some(p50), Some(p95)] => Some(Off { p50, p95 }),
                _ => None,
            },
        }
    }

    /// For a person.
    pub fn render(&self, style: Style) -> String {
        let steps = table::list(
            &[
                "p50, p95 (ms)",
                "measured",
                "model before",
                "model after",
                "off by",
            ],
            Step::ALL.map(|step| self.row(step)).map(cells),
            style,
        );
        let orders = [&self.measured, &self.before, &self.after].map(Order::of);
        let [measured, before, after] = orders.map(|order| order.shares());
        let lines = measured.into_iter().zip(before).zip(after);
        let events = table::list(
            &["of all lives", "measured", "model before", "model after"],
            lines.map(|(((name, measured), (_, before)), (_, after))| {
                vec![name.to_owned(), measured, before, after]
            }),
            style,
        );
        let load = match &self.load {
            Some(load) => format!(", while the machine's load was {load}"),
            None => String::new(),
        };
        let mut text = format!(
            "{steps}{events}{} lives on {} {}, one after the other{load}; {} on the simulated \
             runtime\n",
            self.measured.lives, self.runtime, self.measured.version, self.after.lives,
        );
        match self.measured.breaks {
            0 => {}
            1 => text.push_str("the stream of events broke once\n"),
            breaks => text.push_str(&format!("the stream of events broke {breaks} times\n")),
        }
        let off = self.off();
        if off.is_empty() {
            text.push_str(&format!("every step lies within {TOLERANCE_PERCENT} %\n"));
        }
        for line in off {
            text.push_str(&format!("{line}, of {TOLERANCE_PERCENT} % allowed\n"));
        }
        text
    }
}

fn times(calibration: &Calibration, step: Step) -> Option<Times> {
    let samples = calibration.samples.get(&step)?;
    let at = |percent| {
        let nanos = quantile(samples, percent)?.as_nanos();
        u64::try_from((nanos + 500) / 1_000).ok()
    };
    let [p50_us, p95_us] = COMPARED.map(at);
    Some(Times {
        p50_us: p50_us?,
        p95_us: p95_us?,
    })
}

/// How far `after` is from `measured`, in hundredths of what was measured.
fn percent_off(measured: Duration, after: Duration) -> i64 {
    let off = measured.abs_diff(after).as_nanos() * 100;
    let rounded = (off + measured.as_nanos() / 2) / measured.as_nanos().max(1);
    let percent = i64::try_from(rounded).unwrap_or(i64::MAX);
    if after < measured { -percent } else { percent }
}

fn is_off(measured: Duration, after: Duration) -> bool {
    let off = measured.abs_diff(after);
    off > GRAIN && off.as_nanos() * 100 > measured.as_nanos() * u128::from(TOLERANCE_PERCENT)
}

fn cells(row: Row) -> Vec<String> {
    let pair = |times: Option<Times>| match times {
        Some(times) => format!("{}, {}", millis(times.p50_us), millis(times.p95_us)),
        None => "-".to_owned(),
    };
    let off = match row.off_percent {
        Some(off) => format!("{:+} %, {:+} %", off.p50, off.p95),
        None => "-".to_owned(),
    };
    vec![
        row.step.name().to_owned(),
        pair(row.measured),
        pair(row.before),
        pair(row.after),
        off,
    ]
}

/// Microseconds in milliseconds: the fewer, the finer.
fn millis(micros: u64) -> String {
    match micros {
        0..1_000 => format!("0.{micros:03}"),
        _ => format!("{}.{}", micros / 1_000, micros % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(step: Step, micros: &[u64]) -> Calibration {
        let times = micros.iter().copied().map(Duration::from_micros).collect();
        Calibration {
            version: "1.2.3".to_owned(),
            lives: 1_000,
            breaks: 0,
            samples: [(step, times)].into(),
            exits_lost: 1,
            starts_lost: 0,
            exits_before_answer: 505,
            exits_before_start: 1_000,
        }
    }

    fn comparison(after: &[u64]) -> Comparison {
        Comparison {
            runtime: "podman",
            load: Some("0.50".to_owned()),
            measured: calibration(Step::Create, &[1_000, 2_000, 30_000]),
            before: calibration(Step::Create, &[500]),
            after: calibration(Step::Create, after),
        }
    }

    #[test]
    fn what_is_off_is_named() {
        let within = comparison(&[1_600, 2_500, 22_500]);
        assert_eq!(within.off(), [""; 0]);
        let text = within.render(Style::PLAIN);
        for part in [
            "2.0, 30.0",
            "0.500, 0.500",
            "2.5, 22.5",
            "+25 %, -25 %",
            "50.5 %",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("every step lies within 25 %\n"), "{text}");
        let off = comparison(&[1_000, 2_501, 20_000]);
        assert_eq!(
            off.off(),
            [
                "create is off by +25 % at p50",
                "create is off by -33 % at p95"
            ]
        );
        assert!(off.render(Style::PLAIN).ends_with(
            "create is off by +25 % at p50, of 25 % allowed\n\
             create is off by -33 % at p95, of 25 % allowed\n"
        ));
        assert!(!off.report().within && within.report().within);
    }

    #[test]
    fn what_is_finer_than_a_profile_is_never_off() {
        let micros = Duration::from_micros;
        assert!(!is_off(micros(1), micros(3)) && !is_off(micros(0), micros(2)));
        assert!(is_off(micros(1), micros(4)) && is_off(micros(100), micros(126)));
        assert_eq!(percent_off(micros(100), micros(126)), 26);
        assert_eq!(percent_off(micros(300), micros(200)), -33);
        assert_eq!(
            [7, 999, 1_000, 36_190].map(millis),
            ["0.007", "0.999", "1.0", "36.1"]
        );
    }
}
