//! How long a runtime takes for each step of a container's life, and how long its own command line
//! takes for the same on the same daemon. Measures; judges nothing.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, Network, PullPolicy, PullRequest,
};

mod peer;

pub use peer::Peer;

use crate::arm::{Arm, ArmError};

/// The deadline of each call.
const CALL: Duration = Duration::from_secs(60);

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
    /// From the answer of the start to the answer of a wait; the program ends at once.
    ExitSeen,
    /// The two before together: all that a command line shows which waits for the end.
    StartToExit,
    /// From the request to delete to the answer.
    Delete,
}

impl Step {
    /// In the order of a life.
    pub const ALL: [Step; 6] = [
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
            Step::ExitSeen => "exit seen",
            Step::StartToExit => "start to exit seen",
            Step::Delete => "delete",
        }
    }
}

/// Durations of one step, in the order in which they were measured.
pub type Samples = BTreeMap<Step, Vec<Duration>>;

/// Durations of our adapter and of the peer, taken by turns.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Our adapter's.
    pub ours: Samples,
    /// The peer's; empty without one.
    pub peer: Samples,
}

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

/// Takes `lives` containers through their lives, one after the other, each time followed by the
/// peer's, so that both meet the same weather.
pub async fn measure(arm: &dyn Arm, lives: u32) -> Result<Latencies, ArmError> {
    let runtime = arm.runtime();
    let image = arm.images().image(TestImage::Tool);
    let pull = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(image)
    };
    runtime.pull(&pull, CALL).await.map_err(harness)?;
    let peer = arm.peer(&Program::exit(0)).await?;
    let mut latencies = Latencies::default();
    for number in 0..=lives {
        let id = ContainerId(format!("bench-{number}"));
        live(runtime.as_ref(), &pull, &id, &mut latencies.ours).await?;
        if let Some(peer) = &peer {
            live_by_peer(peer, &format!("peer-{number}"), &mut latencies.peer).await?;
        }
        if number == 0 {
            // The first one unpacks images and fills caches.
            latencies = Latencies::default();
        }
    }
    Ok(latencies)
}

async fn live(
    runtime: &dyn ContainerRuntime,
    pull: &PullRequest,
    id: &ContainerId,
    samples: &mut Samples,
) -> Result<(), ArmError> {
    let spec = ContainerSpec {
        command: Program::exit(0).command(),
        network: Network::None,
        ..ContainerSpec::of(id.clone(), pull.image.clone())
    };
    let mut watch = Watch::new(samples);
    runtime.pull(pull, CALL).await.map_err(harness)?;
    watch.lap(Step::Pull);
    runtime.create(&spec, CALL).await.map_err(harness)?;
    watch.lap(Step::Create);
    runtime.start(id, CALL).await.map_err(harness)?;
    let started = watch.lap(Step::Start);
    let exit = runtime.wait(id, CALL).await.map_err(harness)?;
    let seen = watch.lap(Step::ExitSeen);
    watch.keep(Step::StartToExit, started + seen);
    runtime.delete(id, false, CALL).await.map_err(harness)?;
    watch.lap(Step::Delete);
    if !exit.code.is_success() {
        return Err(ArmError::Harness(format!("{id} ended with {}", exit.code)));
    }
    Ok(())
}

async fn live_by_peer(peer: &Peer, id: &str, samples: &mut Samples) -> Result<(), ArmError> {
    for (step, command) in &peer.commands {
        let words: Vec<String> = command.iter().map(|it| it.replace("{id}", id)).collect();
        let failed = |why: String| ArmError::Harness(format!("`{}`: {why}", words.join(" ")));
        let (program, arguments) = words.split_first().ok_or_else(|| failed("empty".into()))?;
        let mut watch = Watch::new(samples);
        // No pipes: `runc create` hands them on to the container, and they would stay open.
        let status = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .map_err(|error| failed(error.to_string()))?;
        watch.lap(*step);
        if !status.success() {
            return Err(failed(status.to_string()));
        }
    }
    Ok(())
}

fn harness(error: impl std::fmt::Display) -> ArmError {
    ArmError::Harness(error.to_string())
}

/// Measures from one lap to the next.
struct Watch<'a> {
    samples: &'a mut Samples,
    since: Instant,
}

impl<'a> Watch<'a> {
    fn new(samples: &'a mut Samples) -> Self {
        Watch {
            samples,
            since: Instant::now(),
        }
    }

    fn lap(&mut self, step: Step) -> Duration {
        let now = Instant::now();
        let elapsed = now - self.since;
        self.since = now;
        self.keep(step, elapsed);
        elapsed
    }

    fn keep(&mut self, step: Step, elapsed: Duration) {
        self.samples.entry(step).or_default().push(elapsed);
    }
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
