//! The arm of the podman adapter.

use async_trait::async_trait;

use crate::arm::{Arm, ArmError};
use crate::run::Bench;

/// Makes arms with a private daemon each.
pub struct PodmanBench;

#[async_trait]
impl Bench for PodmanBench {
    fn runtime(&self) -> &'static str {
        "podman"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Err(ArmError::Harness("not built yet".to_owned()))
    }
}
