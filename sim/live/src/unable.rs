//! What this world or this machine cannot do, and why. It is reported fault by fault as not
//! applied.

use wavetank_node::config::RuntimeKind;
use wavetank_scenario::plan::{Action, Fault, Point, Trigger};

use crate::calls::means;
use crate::room::Capabilities;
use crate::wall_clock;

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
        Action::ClockDrift { .. } => "monotonic clocks of a machine cannot run apart",
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
        Action::ClockJump { .. } if kind == RuntimeKind::Oci => {
            "its monitors are the node's children and would live by the node's clock"
        }
        Action::ClockJump { .. } if wall_clock::library().is_none() => {
            "all processes share the machine's clock; libfaketime, which helps, is not installed"
        }
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
            | Action::ExitLate { .. }
            | Action::ExitCodeWrong { .. }
            | Action::ExitCodeLost { .. }
            | Action::ExitTimeMissing { .. }
            | Action::KillDeadErrors
            | Action::EmptyListing { .. }
            | Action::Orphan
    );
    if !is_about_calls {
        return None;
    }
    means(action, kind, 1).err().map(|why| why.reason)
}
