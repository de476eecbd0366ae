//! Lock files on volumes, as workloads use them to elect a leader. A lock on a volume that is not
//! shared excludes nobody on another machine: that is the incident to show (StreamSpace H3).

use std::collections::BTreeMap;

use wavetank_model::NodeId;

/// All lock files of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    shared: Vec<String>,
    held: BTreeMap<(Option<NodeId>, String), (NodeId, String)>,
}

impl Locks {
    /// No locks; `shared` volumes are one and the same on all machines.
    pub fn new(shared: Vec<String>) -> Self {
        Locks {
            shared,
            held: BTreeMap::new(),
        }
    }

    fn key(&self, node: NodeId, volume: &str) -> (Option<NodeId>, String) {
        let shared = self.shared.iter().any(|name| name == volume);
        ((!shared).then_some(node), volume.to_owned())
    }

    /// Takes the lock, or keeps it; false if another has it.
    pub fn take(&mut self, node: NodeId, volume: &str, holder: &str) -> bool {
        let key = self.key(node, volume);
        let wanted = (node, holder.to_owned());
        *self.held.entry(key).or_insert_with(|| wanted.clone()) == wanted
    }

    /// Gives the lock back, if the caller has it.
    pub fn release(&mut self, node: NodeId, volume: &str, holder: &str) {
        let key = self.key(node, volume);
        if self
            .held
            .get(&key)
            .is_some_and(|(at, who)| *at == node && who == holder)
        {
            self.held.remove(&key);
        }
    }

    /// The node's process is gone, and its locks with it.
    pub fn release_all(&mut self, node: NodeId) {
        self.held.retain(|_, (at, _)| *at != node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_only_on_a_shared_volume() {
        let mut locks = Locks::new(vec!["shared".into()]);
        let (one, two) = (NodeId::agent(1), NodeId::agent(2));
        assert!(locks.take(one, "shared", "a"));
        assert!(!locks.take(two, "shared", "b"));
        assert!(locks.take(one, "local", "a"));
        assert!(locks.take(two, "local", "b"));
    }

    #[test]
    fn only_the_holder_or_the_end_of_its_process_frees_a_lock() {
        let mut locks = Locks::new(vec!["v".into()]);
        let (one, two) = (NodeId::agent(1), NodeId::agent(2));
        assert!(locks.take(one, "v", "a"));
        locks.release(two, "v", "b");
        assert!(!locks.take(two, "v", "b"));
        locks.release_all(one);
        assert!(locks.take(two, "v", "b"));
    }
}
