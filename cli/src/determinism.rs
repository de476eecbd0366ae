//! The same seed again: twice in this process and once in another, which takes the runs in
//! reverse order on another number of threads. What differs then is memory layout, thread
//! timing, and everything that earlier runs may have left behind; none of it may show.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use wavetank_engine::Keep;
use wavetank_reports::{Divergence, RunReport, RunVerdict};
use wavetank_scenario::Override;
use wavetank_scenario::plan::Plan;

use crate::files;
use crate::runner::{self, Execute};

/// Times that two runs are compared event by event before their difference is called elusive.
const ATTEMPTS: usize = 3;

/// What the other process is asked for, a line of JSON each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRequest {
    /// The scenario's file.
    pub file: String,
    /// The seed.
    pub seed: u64,
    /// The world.
    pub world: String,
}

/// What it answers, in the order of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestAnswer {
    /// The digest, or the text of the panic that ended the run.
    pub digest: String,
}

/// The other process at work.
pub struct OtherProcess {
    answers: JoinHandle<anyhow::Result<Vec<String>>>,
}

impl OtherProcess {
    /// Starts it. It inherits stderr.
    pub fn start(
        requests: Vec<DigestRequest>,
        overrides: &[Override],
        threads: NonZeroUsize,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command
            .arg("digests")
            .arg("--jobs")
            .arg(threads.to_string());
        for one in overrides {
            command.arg("--set").arg(files::assignment(one));
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a second process")?;
        let answers = std::thread::spawn(move || converse(child, requests));
        Ok(OtherProcess { answers })
    }

    /// Waits for its digests, in the order of the requests.
    pub fn digests(self) -> anyhow::Result<Vec<String>> {
        match self.answers.join() {
            Ok(digests) => digests.context("the second process failed"),
            Err(_) => bail!("the thread that reads from the second process panicked"),
        }
    }
}

fn converse(mut child: Child, mut requests: Vec<DigestRequest>) -> anyhow::Result<Vec<String>> {
    requests.reverse();
    if let Some(mut stdin) = child.stdin.take() {
        for request in &requests {
            serde_json::to_writer(&mut stdin, request)?;
            stdin.write_all(b"\n")?;
        }
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("it ended with {}", output.status);
    }
    let answers: Result<Vec<DigestAnswer>, _> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect();
    let mut digests: Vec<String> = answers?.into_iter().map(|answer| answer.digest).collect();
    if digests.len() != requests.len() {
        bail!(
            "it answered {} of {} requests",
            digests.len(),
            requests.len()
        );
    }
    digests.reverse();
    Ok(digests)
}

/// What stands for a run when runs are compared: its digest, or how it ended without one.
pub fn digest_of(report: &RunReport) -> String {
    let end = report.digest.as_ref().or(report.error.as_ref());
    end.cloned().unwrap_or_default()
}

/// Marks the report if the digests differ, and finds out where the runs went apart.
pub fn compare(execute: &Execute, plan: &Plan, report: &mut RunReport, digests: Vec<String>) {
    if digests.iter().all(|digest| *digest == digests[0]) {
        return;
    }
    let (event, left, right) = first_difference(execute, plan).unwrap_or_default();
    report.verdict = RunVerdict::NonDeterministic;
    report.replay.push_str(" --check-determinism");
    report.divergence = Some(Divergence {
        digests,
        event,
        left,
        right,
    });
}

type Difference = (Option<u64>, Option<String>, Option<String>);

/// Repeats the run with all its events until two runs differ.
fn first_difference(execute: &Execute, plan: &Plan) -> Option<Difference> {
    let first = events(execute, plan);
    (0..ATTEMPTS).find_map(|_| first_different_line(&first, &events(execute, plan)))
}

fn events(execute: &Execute, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    let ended = runner::attempt(execute, plan, Keep::Full, &mut |event| {
        lines.push(serde_json::to_string(event).unwrap_or_else(|error| error.to_string()));
    });
    lines.extend(ended.err());
    lines
}

fn first_different_line(left: &[String], right: &[String]) -> Option<Difference> {
    let same = left
        .iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count();
    let (left, right) = (left.get(same), right.get(same));
    let event = Some(same as u64 + 1);
    (left != right).then(|| (event, left.cloned(), right.cloned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use wavetank_engine::Keep;
    use wavetank_reports::{RunReport, RunVerdict};
    use wavetank_scenario::plan::Plan;
    use wavetank_scenario::{LoadError, Scenario};
    use wavetank_trace::{Event, EventId};

    use super::{compare, first_different_line};
    use crate::runner::{self, Execute};
    use crate::world::World;

    const SCENARIO: &str = "scenario: 1\nname: a\nhorizon: 5s\nsettle: 5s\n";

    fn plan() -> Result<Plan, LoadError> {
        let no_include = |_: &str| Err("there is nothing to include".to_owned());
        Ok(Scenario::parse("a.yaml", SCENARIO, &no_include)?.plan(7))
    }

    fn compared(execute: &Execute, digests: [&str; 3]) -> Result<RunReport, LoadError> {
        let plan = plan()?;
        let mut report = runner::report(World::Event, &World::Event.execute(), &plan, &[]);
        compare(
            execute,
            &plan,
            &mut report,
            digests.map(str::to_owned).to_vec(),
        );
        Ok(report)
    }

    #[test]
    fn equal_digests_leave_the_verdict_alone() -> Result<(), LoadError> {
        let report = compared(&World::Event.execute(), ["a", "a", "a"])?;
        assert_ne!(report.verdict, RunVerdict::NonDeterministic);
        assert_eq!(report.divergence, None);
        Ok(())
    }

    #[test]
    fn a_run_that_remembers_its_predecessor_is_caught_at_its_event() -> Result<(), LoadError> {
        let runs = AtomicU64::new(0);
        let forgetful = move |plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            (World::Event.execute())(plan, keep, &mut |event| {
                let mut event = event.clone();
                if event.id == EventId(3) {
                    event.at.0 += run;
                }
                sink(&event);
            })
        };
        let report = compared(&forgetful, ["a", "a", "b"])?;
        assert_eq!(report.verdict, RunVerdict::NonDeterministic);
        assert!(
            report
                .replay
                .ends_with("run a.yaml --seed 7 --check-determinism")
        );
        let found = report
            .divergence
            .and_then(|found| Some((found.event?, found.left?)));
        assert!(found.is_some_and(|(event, left)| event == 3 && left.contains("\"id\":3")));
        Ok(())
    }

    #[test]
    fn a_difference_that_does_not_come_back_is_still_one() -> Result<(), LoadError> {
        let report = compared(&World::Event.execute(), ["a", "b", "a"])?;
        assert_eq!(report.verdict, RunVerdict::NonDeterministic);
        assert_eq!(report.divergence.and_then(|found| found.event), None);
        Ok(())
    }

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn equal_runs_do_not_differ() {
        assert_eq!(first_different_line(&lines("abc"), &lines("abc")), None);
    }

    #[test]
    fn the_first_event_that_differs_is_named() {
        let found = first_different_line(&lines("abc"), &lines("aXc"));
        assert_eq!(
            found,
            Some((Some(2), Some("b".to_owned()), Some("X".to_owned())))
        );
    }

    #[test]
    fn a_run_that_ends_early_differs_there() {
        let found = first_different_line(&lines("ab"), &lines("a"));
        assert_eq!(found, Some((Some(2), Some("b".to_owned()), None)));
    }
}
