//! What containerd does differently from the port, each with its source.

use wavetank_port::{Capabilities, Capability, Difference, Support};

/// Measured on containerd 1.6.20 with runc 1.1.5.
pub const CAPABILITIES: Capabilities = Capabilities {
    runtime: "containerd",
    differences: &[
        Difference {
            capability: Capability::OutlivesMonitor,
            support: Support::Missing,
            note: "The daemon kills a container whose shim has died.",
            source: "containerd runtime/v2/shim.go, cleanupAfterDeadShim; measured",
        },
        Difference {
            capability: Capability::ExitCodeWithoutMonitor,
            support: Support::Missing,
            note: "The daemon makes up 137 or 255 for such a container; we report Unknown.",
            source: "containerd runtime/v2/shim.go, cleanupAfterDeadShim; measured",
        },
        Difference {
            capability: Capability::EventReplay,
            support: Support::Missing,
            note: "Missed events are lost; a resumed stream begins with Interrupted.",
            source: "containerd api/services/events/v1: Subscribe takes filters only; measured",
        },
        Difference {
            capability: Capability::StartAgain,
            support: Support::Missing,
            note: "An exited container stays exited; make a new one.",
            source: "our choice, as the OCI runtime specification has it: start needs `created`",
        },
        Difference {
            capability: Capability::LogTimes,
            support: Support::Missing,
            note: "The shim appends raw bytes to files; since and until are InvalidArgument.",
            source: "containerd pkg/process/io.go, copyPipes; measured",
        },
        Difference {
            capability: Capability::ImageInUse,
            support: Support::Missing,
            note: "Removes the name; a container keeps the snapshots that it stands on.",
            source: "containerd docs/garbage-collection.md; measured",
        },
    ],
};
