//! What containers of an OCI runtime under our own monitor do differently.

use wavetank_port::{Capabilities, Capability, Difference, Support};

/// The table of this adapter.
pub const CAPABILITIES: Capabilities = Capabilities {
    runtime: "oci",
    differences: &[
        Difference {
            capability: Capability::Daemon,
            support: Support::Missing,
            note: "there is no daemon: the adapter runs the OCI runtime's binary itself",
            source: "OCI runtime specification 1.0, runtime.md: a runtime is a command line",
        },
        Difference {
            capability: Capability::ExitCodeWithoutMonitor,
            support: Support::Differs,
            note: "known if a new monitor took over before the end, and the kernel is 6.15 or \
                   newer or the process's zombie was still there; otherwise explicitly unknown",
            source: "Linux, include/uapi/linux/pidfd.h, PIDFD_INFO_EXIT; proc(5), /proc/pid/stat \
                     field 52",
        },
        Difference {
            capability: Capability::StartAgain,
            support: Support::Missing,
            note: "an exited container can only be deleted",
            source: "OCI runtime specification 1.0, runtime.md, Start: a container that is not \
                     created must have no effect and generate an error",
        },
    ],
};
