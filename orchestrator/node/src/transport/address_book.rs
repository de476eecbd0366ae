//! Where managers can be dialled: what the configuration says, and what managers say of
//! themselves and of each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavetank_model::{Incarnation, NodeId, NodeRole};

/// No cluster has as many managers, and no host name is as long.
const ENTRIES_MAX: usize = 256;
const ADDRESS_BYTES_MAX: usize = 300;

/// Managers' addresses. A manager that moves starts anew, so the newest boot's address counts,
/// whoever tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressBook {
    entries: BTreeMap<NodeId, Address>,
}

/// Where one manager is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Address {
    /// `host:port`.
    at: String,
    /// Which of its boots said so; zero for an address from a configuration.
    incarnation: Incarnation,
}

impl FromIterator<(NodeId, String)> for AddressBook {
    fn from_iter<I: IntoIterator<Item = (NodeId, String)>>(addresses: I) -> Self {
        let mut book = AddressBook::default();
        for (node, at) in addresses {
            book.learn(node, at, Incarnation(0));
        }
        book
    }
}

impl AddressBook {
    /// Where a manager is, as `host:port`.
    pub fn get(&self, node: NodeId) -> Option<&str> {
        self.entries.get(&node).map(|address| address.at.as_str())
    }

    /// Every manager that is known.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.entries
            .iter()
            .map(|(node, address)| (*node, address.at.as_str()))
    }

    /// Takes over what one boot of a manager says of itself; true if that is news.
    pub(crate) fn learn(&mut self, node: NodeId, at: String, incarnation: Incarnation) -> bool {
        let known = self.entries.get(&node);
        let newer = known.is_none_or(|known| known.incarnation < incarnation);
        let acceptable = node.role == NodeRole::Manager
            && (1..=ADDRESS_BYTES_MAX).contains(&at.len())
            && (known.is_some() || self.entries.len() < ENTRIES_MAX);
        if newer && acceptable {
            self.entries.insert(node, Address { at, incarnation });
        }
        newer && acceptable
    }

    /// Takes over what is newer in another book; true if anything is.
    pub(super) fn merge(&mut self, other: AddressBook) -> bool {
        let mut news = false;
        for (node, address) in other.entries {
            news |= self.learn(node, address.at, address.incarnation);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_boot_of_a_manager_knows_best_where_it_is() {
        let manager = NodeId::manager(1);
        let mut book: AddressBook = [(manager, "old:1".to_owned())].into_iter().collect();
        assert!(book.learn(manager, "new:1".to_owned(), Incarnation(2)));
        assert!(!book.learn(manager, "stale:1".to_owned(), Incarnation(1)));
        let gossip = [(manager, "configured:1".to_owned())].into_iter().collect();
        assert!(!book.merge(gossip));
        assert_eq!(book.get(manager), Some("new:1"));
    }

    #[test]
    fn nobody_fills_the_book() {
        let mut book = AddressBook::default();
        assert!(!book.learn(NodeId::agent(1), "a:1".to_owned(), Incarnation(1)));
        assert!(!book.learn(NodeId::manager(1), String::new(), Incarnation(1)));
        assert!(!book.learn(NodeId::manager(1), "x".repeat(5000), Incarnation(1)));
        for number in 1..2000 {
            book.learn(NodeId::manager(number), "m:1".to_owned(), Incarnation(1));
        }
        assert_eq!(book.iter().count(), ENTRIES_MAX);
    }
}
