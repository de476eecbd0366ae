//! What the simulated runtime does not have or does differently.

use wavetank_port::{Capabilities, Capability, Difference, Support};

/// The capability table of the simulated runtime.
pub const CAPABILITIES: Capabilities = Capabilities {
    runtime: "sim",
    differences: &[
        Difference {
            capability: Capability::OutlivesMonitor,
            support: Support::Missing,
            note: "a container ends with its monitor, and nobody knows how",
            source: "the model of containerd's shim: the daemon kills what its shim leaves behind",
        },
        Difference {
            capability: Capability::ExitCodeWithoutMonitor,
            support: Support::Missing,
            note: "the exit code is unknown once the monitor is gone",
            source: "the model's choice: the least that a real runtime knows",
        },
        Difference {
            capability: Capability::StartAgain,
            support: Support::Missing,
            note: "an exited container is refused; create a new one",
            source: "OCI runtime specification 1.1, runtime operations: start",
        },
    ],
};
