//! One container's life, with the time of each step.

use std::time::Duration;

use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ExitStatus, Network, PullPolicy, PullRequest,
};

use super::CALL;
use super::clock::Clock;
use super::samples::{Samples, Step};
use crate::arm::{Arm, ArmError};

/// Where lives are lived.
pub(super) struct Place<'a> {
    pub runtime: &'a dyn ContainerRuntime,
    pub pull: &'a PullRequest,
    pub clock: &'a dyn Clock,
}

/// A container whose program has ended, before it is deleted.
pub(super) struct Ended {
    pub id: ContainerId,
    /// When the start was answered, by the clock.
    pub answered: Duration,
    /// As the wait's answer had it.
    pub exit: ExitStatus,
}

/// The image that lives are lived with, there already.
pub(super) async fn pulled(arm: &dyn Arm) -> Result<PullRequest, ArmError> {
    let image = arm.images().image(TestImage::Tool);
    let pull = PullRequest {
        policy: PullPolicy::Always,
        ..PullRequest::of(image)
    };
    arm.runtime().pull(&pull, CALL).await.map_err(harness)?;
    Ok(pull)
}

/// A container is made and started, and its program, which does nothing, is seen to end.
pub(super) async fn begin(
    place: &Place<'_>,
    id: ContainerId,
    samples: &mut Samples,
) -> Result<Ended, ArmError> {
    let Place { runtime, pull, .. } = place;
    let spec = ContainerSpec {
        command: Program::exit(0).command(),
        network: Network::None,
        ..ContainerSpec::of(id.clone(), pull.image.clone())
    };
    let mut watch = Watch::new(place.clock, samples);
    runtime.pull(pull, CALL).await.map_err(harness)?;
    watch.lap(Step::Pull);
    runtime.create(&spec, CALL).await.map_err(harness)?;
    watch.lap(Step::Create);
    let asked = place.clock.wall();
    runtime.start(&id, CALL).await.map_err(harness)?;
    let start = watch.lap(Step::Start);
    let answered = watch.since;
    let exit = runtime.wait(&id, CALL).await.map_err(harness)?;
    let seen = watch.lap(Step::ExitSeen);
    watch.keep(Step::StartToExit, start + seen);
    if let Some(at) = exit.exited_at {
        let end = Duration::from_nanos(at.0.saturating_sub(asked.0));
        watch.keep(Step::StartToEnd, end);
    }
    if !exit.code.is_success() {
        return Err(ArmError::Harness(format!("{id} ended with {}", exit.code)));
    }
    Ok(Ended { id, answered, exit })
}

/// An ended container is looked at.
pub(super) async fn inspect(
    place: &Place<'_>,
    id: &ContainerId,
    samples: &mut Samples,
) -> Result<(), ArmError> {
    let mut watch = Watch::new(place.clock, samples);
    place.runtime.inspect(id, CALL).await.map_err(harness)?;
    watch.lap(Step::Inspect);
    Ok(())
}

/// An ended container is deleted.
pub(super) async fn delete(
    place: &Place<'_>,
    id: &ContainerId,
    samples: &mut Samples,
) -> Result<(), ArmError> {
    let mut watch = Watch::new(place.clock, samples);
    let deleted = place.runtime.delete(id, false, CALL).await;
    watch.lap(Step::Delete);
    deleted.map_err(harness)
}

pub(super) fn harness(error: impl std::fmt::Display) -> ArmError {
    ArmError::Harness(error.to_string())
}

/// Measures from one lap to the next.
pub(super) struct Watch<'a> {
    clock: &'a dyn Clock,
    samples: &'a mut Samples,
    since: Duration,
}

impl<'a> Watch<'a> {
    pub fn new(clock: &'a dyn Clock, samples: &'a mut Samples) -> Self {
        Watch {
            clock,
            samples,
            since: clock.now(),
        }
    }

    pub fn lap(&mut self, step: Step) -> Duration {
        let now = self.clock.now();
        let elapsed = now - self.since;
        self.since = now;
        self.keep(step, elapsed);
        elapsed
    }

    fn keep(&mut self, step: Step, elapsed: Duration) {
        self.samples.entry(step).or_default().push(elapsed);
    }
}
