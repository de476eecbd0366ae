//! What Podman 4.3 cannot do or does in its own way, as a table.

use wavetank_port::{Capabilities, Capability, Difference, Support};

/// How Podman differs from the port.
pub const CAPABILITIES: Capabilities = Capabilities {
    runtime: "podman",
    differences: &[
        Difference {
            capability: Capability::ExitCodeWithoutMonitor,
            support: Support::Missing,
            note: "Podman says `running` for ever; the adapter sees that the process is gone and \
                   says exited with an unknown code.",
            source: "measured: Podman 4.3.1, conmon 2.1.6 killed before its container ended",
        },
        Difference {
            capability: Capability::StartAgain,
            support: Support::Missing,
            note: "Podman itself runs an exited container again under its id, with the old exit \
                   overwritten; the adapter refuses, so that one id has one end.",
            source: "measured: Podman 4.3.1, POST /containers/NAME/start answers 204 after an exit",
        },
        Difference {
            capability: Capability::OomReport,
            support: Support::Differs,
            note: "Podman before 5.0 never says it; the adapter finds the process in the kernel's \
                   log, and says no where that cannot be read or has been written over.",
            source: "https://github.com/containers/podman/issues/13102",
        },
        Difference {
            capability: Capability::LogTimes,
            support: Support::Differs,
            note: "Times of log pieces are whole seconds; `since` and `until` are exact.",
            source: "measured: Podman 4.3.1, GET /containers/NAME/logs?timestamps=true",
        },
    ],
};
