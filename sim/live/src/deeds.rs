//! Which faults this world can do to runtimes and links, by runtime and machine.

use wavetank_node::config::RuntimeKind;
use wavetank_scenario::plan::Action;

use crate::agent;
use crate::room::Capabilities;

/// Why a fault of this kind cannot be done here; `None` if it can.
pub fn unable(action: &Action, kind: RuntimeKind, links: Capabilities) -> Option<String> {
    let why = match action {
        Action::LinkLoss { .. } if !links.loss => "this kernel cannot lose packets by chance",
        Action::LinkBandwidth { .. } if !links.bandwidth => "this kernel cannot slow a link down",
        Action::LinkDelay { .. } if !links.delay => "this kernel cannot hold packets back",
        Action::DaemonRestart { .. } | Action::MonitorKill if kind == RuntimeKind::Oci => {
            "the OCI adapter has no daemon"
        }
        Action::RuntimeError { .. }
        | Action::RuntimeDelay { .. }
        | Action::RuntimeHang { .. }
        | Action::RuntimeLostReply { .. }
        | Action::RuntimeEventDrop { .. }
        | Action::RuntimeEventDuplicate { .. }
        | Action::RuntimeEventDelay { .. }
        | Action::ExitBeforeStart { .. }
        | Action::ExitCodeLost { .. }
        | Action::ExitTimeMissing { .. }
        | Action::KillDeadErrors
        | Action::EmptyListing { .. }
        | Action::Orphan => return agent::unable(action, kind),
        _ => return None,
    };
    Some(why.to_owned())
}
