//! Who reaches whom, and when. Messages between two nodes arrive in the order they were sent, as on
//! one TCP connection, unless a rule says otherwise. A message that a cut or a loss rule takes is
//! gone: what TCP would send again after a heal is left to the nodes' own retries, which is
//! harsher.

use std::collections::BTreeSet;
use std::time::Duration;

use wavetank_scenario::plan::Range;
use wavetank_trace::VirtualTime;

use crate::random::{Stream, nanos};

/// Which messages a rule applies to, by dense host index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// To or from any of these hosts (also among them).
    Touching(BTreeSet<u32>),
    /// Between these hosts and all others, in these directions: `(out of the set, into it)`.
    Border(BTreeSet<u32>, bool, bool),
    /// Between members of different groups, in these directions:
    /// `(out of the first group, into the first group)`; other pairs both ways.
    Groups(Vec<BTreeSet<u32>>, bool, bool),
    /// Exactly these ordered pairs.
    Pairs(BTreeSet<(u32, u32)>),
}

impl Selection {
    /// Whether it means messages from one host to another.
    pub fn matches(&self, from: u32, to: u32) -> bool {
        match self {
            Selection::Touching(hosts) => hosts.contains(&from) || hosts.contains(&to),
            Selection::Border(hosts, outward, inward) => {
                match (hosts.contains(&from), hosts.contains(&to)) {
                    (true, false) => *outward,
                    (false, true) => *inward,
                    _ => false,
                }
            }
            Selection::Groups(groups, outward, inward) => {
                let group = |host| groups.iter().position(|group| group.contains(&host));
                match (group(from), group(to)) {
                    (Some(a), Some(b)) if a == b => false,
                    (Some(0), Some(_)) => *outward,
                    (Some(_), Some(0)) => *inward,
                    (Some(_), Some(_)) => true,
                    _ => false,
                }
            }
            Selection::Pairs(pairs) => pairs.contains(&(from, to)),
        }
    }
}

/// What a rule does to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEffect {
    /// Lost.
    Cut,
    /// Takes longer.
    Delay(Range),
    /// Lost with this chance in 100.
    Loss(u32),
    /// Arrives twice with this chance in 100.
    Duplicate(u32),
    /// Takes up to this much longer with this chance in 100, and may be overtaken.
    Reorder(u32, Duration),
    /// Arrives damaged with this chance in 100.
    Corrupt(u32),
    /// Occupies its link for its size over this many bytes a second.
    Bandwidth(u64),
    /// Waits until the rule is gone.
    Hold,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRule {
    /// The fault that made it.
    pub fault: u32,
    /// Which messages.
    pub selection: Selection,
    /// What happens to them.
    pub effect: LinkEffect,
}

/// What becomes of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrives; empty if it is lost, two times if it is duplicated.
    pub arrivals: [Option<VirtualTime>; 2],
    /// It arrives damaged.
    pub corrupt: bool,
    /// It waits until this fault heals.
    pub held_by: Option<u32>,
    /// Faults that had a part in it.
    pub hit: Vec<u32>,
}

/// All links.
#[derive(Clone, Debug)]
pub struct Network {
    latency: Range,
    rules: Vec<LinkRule>,
    /// Last arrival per receiver, by sender: keeps each pair in order.
    last: Vec<Vec<VirtualTime>>,
    streams: Vec<Stream>,
}

impl Network {
    /// Links between `hosts` hosts. `peers(host)` says up to which index a host sends, which
    /// bounds the memory: agents send to managers only.
    pub fn new(latency: Range, streams: Vec<Stream>, peers: impl Fn(usize) -> usize) -> Self {
        let last = (0..streams.len())
            .map(|host| vec![VirtualTime::ZERO; peers(host)])
            .collect();
        Network {
            latency,
            rules: Vec::new(),
            last,
            streams,
        }
    }

    /// A rule comes into force.
    pub fn add_rule(&mut self, rule: LinkRule) {
        self.rules.push(rule);
    }

    /// All rules of a fault are gone.
    pub fn remove_rules(&mut self, fault: u32) {
        self.rules.retain(|rule| rule.fault != fault);
    }

    /// True if nothing can pass from one host to another now.
    pub fn is_cut(&self, from: u32, to: u32) -> bool {
        self.rules.iter().any(|rule| {
            matches!(rule.effect, LinkEffect::Cut | LinkEffect::Hold)
                && rule.selection.matches(from, to)
        })
    }

    /// Has `from` ever sent to `to`?
    pub fn has_sent(&self, from: u32, to: u32) -> bool {
        self.slot(from, to)
            .is_some_and(|last| *last > VirtualTime::ZERO)
    }

    fn slot(&self, from: u32, to: u32) -> Option<&VirtualTime> {
        self.last.get(from as usize)?.get(to as usize)
    }

    /// Decides what becomes of a message of about `bytes` bytes that is sent now.
    pub fn route(&mut self, now: VirtualTime, from: u32, to: u32, bytes: u64) -> Delivery {
        let Some(stream) = self.streams.get_mut(from as usize) else {
            return Delivery::default();
        };
        let mut journey = Journey {
            delay: stream.nanos(self.latency),
            delivery: Delivery::default(),
            in_order: true,
            lost: false,
            duplicate: false,
        };
        if !self.rules.is_empty() {
            for rule in &self.rules {
                if rule.selection.matches(from, to) {
                    journey.meet(rule, stream, bytes);
                }
            }
        }
        self.arrive(now, from, to, journey)
    }

    fn arrive(&mut self, now: VirtualTime, from: u32, to: u32, journey: Journey) -> Delivery {
        let mut delivery = journey.delivery;
        if journey.lost || delivery.held_by.is_some() {
            return delivery;
        }
        let mut at = VirtualTime(now.0.saturating_add(journey.delay));
        let slot = self
            .last
            .get_mut(from as usize)
            .and_then(|row| row.get_mut(to as usize));
        if let (true, Some(last)) = (journey.in_order, slot) {
            // One nanosecond apart, so that equal times cannot swap two messages.
            at = at.max(VirtualTime(last.0 + 1));
            *last = at;
        }
        delivery.arrivals[0] = Some(at);
        if journey.duplicate {
            let stream = &mut self.streams[from as usize];
            delivery.arrivals[1] = Some(VirtualTime(at.0 + 1 + stream.nanos(self.latency)));
        }
        delivery
    }
}

/// One message on its way past the rules.
struct Journey {
    delay: u64,
    delivery: Delivery,
    in_order: bool,
    lost: bool,
    duplicate: bool,
}

impl Journey {
    fn meet(&mut self, rule: &LinkRule, stream: &mut Stream, bytes: u64) {
        let hit = match &rule.effect {
            LinkEffect::Cut => {
                self.lost = true;
                true
            }
            LinkEffect::Delay(by) => {
                self.delay += stream.nanos(*by);
                true
            }
            LinkEffect::Loss(percent) => {
                let lost = stream.chance(*percent);
                self.lost |= lost;
                lost
            }
            LinkEffect::Duplicate(percent) => {
                let twice = stream.chance(*percent);
                self.duplicate |= twice;
                twice
            }
            LinkEffect::Reorder(percent, by) => {
                let late = stream.chance(*percent);
                if late {
                    self.in_order = false;
                    self.delay += stream.below(nanos(*by) + 1);
                }
                late
            }
            LinkEffect::Corrupt(percent) => {
                let damaged = stream.chance(*percent);
                self.delivery.corrupt |= damaged;
                damaged
            }
            LinkEffect::Bandwidth(rate) => {
                self.delay += bytes.saturating_mul(1_000_000_000) / (*rate).max(1);
                true
            }
            LinkEffect::Hold => {
                self.delivery.held_by = Some(rule.fault);
                true
            }
        };
        if hit {
            self.delivery.hit.push(rule.fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let latency = Range {
            min: Duration::from_micros(200),
            max: Duration::from_millis(2),
        };
        let streams = (0..4)
            .map(|n| Stream::new(3, &format!("host-{n}"), "network"))
            .collect();
        Network::new(latency, streams, |_| 4)
    }

    fn rule(selection: Selection, effect: LinkEffect) -> LinkRule {
        LinkRule {
            fault: 0,
            selection,
            effect,
        }
    }

    fn set(hosts: &[u32]) -> BTreeSet<u32> {
        hosts.iter().copied().collect()
    }

    fn arrives(network: &mut Network, from: u32, to: u32) -> bool {
        network.route(VirtualTime(5), from, to, 100).arrivals[0].is_some()
    }

    #[test]
    fn messages_of_a_pair_keep_their_order() {
        let mut network = network();
        let mut last = VirtualTime::ZERO;
        for now in 0..500 {
            let delivery = network.route(VirtualTime(now), 0, 1, 100);
            let at = delivery.arrivals[0].unwrap_or_default();
            assert!(at > last);
            last = at;
        }
    }

    #[test]
    fn a_border_cut_can_be_one_way() {
        let mut network = network();
        network.add_rule(rule(
            Selection::Border(set(&[1]), true, false),
            LinkEffect::Cut,
        ));
        assert!(!arrives(&mut network, 1, 0));
        assert!(arrives(&mut network, 0, 1));
        assert!(arrives(&mut network, 0, 2));
        network.remove_rules(0);
        assert!(arrives(&mut network, 1, 0));
    }

    #[test]
    fn groups_reach_only_themselves_and_hosts_in_no_group() {
        let mut network = network();
        let groups = Selection::Groups(vec![set(&[0]), set(&[1, 2])], true, true);
        network.add_rule(rule(groups, LinkEffect::Cut));
        assert!(!arrives(&mut network, 0, 1));
        assert!(!arrives(&mut network, 2, 0));
        assert!(arrives(&mut network, 1, 2));
        assert!(arrives(&mut network, 3, 0));
    }

    #[test]
    fn a_hold_keeps_the_message_and_a_duplicate_brings_it_twice() {
        let mut network = network();
        network.add_rule(rule(
            Selection::Touching(set(&[0])),
            LinkEffect::Duplicate(100),
        ));
        let delivery = network.route(VirtualTime(5), 0, 1, 100);
        assert!(delivery.arrivals[1] > delivery.arrivals[0]);
        network.add_rule(rule(Selection::Touching(set(&[0])), LinkEffect::Hold));
        let delivery = network.route(VirtualTime(5), 0, 1, 100);
        assert_eq!(
            (delivery.arrivals, delivery.held_by),
            ([None, None], Some(0))
        );
    }

    #[test]
    fn bandwidth_delays_by_size() {
        let mut network = network();
        network.add_rule(rule(
            Selection::Touching(set(&[0])),
            LinkEffect::Bandwidth(1_000),
        ));
        let at = network.route(VirtualTime(0), 0, 1, 2_000).arrivals[0].unwrap_or_default();
        assert!(at.as_duration() >= Duration::from_secs(2));
    }
}
