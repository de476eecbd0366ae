//! The runtimes that can be put to the test, by name.

use std::future::Future;

use anyhow::Context as _;
use clap::ValueEnum;
use wavetank_conformance::Bench;
use wavetank_conformance::arms::containerd::ContainerdBench;
use wavetank_conformance::arms::oci::OciBench;
use wavetank_conformance::arms::podman::PodmanBench;
use wavetank_conformance::host::prerequisites;
use wavetank_sim_arm::{SimBench, block_on_virtual_time};

use crate::failure::Failure;
use crate::interruption::unless_interrupted;

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
    /// Makes its arms, if this machine has what the runtime needs.
    pub fn usable_bench(self) -> Result<&'static dyn Bench, Failure> {
        let bench = self.bench();
        match prerequisites(bench.runtime()).problem() {
            None => Ok(bench),
            Some(problem) => Err(Failure::Harness(anyhow::anyhow!(
                "{} cannot be used here: {problem} (`wavetank doctor` says more)",
                bench.runtime()
            ))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeName::Sim => "sim",
            RuntimeName::Containerd => "containerd",
            RuntimeName::Podman => "podman",
            RuntimeName::Oci => "oci",
        }
    }

    /// Makes its arms.
    pub fn bench(self) -> &'static dyn Bench {
        match self {
            RuntimeName::Sim => &SimBench,
            RuntimeName::Containerd => &ContainerdBench,
            RuntimeName::Podman => &PodmanBench,
            RuntimeName::Oci => &OciBench,
        }
    }

    /// Runs `work` by the clock that the runtime lives by. Interrupted or terminated, it drops the
    /// work, which ends the daemons and containers that it has started.
    pub fn block_on<T>(self, work: impl Future<Output = T>) -> Result<T, Failure> {
        match self {
            RuntimeName::Sim => Ok(block_on_virtual_time(work).context(NO_TOKIO)?),
            RuntimeName::Containerd | RuntimeName::Podman | RuntimeName::Oci => {
                block_on_real_time(work)
            }
        }
    }
}

const NO_TOKIO: &str = "cannot start tokio";

/// Runs `work` by the machine's clock. Interrupted or terminated, it drops the work, and with it
/// whatever the work has started.
pub fn block_on_real_time<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Runtime::new().context(NO_TOKIO)?;
    runtime.block_on(unless_interrupted(work))
}
