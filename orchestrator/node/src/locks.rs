//! Lock files on this node's volumes, for workloads that elect a leader that way.
//!
//! A volume of one node is seen by that node alone, and so are its locks: whoever elects a leader
//! among replicas on several nodes like this gets one leader per node. The scenario
//! `known-bad/lock-file-election.yaml` shows it; leases of the managers are the remedy.

use std::collections::BTreeMap;

use wavetank_core::{LockReply, LockRequest};

/// Who holds what. All locks are given back when the agent's process ends.
#[derive(Debug, Default)]
pub struct Locks {
    holders: BTreeMap<String, String>,
}

impl Locks {
    /// Takes a lock or gives it back.
    pub fn handle(&mut self, request: &LockRequest) -> LockReply {
        let holder = self.holders.get(&request.volume);
        let is_own = holder == Some(&request.holder);
        match (request.take, holder) {
            (true, Some(_)) if !is_own => return LockReply::Held,
            (true, _) => {
                let (volume, holder) = (request.volume.clone(), request.holder.clone());
                self.holders.insert(volume, holder);
            }
            (false, _) if is_own => {
                self.holders.remove(&request.volume);
            }
            (false, _) => {}
        }
        LockReply::Done
    }
}

#[cfg(test)]
mod tests {
    use wavetank_core::CallId;

    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_only_that_one_gives_it_back() {
        let mut locks = Locks::default();
        let mut ask = |holder: &str, take| {
            locks.handle(&LockRequest {
                call: CallId(1),
                volume: "data".to_owned(),
                holder: holder.to_owned(),
                take,
            })
        };
        assert_eq!(ask("a", true), LockReply::Done);
        assert_eq!(ask("a", true), LockReply::Done);
        assert_eq!(ask("b", true), LockReply::Held);
        assert_eq!(ask("b", false), LockReply::Done);
        assert_eq!(ask("b", true), LockReply::Held);
        assert_eq!(ask("a", false), LockReply::Done);
        assert_eq!(ask("b", true), LockReply::Done);
    }
}
