//! How long a runtime takes for each step of a container's life, and how long its own command line
//! takes for the same on the same daemon. Measures; judges nothing.
//!
//! Map: `samples` (steps and their durations), `life` (one container's life), `calibration` (lives
//! with events and their order), `peer` (the command lines), `clock` (by which time).

use std::process::Stdio;
use std::time::Duration;

use wavetank_fixtures::Program;
use wavetank_port::ContainerId;

mod calibration;
mod clock;
mod life;
mod peer;
mod samples;

pub use calibration::{Calibration, calibrate};
pub use clock::{Clock, MachineClock};
pub use peer::Peer;
pub use samples::{Samples, Step, median, quantile};

use crate::arm::{Arm, ArmError};
use life::{Place, Watch};

/// The deadline of each call.
const CALL: Duration = Duration::from_secs(60);

/// Durations of our adapter and of the peer, taken by turns.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Our adapter's.
    pub ours: Samples,
    /// The peer's; empty without one.
    pub peer: Samples,
}

/// Takes `lives` containers through their lives, one after the other, each time followed by the
/// peer's, so that both meet the same weather.
pub async fn measure(arm: &dyn Arm, lives: u32) -> Result<Latencies, ArmError> {
    let runtime = arm.runtime();
    let pull = life::pulled(arm).await?;
    let clock = &MachineClock::start();
    let place = Place {
        runtime: runtime.as_ref(),
        pull: &pull,
        clock,
    };
    let peer = arm.peer(&Program::exit(0)).await?;
    let mut latencies = Latencies::default();
    for number in 0..=lives {
        let id = ContainerId(format!("bench-{number}"));
        let ended = life::begin(&place, id, &mut latencies.ours).await?;
        life::delete(&place, &ended.id, &mut latencies.ours).await?;
        if let Some(peer) = &peer {
            let id = format!("peer-{number}");
            live_by_peer(peer, &id, clock, &mut latencies.peer).await?;
        }
        if number == 0 {
            // The first one unpacks images and fills caches.
            latencies = Latencies::default();
        }
    }
    Ok(latencies)
}

async fn live_by_peer(
    peer: &Peer,
    id: &str,
    clock: &MachineClock,
    samples: &mut Samples,
) -> Result<(), ArmError> {
    for (step, command) in &peer.commands {
        let words: Vec<String> = command.iter().map(|it| it.replace("{id}", id)).collect();
        let failed = |why: String| ArmError::Harness(format!("`{}`: {why}", words.join(" ")));
        let (program, arguments) = words.split_first().ok_or_else(|| failed("empty".into()))?;
        let mut watch = Watch::new(clock, samples);
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
