//! The arm of the containerd adapter.

use async_trait::async_trait;

use crate::arm::{Arm, ArmError};
use crate::run::Bench;

/// Makes arms with a private daemon each.
pub struct ContainerdBench;

#[async_trait]
impl Bench for ContainerdBench {
    fn runtime(&self) -> &'static str {
        "containerd"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Err(ArmError::Harness("not built yet".to_owned()))
    }
}
