//! `wavetank bench --runtime R`: how long a real runtime takes for each step of a container's life
//! through our adapter, next to its own command line doing the same on the same daemon.

use std::time::Duration;

use serde::Serialize;
use wavetank_conformance::ArmError;
use wavetank_conformance::latency::{Latencies, Samples, Step, measure, median, quantile};
use wavetank_reports::{exit_code, json, table};

use crate::failure::Failure;
use crate::output::{self, ListFormat};
use crate::runtimes::RuntimeName;

/// One row: a step, with its times in microseconds.
#[derive(Serialize)]
struct Row {
    runtime: &'static str,
    step: Step,
    samples: usize,
    median_us: Option<u128>,
    p99_us: Option<u128>,
    peer_median_us: Option<u128>,
    peer_p99_us: Option<u128>,
}

/// Measures one runtime.
pub fn run(runtime: RuntimeName, lives: u32, format: ListFormat) -> Result<u8, Failure> {
    let bench = runtime.usable_bench()?;
    let measured: Result<Latencies, ArmError> = runtime.block_on(async {
        let arm = bench.arm().await?;
        let measured = measure(arm.as_ref(), lives).await;
        arm.close().await?;
        measured
    })?;
    let latencies = measured.map_err(anyhow::Error::from)?;
    let rows: Vec<Row> = Step::COMPARED
        .into_iter()
        .map(|step| row(bench.runtime(), step, &latencies))
        .collect();
    match format {
        ListFormat::Json => output::print(&json::line(&rows)?)?,
        ListFormat::Table => output::print(&render(&rows))?,
    }
    Ok(exit_code::PASS)
}

fn row(runtime: &'static str, step: Step, latencies: &Latencies) -> Row {
    let of = |samples: &Samples| samples.get(&step).cloned().unwrap_or_default();
    let (ours, peer) = (of(&latencies.ours), of(&latencies.peer));
    let micros = |duration: Option<Duration>| duration.map(|it| it.as_micros());
    Row {
        runtime,
        step,
        samples: ours.len(),
        median_us: micros(median(&ours)),
        p99_us: micros(quantile(&ours, 99)),
        peer_median_us: micros(median(&peer)),
        peer_p99_us: micros(quantile(&peer, 99)),
    }
}

fn render(rows: &[Row]) -> String {
    let header = ["step", "median", "p99", "its own: median", "p99"];
    let lines = rows.iter().map(|row| {
        vec![
            row.step.name().to_owned(),
            millis(row.median_us),
            millis(row.p99_us),
            millis(row.peer_median_us),
            millis(row.peer_p99_us),
        ]
    });
    let list = table::list(&header, lines, output::stdout_style());
    let (runtime, lives) = rows
        .first()
        .map_or(("", 0), |row| (row.runtime, row.samples));
    format!("{list}{lives} containers on {runtime}, one after the other\n")
}

fn millis(micros: Option<u128>) -> String {
    micros.map_or_else(
        || "-".to_owned(),
        |micros| format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_was_not_measured_has_no_time() {
        let mut latencies = Latencies::default();
        let times = vec![Duration::from_micros(1_250); 3];
        latencies.ours.insert(Step::Create, times);
        assert_eq!(row("oci", Step::Create, &latencies).median_us, Some(1_250));
        assert_eq!(row("oci", Step::Delete, &latencies).median_us, None);
        assert_eq!(millis(Some(1_250)), "1.2 ms");
        assert_eq!(millis(None), "-");
    }
}
