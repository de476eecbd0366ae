//! The arm of the oci adapter.

use async_trait::async_trait;

use crate::arm::{Arm, ArmError};
use crate::run::Bench;

/// Makes arms with a state of its own each.
pub struct OciBench;

#[async_trait]
impl Bench for OciBench {
    fn runtime(&self) -> &'static str {
        "oci"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Err(ArmError::Harness("not built yet".to_owned()))
    }
}
