//! What no world of shells can do, and why. It is reported fault by fault as not applied.

use wavetank_scenario::plan::{Action, Fault, Point, Trigger};

use crate::simulator::Simulator;

/// Why a fault cannot be applied; `None` if it can.
pub fn why(fault: &Fault, simulator: &dyn Simulator) -> Option<&'static str> {
    let before = matches!(
        fault.trigger,
        Trigger::OnEvent {
            point: Point::Before,
            ..
        }
    );
    if before {
        return Some("a decision is seen from outside only once it has taken effect");
    }
    of_shells(&fault.action).or_else(|| simulator.unable(&fault.action))
}

fn of_shells(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::SlowCpu { .. } => "no virtual time passes while a process computes",
        Action::DiskSlow { .. } => "redb writes in one go, in which no virtual time passes",
        Action::CodecRetype { .. } | Action::CodecRename { .. } | Action::CodecMissing { .. } => {
            "there is one version of the shell, and it encodes by itself"
        }
        Action::LinkDuplicate { .. } | Action::LinkReorder { .. } | Action::LinkCorrupt { .. } => {
            "streams and TLS hide what happens to single segments"
        }
        _ => return None,
    })
}
