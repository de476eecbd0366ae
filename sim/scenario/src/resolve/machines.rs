//! `cluster` and `images`: the machines and what runs on them.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{Backoff, Resources, Timers};

use crate::diagnostic::{Problem, Problems};
use crate::plan::{AgentHost, Cluster, Health, Image, LoadClient, OnTerm, Range};
use crate::profiles::Profile;
use crate::resolve::steps;
use crate::scalars;
use crate::yaml::{Node, Value};

/// Stands in for a mapping that is not there.
static NOTHING: Node = Node {
    span: crate::diagnostic::Span {
        source: 0,
        start: 0,
        end: 0,
    },
    value: Value::Null,
};

const fn us(min: u64, max: u64) -> Range {
    Range {
        min: Duration::from_micros(min),
        max: Duration::from_micros(max),
    }
}

/// The machines, with all defaults.
pub(crate) fn cluster(
    node: Option<&Node>,
    profile: &Profile,
    clients: Vec<LoadClient>,
    problems: &mut Problems,
) -> Cluster {
    let node = node.unwrap_or(&NOTHING);
    let part = |name: &str| node.get(name).unwrap_or(&NOTHING);
    Cluster {
        managers: node.number("managers").unwrap_or(3),
        agents: agents(node.get("agents"), problems),
        clients,
        timers: timers(part("timers"), profile, problems),
        latency: part("network").range("latency").unwrap_or(us(200, 2_000)),
        fsync: part("disk").range("fsync").unwrap_or(us(200, 2_000)),
        runtime_latency: part("runtime")
            .range("latency")
            .unwrap_or(us(5_000, 50_000)),
        event_delay: part("runtime")
            .range("event_delay")
            .unwrap_or(us(1_000, 20_000)),
        runtime_steps: steps::steps(part("runtime").get("steps"), problems),
        restart_delay: node
            .duration("restart_delay")
            .unwrap_or(Duration::from_secs(1)),
        shared_volumes: node
            .words("shared_volumes")
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}

fn agents(node: Option<&Node>, problems: &mut Problems) -> Vec<AgentHost> {
    let Some(node) = node else {
        return vec![agent(&NOTHING, 0); 3];
    };
    if let Some(count) = node.as_number::<u16>() {
        return vec![agent(&NOTHING, 0); count.into()];
    }
    let mut hosts = Vec::new();
    for group in node.one_or_many() {
        let count = group.number::<usize>("count").unwrap_or(1);
        check_label_lists(group, problems);
        hosts.extend((0..count).map(|index| agent(group, index)));
    }
    if hosts.len() > 10_000 {
        let message = format!("{} agents; at most 10000 are simulated", hosts.len());
        problems.add(Problem::error(
            "scenario::invalid-value",
            node.span,
            message,
        ));
    }
    hosts
}

/// The `index`-th of a group: label values are dealt round-robin.
fn agent(group: &Node, index: usize) -> AgentHost {
    let entries = group.get("labels").map(Node::entries).unwrap_or_default();
    let dealt = |entry: &crate::yaml::Entry| {
        let values = entry.value.one_or_many();
        let value = values.get(index.checked_rem(values.len())?)?.text()?;
        Some((entry.key.clone(), value.to_owned()))
    };
    AgentHost {
        resources: Resources {
            cpu_millis: group.cpu_millis("cpus").unwrap_or(4_000),
            memory_bytes: group.size("memory").unwrap_or(8 << 30),
        },
        labels: entries.iter().filter_map(dealt).collect(),
    }
}

fn check_label_lists(group: &Node, problems: &mut Problems) {
    for entry in group.get("labels").map(Node::entries).unwrap_or_default() {
        if matches!(&entry.value.value, Value::List(values) if values.is_empty()) {
            let message = format!("label `{}` has no value to deal", entry.key);
            problems.add(
                Problem::error("scenario::invalid-value", entry.value.span, message)
                    .label("empty list")
                    .help("give at least one value, or leave the label out"),
            );
        }
    }
}

/// The load clients.
pub(crate) fn clients(
    node: Option<&Node>,
    horizon: Duration,
    problems: &mut Problems,
) -> Vec<LoadClient> {
    let Some(node) = node else { return Vec::new() };
    if let Some(count) = node.as_number::<u16>() {
        return vec![client(&NOTHING, horizon); count.into()];
    }
    let mut clients = Vec::new();
    for group in node.one_or_many() {
        let count = group.number::<usize>("count").unwrap_or(1);
        let client = client(group, horizon);
        if client.until <= client.at {
            let span = group.get("until").unwrap_or(group).span;
            let message = "these clients stop before they start";
            problems.add(
                Problem::error("scenario::invalid-value", span, message).label(format!(
                    "from {} to {}",
                    scalars::show(client.at),
                    scalars::show(client.until)
                )),
            );
        }
        clients.extend(vec![client; count]);
    }
    clients
}

fn client(group: &Node, horizon: Duration) -> LoadClient {
    LoadClient {
        at: group.duration("at").unwrap_or(Duration::from_secs(1)),
        until: group.duration("until").unwrap_or(horizon),
        pause: group
            .duration("pause")
            .unwrap_or(Duration::from_millis(500)),
        keys: group.number("keys").unwrap_or(5),
        reads_percent: group.number("reads").unwrap_or(50),
    }
}

fn timers(node: &Node, profile: &Profile, problems: &mut Problems) -> Timers {
    let base = &profile.timers;
    let time = |key: &str, default: Duration| node.duration(key).unwrap_or(default);
    let attempts = node.get("pull_attempts_max").map(Node::as_number);
    let timers = Timers {
        heartbeat: time("heartbeat", base.heartbeat),
        node_down_after: time("node_down_after", base.node_down_after),
        down_check: time("down_check", base.down_check),
        failover_grace: time("failover_grace", base.failover_grace),
        session_timeout: time("session_timeout", base.session_timeout),
        request_retry: time("request_retry", base.request_retry),
        raft_heartbeat: time("raft_heartbeat", base.raft_heartbeat),
        raft_election: time("raft_election", base.raft_election),
        snapshot_every: node.number("snapshot_every").unwrap_or(base.snapshot_every),
        reconcile: time("reconcile", base.reconcile),
        status_poll: time("status_poll", base.status_poll),
        runtime_timeout: time("runtime_timeout", base.runtime_timeout),
        pull_timeout: time("pull_timeout", base.pull_timeout),
        pull_backoff: backoff(node.get("pull_backoff"), base.pull_backoff, problems),
        pull_attempts_max: attempts.unwrap_or(base.pull_attempts_max),
        replace_backoff: backoff(node.get("replace_backoff"), base.replace_backoff, problems),
        history_max: node.number("history_max").unwrap_or(base.history_max),
    };
    check_timers(node, &timers, problems);
    timers
}

/// A backoff whose missing fields come from `base`.
pub(crate) fn backoff(node: Option<&Node>, base: Backoff, problems: &mut Problems) -> Backoff {
    let Some(node) = node else { return base };
    let first = node.duration("base").unwrap_or(base.base);
    // A longer first wait than the inherited cap says that the cap is meant to be longer too.
    let cap = node.duration("cap").unwrap_or(base.cap.max(first));
    if cap < first {
        let message = "the longest wait is shorter than the first";
        problems.add(
            Problem::error("scenario::invalid-value", node.span, message).label(format!(
                "base {}, cap {}",
                scalars::show(first),
                scalars::show(cap)
            )),
        );
    }
    Backoff { base: first, cap }
}

/// A zero would spin for ever in no virtual time; an election faster than its heartbeats never
/// ends.
fn check_timers(node: &Node, timers: &Timers, problems: &mut Problems) {
    for entry in node.entries() {
        let zero = node.duration(&entry.key) == Some(Duration::ZERO);
        if zero && entry.key != "failover_grace" {
            let message = format!("`{}` is zero", entry.key);
            problems.add(Problem::error(
                "scenario::invalid-value",
                entry.value.span,
                message,
            ));
        }
    }
    let at = |key: &str| node.get(key).unwrap_or(node).span;
    if timers.raft_election < timers.raft_heartbeat * 2 {
        let message = "`raft_election` is shorter than two heartbeats";
        problems.add(
            Problem::error("scenario::invalid-value", at("raft_election"), message).label(format!(
                "election {}, heartbeat {}",
                scalars::show(timers.raft_election),
                scalars::show(timers.raft_heartbeat)
            )),
        );
    }
    if timers.node_down_after <= timers.heartbeat {
        let message = "agents count as down before their next heartbeat";
        problems.add(
            Problem::warning(
                "scenario::lint::hasty-timers",
                at("node_down_after"),
                message,
            )
            .label(format!(
                "heartbeat {}, node_down_after {}",
                scalars::show(timers.heartbeat),
                scalars::show(timers.node_down_after)
            )),
        );
    }
}

/// The images by name.
pub(crate) fn images(node: Option<&Node>, problems: &mut Problems) -> BTreeMap<String, Image> {
    let entries = node.map(Node::entries).unwrap_or_default();
    entries
        .iter()
        .map(|entry| (entry.key.clone(), image(&entry.value, problems)))
        .collect()
}

fn image(node: &Node, problems: &mut Problems) -> Image {
    if let (Some(run), Some(run_for)) = (node.entry("run"), node.entry("run_for"))
        && node.range("run_for").is_some()
    {
        problems.add(
            Problem::error(
                "scenario::conflict",
                run_for.key_span,
                "`run` and `run_for` exclude each other",
            )
            .label("this ends it")
            .also(run.key_span, "this does not"),
        );
    }
    let pull = node.get("pull").unwrap_or(&NOTHING);
    Image {
        run_for: node.range("run_for"),
        exit_code: node.number("exit_code").unwrap_or(0),
        on_term: on_term(node.get("stop"), problems),
        health: health(node.get("health")),
        pull_bytes: pull.size("size").unwrap_or(16 << 20),
        exists: pull.flag("exists").unwrap_or(true),
        memory_bytes: node.size("memory").unwrap_or(32 << 20),
    }
}

fn on_term(node: Option<&Node>, problems: &mut Problems) -> OnTerm {
    let node = node.unwrap_or(&NOTHING);
    if node.word("on_term") != Some("ignores") {
        let after = node.duration("after").unwrap_or(Duration::from_millis(100));
        return OnTerm::Exits {
            after,
            code: node.number("code"),
        };
    }
    for key in ["after", "code"] {
        if let Some(entry) = node.entry(key) {
            let message = format!("a process that ignores SIGTERM has no `{key}`");
            problems.add(Problem::error(
                "scenario::conflict",
                entry.key_span,
                message,
            ));
        }
    }
    OnTerm::Ignores
}

fn health(node: Option<&Node>) -> Health {
    match node {
        Some(node) if node.text() == Some("never") => Health::Never,
        Some(node) => node.duration("after").map_or(Health::Ok, Health::After),
        None => Health::Ok,
    }
}
