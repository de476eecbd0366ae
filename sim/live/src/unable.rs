//! What this world or this machine cannot do, and why. It is reported fault by fault as not
//! applied.

use wavetank_scenario::plan::{Action, Fault, Point, Trigger};

use crate::scene::Scene;

/// Why a fault cannot be applied; `None` if it can.
pub fn why(fault: &Fault, scene: &Scene) -> Option<String> {
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
    let why = anywhere(&fault.action).map(str::to_owned);
    why.or_else(|| scene.unable(&fault.action))
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
