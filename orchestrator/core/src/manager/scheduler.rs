//! The scheduler. (skeleton)

use wavetank_model::{NodeId, TaskId};

use super::store::Store;

/// May this task be bound to this node as things are?
pub fn may_place(store: &Store, task: TaskId, node: NodeId) -> bool {
    let _ = (store, task, node);
    false
}
