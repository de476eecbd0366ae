//! What is wrong with the network, as one state that is made true. Packets are dropped at the
//! switch, so nobody is told: no reset, no error from a sender's own kernel. All cuts and losses
//! are one table of rules that is replaced as a whole; rates and delays are queues at both ends of
//! a host's link, or a link that delays where the kernel has no such queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::error::RoomError;
use super::layout::{Host, Layout, UPLINK, namespace_path};
use super::switch::{self, HOST_LINK};
use super::tool;
use super::wire::Wire;

/// Everything that is wrong; the default is nothing. Hosts are named, and [`UPLINK`] is the
/// harness's own side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// No packet from the first arrives at the second, on connections old and new.
    pub cuts: BTreeSet<(String, String)>,
    /// Each packet to or from the host is lost with this chance, in percent.
    pub loss_percent: BTreeMap<String, u8>,
    /// The host's link carries this many bytes in a second, each way.
    pub bytes_per_second_max: BTreeMap<String, u64>,
    /// Each packet to or from the host is held back for so long.
    pub delay: BTreeMap<String, Duration>,
    /// The host's link is unplugged.
    pub dark: BTreeSet<String>,
}

/// Which faults of links this machine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Packets can be lost by chance.
    pub loss: bool,
    /// A link can be made slow.
    pub bandwidth: bool,
    /// Packets can be delayed.
    pub delay: bool,
}

/// What is in force, to know what must change.
#[derive(Debug)]
pub(crate) struct Network {
    capabilities: Capabilities,
    /// The kernel has queues that delay.
    has_netem: bool,
    wanted: NetworkState,
    off: BTreeSet<String>,
    /// The table of rules as it is.
    rules: Option<String>,
    /// Queues by host.
    queues: BTreeMap<String, Queue>,
    /// Links that delay, by host.
    wires: BTreeMap<String, Wire>,
    /// Hosts whose links are down.
    down: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Queue {
    bytes_per_second_max: Option<u64>,
    delay: Option<Duration>,
}

impl Network {
    /// Of a room that was just made, in which nothing is wrong.
    pub(crate) fn new(layout: &Layout) -> Result<Self, RoomError> {
        let has_netem = can_queue(layout, "netem delay 1ms");
        let mut network = Network {
            capabilities: detect(layout, has_netem),
            has_netem,
            wanted: NetworkState::default(),
            off: BTreeSet::new(),
            rules: None,
            queues: BTreeMap::new(),
            wires: BTreeMap::new(),
            down: BTreeSet::new(),
        };
        // Takes back what was tried, and shows that hosts can be cut at all.
        network.apply(layout)?;
        Ok(network)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Makes this and nothing else be wrong. After an error anything between before and this may be
    /// in force; the next call sets it right.
    pub(crate) fn set(&mut self, layout: &Layout, state: &NetworkState) -> Result<(), RoomError> {
        check(layout, state, self.capabilities)?;
        self.wanted = state.clone();
        self.apply(layout)
    }

    /// Keeps the link of a host down, or no longer, whatever else is wrong. Says whether that is
    /// new.
    pub(crate) fn set_power(
        &mut self,
        layout: &Layout,
        host: &Host,
        is_on: bool,
    ) -> Result<bool, RoomError> {
        let is_new = match is_on {
            true => self.off.remove(&host.name),
            false => self.off.insert(host.name.clone()),
        };
        let applied = self.apply(layout);
        if applied.is_err() && is_on && is_new {
            // Who tries again is to find it as it was.
            self.off.insert(host.name.clone());
        }
        applied.map(|()| is_new)
    }

    /// Says whether a host has power.
    pub(crate) fn has_power(&self, host: &str) -> bool {
        !self.off.contains(host)
    }

    fn apply(&mut self, layout: &Layout) -> Result<(), RoomError> {
        for host in layout.hosts() {
            self.apply_link(layout, &host)?;
            self.apply_wire(layout, &host)?;
            self.apply_queue(layout, &host)?;
        }
        let rules = rules(layout, &self.wanted)?;
        if self.rules.as_ref() != Some(&rules) {
            self.rules = None;
            let switch = namespace_path(&layout.switch());
            tool::run_within(&switch, "iptables-restore", &rules)?;
            self.rules = Some(rules);
        }
        Ok(())
    }

    fn apply_link(&mut self, layout: &Layout, host: &Host) -> Result<(), RoomError> {
        let is_down = self.wanted.dark.contains(&host.name) || self.off.contains(&host.name);
        if is_down == self.down.contains(&host.name) {
            return Ok(());
        }
        let (namespace, port) = (layout.switch(), host.port());
        let way = if is_down { "down" } else { "up" };
        tool::run(&format!("ip -netns {namespace} link set dev {port} {way}"))?;
        match is_down {
            true => self.down.insert(host.name.clone()),
            false => {
                switch::wait_until_up(layout, host)?;
                self.down.remove(&host.name)
            }
        };
        Ok(())
    }

    /// Where the kernel has no queue that delays.
    fn apply_wire(&mut self, layout: &Layout, host: &Host) -> Result<(), RoomError> {
        let delay = self
            .wanted
            .delay
            .get(&host.name)
            .filter(|_| !self.has_netem);
        match (delay, self.wires.get_mut(&host.name)) {
            (None, None) => {}
            (None, Some(wire)) => {
                wire.remove(layout, host)?;
                self.wires.remove(&host.name);
            }
            (Some(delay), Some(wire)) => wire.set(*delay),
            (Some(delay), None) => {
                let wire = Wire::insert(layout, host, *delay)?;
                self.wires.insert(host.name.clone(), wire);
            }
        }
        Ok(())
    }

    fn apply_queue(&mut self, layout: &Layout, host: &Host) -> Result<(), RoomError> {
        let wanted = Queue {
            bytes_per_second_max: self.wanted.bytes_per_second_max.get(&host.name).copied(),
            delay: self
                .wanted
                .delay
                .get(&host.name)
                .copied()
                .filter(|_| self.has_netem),
        };
        let now = self.queues.get(&host.name).copied().unwrap_or_default();
        if wanted == now {
            return Ok(());
        }
        let switch = layout.switch();
        let port = host.port();
        for (namespace, link) in [(&switch, port.as_str()), (&host.namespace, HOST_LINK)] {
            let place = format!("dev {link} root");
            let line = match wanted.command() {
                Some(queue) => format!("tc -netns {namespace} qdisc replace {place} {queue}"),
                None => format!("tc -netns {namespace} qdisc delete {place}"),
            };
            match tool::run(&line) {
                // An earlier failure may have left one end without a queue.
                Err(_) if wanted == Queue::default() => {}
                other => drop(other?),
            }
        }
        self.queues.insert(host.name.clone(), wanted);
        Ok(())
    }
}

impl Queue {
    /// As `tc` wants it; `None` is the kernel's default.
    fn command(self) -> Option<String> {
        let bits = self
            .bytes_per_second_max
            .map(|it| it.max(1).saturating_mul(8));
        match (self.delay, bits) {
            (None, None) => None,
            (None, Some(bits)) => {
                // A twentieth of a second, but no less than a full packet.
                let burst = (bits / 8 / 20).max(4_000);
                Some(format!("tbf rate {bits}bit burst {burst}b latency 400ms"))
            }
            (Some(delay), bits) => {
                let rate = bits.map(|it| format!(" rate {it}bit")).unwrap_or_default();
                let delay = delay.as_micros();
                // Its default of a thousand packets would lose some of a fast stream.
                Some(format!("netem delay {delay}us limit 100000{rate}"))
            }
        }
    }
}

/// The switch's whole table. Its text is the same for the same state.
fn rules(layout: &Layout, state: &NetworkState) -> Result<String, RoomError> {
    let mut rules = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n".to_owned();
    let mut add = |rule: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(rules, "-A FORWARD {rule} -j DROP");
    };
    for (from, to) in &state.cuts {
        let (from, to) = (address(layout, from)?, address(layout, to)?);
        add(format_args!("-s {from} -d {to}"));
    }
    for (host, percent) in &state.loss_percent {
        let host = address(layout, host)?;
        let chance = format!("-m statistic --mode random --probability {:.2}", {
            f64::from(*percent) / 100.0
        });
        add(format_args!("-s {host} {chance}"));
        add(format_args!("-d {host} {chance}"));
    }
    rules.push_str("COMMIT\n");
    Ok(rules)
}

fn address(layout: &Layout, name: &str) -> Result<Ipv4Addr, RoomError> {
    match name {
        UPLINK => Ok(layout.uplink()),
        _ => layout.host(name).map(|it| it.address),
    }
}

/// Refuses what cannot be made true, before any of it is.
fn check(layout: &Layout, state: &NetworkState, can: Capabilities) -> Result<(), RoomError> {
    let cut = state.cuts.iter().flat_map(|(from, to)| [from, to]);
    for name in cut.chain(state.loss_percent.keys()) {
        address(layout, name)?;
    }
    let slow = state.bytes_per_second_max.keys().chain(state.delay.keys());
    for name in slow.chain(&state.dark) {
        layout.host(name)?;
    }
    if let Some((host, percent)) = state.loss_percent.iter().find(|(_, it)| **it > 100) {
        return Err(RoomError::Invalid {
            what: format!("{host} cannot lose {percent} % of its packets"),
            hint: "use 0 to 100".to_owned(),
        });
    }
    let needs = [
        (
            !state.loss_percent.is_empty(),
            can.loss,
            "loss of packets",
            "xt_statistic",
        ),
        (
            !state.bytes_per_second_max.is_empty(),
            can.bandwidth,
            "slowness of links",
            "sch_tbf",
        ),
        (
            !state.delay.is_empty(),
            can.delay,
            "delay of packets",
            "sch_netem and tun",
        ),
    ];
    for (is_wanted, is_there, what, module) in needs {
        if is_wanted && !is_there {
            return Err(RoomError::Unsupported {
                what: what.to_owned(),
                hint: format!("the kernel lacks {module}"),
            });
        }
    }
    Ok(())
}

/// Tries each where it does no harm: on the switch, before anybody uses it.
fn detect(layout: &Layout, has_netem: bool) -> Capabilities {
    let switch = namespace_path(&layout.switch());
    let rule = "*filter\n-A INPUT -m statistic --mode random --probability 0.5 -j DROP\nCOMMIT\n";
    Capabilities {
        loss: tool::run_within(&switch, "iptables-restore", rule).is_ok(),
        bandwidth: can_queue(layout, "tbf rate 8mbit burst 4000b latency 400ms"),
        delay: has_netem || Wire::is_possible(layout),
    }
}

/// Whether the kernel has such queues.
fn can_queue(layout: &Layout, kind: &str) -> bool {
    let switch = layout.switch();
    let replace = format!("tc -netns {switch} qdisc replace dev lo root {kind}");
    let works = tool::run(&replace).is_ok();
    // It can fail only if there is nothing to delete.
    let _ = tool::run(&format!("tc -netns {switch} qdisc delete dev lo root"));
    works
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Queue;

    #[test]
    fn a_queue_is_what_tc_calls_it() {
        let queue = |rate, delay| Queue {
            bytes_per_second_max: rate,
            delay,
        };
        let delay = Some(Duration::from_millis(20));
        assert_eq!(queue(None, None).command(), None);
        assert_eq!(
            queue(Some(1_000_000), None).command().unwrap(),
            "tbf rate 8000000bit burst 50000b latency 400ms"
        );
        assert_eq!(
            queue(Some(1_000_000), delay).command().unwrap(),
            "netem delay 20000us limit 100000 rate 8000000bit"
        );
        // Nothing is too slow or too fast for it to be a command.
        assert!(queue(Some(0), None).command().unwrap().contains("8bit"));
        assert!(queue(Some(u64::MAX), None).command().is_some());
    }
}
