//! Which links are cut or slow, from all rules in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wavetank_world::{LinkEffect, LinkRule};

/// The state of all links, by ordered pairs of places. What is not in here is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Nothing gets through.
    pub cut: BTreeSet<(u32, u32)>,
    /// Everything takes this much longer.
    pub slow: BTreeMap<(u32, u32), Duration>,
}

impl Links {
    /// What `rules` make of the links among `hosts`, of which `dark` ones have no power.
    pub fn of(rules: &[LinkRule], dark: &BTreeSet<u32>, hosts: u32) -> Self {
        let mut links = Links::default();
        for from in 0..hosts {
            for to in (0..hosts).filter(|to| *to != from) {
                if dark.contains(&from) || dark.contains(&to) {
                    links.cut.insert((from, to));
                }
                let matching = rules.iter().filter(|rule| rule.selection.matches(from, to));
                for rule in matching {
                    links.meet((from, to), &rule.effect);
                }
            }
        }
        links
    }

    fn meet(&mut self, pair: (u32, u32), effect: &LinkEffect) {
        match effect {
            LinkEffect::Cut | LinkEffect::Hold => {
                self.cut.insert(pair);
            }
            LinkEffect::Delay(by) => {
                let slow = self.slow.entry(pair).or_default();
                *slow = (*slow).max(by.max);
            }
            // What a stream hides from its ends, or the simulators cannot do.
            LinkEffect::Loss(_)
            | LinkEffect::Duplicate(_)
            | LinkEffect::Reorder(..)
            | LinkEffect::Corrupt(_)
            | LinkEffect::Bandwidth(_) => {}
        }
    }
}

/// The cuts in force, for those who are about to connect.
#[derive(Debug, Default)]
pub struct Cuts {
    cut: Mutex<BTreeSet<(u32, u32)>>,
    changed: tokio::sync::Notify,
}

impl Cuts {
    /// These are in force from now on.
    pub fn set(&self, cut: BTreeSet<(u32, u32)>) {
        *self.cut.lock().unwrap_or_else(PoisonError::into_inner) = cut;
        self.changed.notify_waiters();
    }

    /// Whether nothing gets from one host to another.
    pub fn is_cut(&self, from: u32, to: u32) -> bool {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.contains(&(from, to))
    }

    /// Comes back as soon as two hosts can reach each other. Simulators refuse a connection
    /// across a cut at once, where a real network answers nothing.
    pub async fn passable(&self, one: u32, other: u32) {
        loop {
            let changed = self.changed.notified();
            if !self.is_cut(one, other) && !self.is_cut(other, one) {
                return;
            }
            changed.await;
        }
    }
}
