//! What this world or this machine cannot do, and why. It is reported fault by fault as not
//! applied.

use wavetank_node::config::RuntimeKind;
use wavetank_scenario::plan::{Action, Fault, Point, Trigger};

use crate::calls::{Means, means};
use crate::room::Capabilities;

/// Why a fault cannot be applied to such a runtime and such links; `None` if it can.
pub fn why(fault: &Fault, kind: RuntimeKind, links: Capabilities) -> Option<String> {
    let before = matches!(
        fault.trigger,
        Trigger::OnEvent {
            point: Point::Before,
            ..
        }
    );
    if before {
        let why = "a decision is seen from outside only once it has taken effect";
        return Some(why.to_owned());
    }
    let action = &fault.action;
    let why = anywhere(action).or_else(|| here(action, kind, links));
    why.map(str::to_owned).or_else(|| between(action, kind))
}

/// What no machine does on request, or not without hurting everything else on it.
fn anywhere(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::SlowCpu { .. } => {
            "a quota of one process's CPU time needs a control group of its own"
        }
        Action::ClockJump { .. } | Action::ClockDrift { .. } => {
            "all processes of a machine share its clocks"
        }
        Action::DiskSlow { .. } | Action::DiskError | Action::DiskLies | Action::BitRot { .. } => {
            "this takes a device of its own below the node's file system"
        }
        Action::PowerLoss { torn: true } => "a write cannot be cut in half from outside",
        Action::CodecRetype { .. } | Action::CodecRename { .. } | Action::CodecMissing { .. } => {
            "there is one version of the node, and it encodes by itself"
        }
        Action::LinkDuplicate { .. } | Action::LinkReorder { .. } | Action::LinkCorrupt { .. } => {
            "streams and TLS hide what happens to single segments"
        }
        Action::TaskExit { .. } => "nobody but a process itself chooses its exit code",
        Action::TaskOom => "the kernel alone decides whom it kills; give the image a memory use",
        _ => return None,
    })
}

/// What this machine or this runtime lacks.
fn here(action: &Action, kind: RuntimeKind, links: Capabilities) -> Option<&'static str> {
    Some(match action {
        Action::LinkLoss { .. } if !links.loss => "this kernel cannot lose packets by chance",
        Action::LinkBandwidth { .. } if !links.bandwidth => "this kernel cannot slow a link down",
        Action::LinkDelay { .. } if !links.delay => "this kernel cannot hold packets back",
        Action::DaemonRestart { .. } | Action::MonitorKill if kind == RuntimeKind::Oci => {
            "the OCI adapter has no daemon"
        }
        _ => return None,
    })
}

/// What nothing between a node and its runtime can do.
fn between(action: &Action, kind: RuntimeKind) -> Option<String> {
    let is_about_calls = matches!(
        action,
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
            | Action::Orphan
    );
    if !is_about_calls {
        return None;
    }
    match means(action, kind, 1) {
        Ok(Means::Chaos(_)) if kind != RuntimeKind::Oci => {
            Some("the chaos runtime stands below the OCI adapter alone".to_owned())
        }
        Ok(_) => None,
        Err(why) => Some(why.reason),
    }
}
