//! The conformance arm of the simulated runtime: the same seventy cases, in virtual time.
//!
//! Map: `arm` (what a case may break, done to the simulated machine), `program` (what the test
//! images' program means to it), `exact` (the same lives as on a real runtime, measured to the
//! nanosecond), `measured` (what was measured, as a scenario says it). A crate of its
//! own, so that worlds that use the simulated runtime do not build the suite and the real adapters.

mod arm;
mod exact;
mod measured;
mod program;

use std::future::Future;

use async_trait::async_trait;
use wavetank_conformance::{Arm, ArmError, Bench};

pub use arm::SimArm;
pub use exact::calibrate_simulated;
pub use measured::steps_of;
pub use program::interpret;

/// Makes arms with a simulated machine and a simulated registry each.
pub struct SimBench;

#[async_trait]
impl Bench for SimBench {
    fn runtime(&self) -> &'static str {
        "sim"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Ok(Box::new(SimArm::new()))
    }
}

/// Runs `work` in virtual time: whenever nothing can happen now, it is later.
pub fn block_on_virtual_time<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(work))
}
