//! The network of a room: a switch in a network namespace of its own, a link from it to each host's
//! namespace, and one link to where the harness is. The machine's own network gains that one link
//! and its address, nothing else: no rule, no route beyond the room, no setting.

use std::path::Path;
use std::time::Duration;

use wavetank_fixtures::daemon::network_namespace;

use super::error::RoomError;
use super::layout::{Host, Layout, namespace_path};
use super::removal::Step;
use super::tool::{self, unable};

/// How a host sees its link.
pub(crate) const HOST_LINK: &str = "eth0";
/// The switch's end of the link to the harness.
const SWITCH_UPLINK: &str = "uplink";
/// The bridge.
pub(crate) const BRIDGE: &str = "switch";
/// How often one looks whether a link is up, and how long one waits in between.
const ROUNDS_MAX: u32 = 500;
const ROUND_PAUSE: Duration = Duration::from_millis(10);
/// Makes the packet filter see what any bridge passes on, in the namespace that reads it.
const FILTERED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// Filters would have to be written twice if there were IPv6 as well.
const WITHOUT_IPV6: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Makes all of it. What was made before an error is left to whoever holds the layout.
pub(crate) fn create(layout: &Layout) -> Result<(), RoomError> {
    for name in layout.namespaces() {
        tool::run(&format!("ip netns add {name}"))?;
        without_ipv6(&namespace_path(&name))?;
    }
    filtered(&namespace_path(&layout.switch()))?;
    tool::run_with_input("ip -batch -", &uplink_commands(layout))?;
    let switch = format!("ip -netns {} -batch -", layout.switch());
    tool::run_with_input(&switch, &switch_commands(layout))?;
    for host in layout.hosts() {
        let line = format!("ip -netns {} -batch -", host.namespace);
        tool::run_with_input(&line, &host_commands(&host))?;
    }
    layout.hosts().try_for_each(|it| wait_until_up(layout, &it))
}

/// Waits until a host's link carries what is sent: the kernel sees to that some time after it was
/// plugged in, and until then drops it.
pub(crate) fn wait_until_up(layout: &Layout, host: &Host) -> Result<(), RoomError> {
    let (switch, port) = (layout.switch(), host.port());
    let lines = [
        format!("ip -netns {switch} -details -oneline link show dev {port}"),
        format!(
            "ip -netns {} -oneline link show dev {HOST_LINK}",
            host.namespace
        ),
    ];
    let mut state = String::new();
    for _ in 0..ROUNDS_MAX {
        let [of_port, of_host] = [tool::run(&lines[0])?, tool::run(&lines[1])?];
        let is_forwarding = of_port.contains(" state forwarding ");
        if is_forwarding
            && [&of_port, &of_host]
                .iter()
                .all(|it| it.contains(" state UP "))
        {
            return Ok(());
        }
        state = of_port + &of_host;
        std::thread::sleep(ROUND_PAUSE);
    }
    Err(RoomError::NotUp {
        host: host.name.clone(),
        state,
    })
}

/// Takes away what there is of it. Namespaces live on while a process is in them.
pub(crate) fn remove(layout: &Layout) -> Result<Step, RoomError> {
    let mut step = Step::default();
    let link = layout.uplink_link();
    if Path::new("/sys/class/net").join(&link).exists() {
        tool::run(&format!("ip link delete {link}"))?;
        step.removed.push(format!("link {link}"));
    }
    for name in layout.namespaces() {
        if namespace_path(&name).exists() {
            tool::run(&format!("ip netns delete {name}"))?;
            step.removed.push(format!("network namespace {name}"));
        }
    }
    Ok(step)
}

fn uplink_commands(layout: &Layout) -> String {
    let (link, switch, address) = (layout.uplink_link(), layout.switch(), layout.uplink());
    format!(
        "link add {link} type veth peer name {SWITCH_UPLINK} netns {switch}\n\
         link set dev {link} addrgenmode none\n\
         address add {address}/24 dev {link}\n\
         link set dev {link} up\n"
    )
}

fn switch_commands(layout: &Layout) -> String {
    let mut commands = format!(
        "link add name {BRIDGE} type bridge nf_call_iptables 1\n\
         link set dev {BRIDGE} up\n\
         link set dev {SWITCH_UPLINK} master {BRIDGE}\n\
         link set dev {SWITCH_UPLINK} up\n"
    );
    for host in layout.hosts() {
        let (port, namespace) = (host.port(), &host.namespace);
        commands.push_str(&format!(
            "link add {port} type veth peer name {HOST_LINK} netns {namespace}\n\
             link set dev {port} master {BRIDGE}\n\
             link set dev {port} up\n"
        ));
    }
    commands
}

fn host_commands(host: &Host) -> String {
    let address = host.address;
    format!(
        "link set dev lo up\n\
         address add {address}/24 dev {HOST_LINK}\n\
         link set dev {HOST_LINK} up\n"
    )
}

fn without_ipv6(namespace: &Path) -> Result<(), RoomError> {
    network_namespace::within(namespace, || {
        match Path::new(WITHOUT_IPV6).exists() {
            true => std::fs::write(WITHOUT_IPV6, "1"),
            // There is none to be turned off.
            false => Ok(()),
        }
    })
    .map_err(RoomError::file("turn off IPv6 in", namespace))
}

fn filtered(switch: &Path) -> Result<(), RoomError> {
    let there = || network_namespace::within(switch, || Ok(Path::new(FILTERED).exists()));
    let unreadable = |source| RoomError::file("enter", switch)(source);
    if !there().map_err(unreadable)? {
        // Loaded on demand where it is a module; where that fails, the next look says so.
        let _ = tool::run("modprobe br_netfilter");
    }
    if !there().map_err(unreadable)? {
        let hint = "load the kernel's module br_netfilter";
        return Err(unable("bridged packets cannot be filtered", hint));
    }
    // The switch says for itself that it is filtered; no packet is to be filtered twice.
    network_namespace::within(switch, || std::fs::write(FILTERED, "0"))
        .map_err(RoomError::file("set packet filters in", switch))
}
