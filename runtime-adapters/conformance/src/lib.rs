//! One contract for every runtime adapter: the same cases, run on each.

pub mod arm;

pub use arm::{Arm, ArmError, RegistryFault, Resources, TestImage};
