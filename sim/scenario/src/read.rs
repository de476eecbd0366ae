//! Values out of a checked tree. A field that is absent or was found unfit reads as `None`: what is
//! wrong with it has been said already, and reading goes on to find what else is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Range;
use crate::scalars;
use crate::yaml::Node;

impl Node {
    /// The text of a field.
    pub fn word(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// The texts of a field that holds one or many.
    pub fn words(&self, key: &str) -> Vec<&str> {
        let items = self.get(key).map(Node::one_or_many).unwrap_or_default();
        items.iter().filter_map(Node::text).collect()
    }

    /// The texts of a mapping.
    pub fn pairs(&self, key: &str) -> BTreeMap<String, String> {
        let entries = self.get(key).map(Node::entries).unwrap_or_default();
        let pair =
            |entry: &crate::yaml::Entry| Some((entry.key.clone(), entry.value.text()?.to_owned()));
        entries.iter().filter_map(pair).collect()
    }

    /// A duration.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        scalars::duration(self.word(key)?).ok()
    }

    /// A range of durations.
    pub fn range(&self, key: &str) -> Option<Range> {
        scalars::range(self.word(key)?).ok()
    }

    /// A number of bytes.
    pub fn size(&self, key: &str) -> Option<u64> {
        scalars::size(self.word(key)?).ok()
    }

    /// Cores in thousandths.
    pub fn cpu_millis(&self, key: &str) -> Option<u32> {
        scalars::cpu_millis(self.word(key)?).ok()
    }

    /// A whole number, of whatever width is wanted.
    pub fn number<N: TryFrom<i128>>(&self, key: &str) -> Option<N> {
        self.get(key)?.as_number()
    }

    /// This value as a whole number.
    pub fn as_number<N: TryFrom<i128>>(&self) -> Option<N> {
        N::try_from(scalars::integer(self.text()?).ok()?).ok()
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.word(key)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}
