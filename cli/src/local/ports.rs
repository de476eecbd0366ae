//! Ports for the nodes of a cluster on this machine.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

/// Where Linux says which ports it gives to connections that go out.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Below are the ports of well-known services.
const FIRST: u16 = 10_000;
/// What Linux gives to outgoing connections unless it is told otherwise begins here.
const USUAL_END: u16 = 32_768;

/// How many ports this process has tried.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// Free ports on loopback, none twice in the life of this process. They are held together until
/// all are found; whoever takes one before the node does makes the node say so.
///
/// They are none of those that the machine gives to outgoing connections: a node that was killed
/// has to find its port free when it comes back, whatever was connected meanwhile.
pub fn free_ports<const N: usize>() -> anyhow::Result<[String; N]> {
    let range = usable(&std::fs::read_to_string(OUTGOING).unwrap_or_default());
    let mut held = Vec::with_capacity(N);
    for _ in 0..N {
        held.push(listen(&range).context("no port is free on loopback")?);
    }
    let mut addresses = Vec::with_capacity(N);
    for listener in &held {
        addresses.push(listener.local_addr()?.to_string());
    }
    addresses
        .try_into()
        .map_err(|_| anyhow::anyhow!("as many as there are listeners"))
}

/// Ports that nobody gets without asking. If nearly all are given out, every one is as good.
fn usable(outgoing: &str) -> Range<u16> {
    let first = outgoing.split_whitespace().next();
    let end = first.and_then(|first| first.parse().ok());
    match end.unwrap_or(USUAL_END) {
        end if end > FIRST + 1000 => FIRST..end,
        _ => FIRST..u16::MAX,
    }
}

/// Processes begin at different ports, so that two clusters that start together rarely meet.
fn listen(range: &Range<u16>) -> std::io::Result<TcpListener> {
    let mut last = std::io::ErrorKind::AddrInUse.into();
    let width = u32::from(range.end - range.start);
    for _ in 0..width {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let step = std::process::id().wrapping_mul(331).wrapping_add(tried) % width;
        let port = u32::from(range.start) + step;
        let port = u16::try_from(port).unwrap_or(range.start);
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_none_of_those_for_outgoing_connections() {
        let found: [String; 20] = free_ports().unwrap();
        let outgoing = std::fs::read_to_string(OUTGOING).unwrap_or_default();
        let range = usable(&outgoing);
        let mut ports: Vec<u16> = found
            .iter()
            .map(|at| at.strip_prefix("127.0.0.1:").unwrap().parse().unwrap())
            .collect();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn the_kernel_says_where_outgoing_ports_begin() {
        assert_eq!(usable("32768\t60999\n"), 10_000..32_768);
        assert_eq!(usable("20000 60999"), 10_000..20_000);
        assert_eq!(usable("1024 65535"), 10_000..u16::MAX);
        assert_eq!(usable(""), 10_000..USUAL_END);
    }
}
