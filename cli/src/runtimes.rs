//! The runtimes that can be put to the test, by name.

use std::future::Future;

use anyhow::Context as _;
use clap::ValueEnum;
use wavetank_conformance::Bench;
use wavetank_conformance::arms::containerd::ContainerdBench;
use wavetank_conformance::arms::oci::OciBench;
use wavetank_conformance::arms::podman::PodmanBench;
use wavetank_sim_arm::{SimBench, block_on_virtual_time};

use crate::failure::Failure;

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    /// The simulated one, in virtual time.
    Sim,
    /// containerd, by its gRPC interface.
    Containerd,
    /// Podman, by its REST interface.
    Podman,
    /// An OCI runtime binary, with monitors of our own.
    Oci,
}

impl RuntimeName {
    /// Makes its arms.
    pub fn bench(self) -> &'static dyn Bench {
        match self {
            RuntimeName::Sim => &SimBench,
            RuntimeName::Containerd => &ContainerdBench,
            RuntimeName::Podman => &PodmanBench,
            RuntimeName::Oci => &OciBench,
        }
    }

    /// Runs `work` by the clock that the runtime lives by.
    pub fn block_on<T>(self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let done = match self {
            RuntimeName::Sim => block_on_virtual_time(work),
            RuntimeName::Containerd | RuntimeName::Podman | RuntimeName::Oci => {
                tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(work))
            }
        };
        Ok(done.context("cannot start tokio")?)
    }
}
