//! `wavetank bench --shell`: what a cluster of real nodes on this machine costs, idle and busy.
//!
//! Busy means eight clients, each of which writes one key after the other without a pause, and an
//! operator who changes one of ten services four times a second: it is deployed, then scaled up and
//! down. The clients live in this process, whose cost is not measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::task::JoinSet;
use wavetank_model::{Operation, Outcome, ServiceSpec};
use wavetank_node::api::manifest::ServiceManifest;
use wavetank_reports::shell::{self, RoleCost, ShellRow};
use wavetank_reports::{exit_code, json as lines};

use crate::failure::Failure;
use crate::local::client::Client;
use crate::local::start::{Shape, Started, start};
use crate::local::usage::Usage;
use crate::output::{self, ListFormat};
use crate::runtimes::{RuntimeName, block_on_real_time};

const WRITERS: u64 = 8;
/// Keys of each writer.
const KEYS: u64 = 64;
const VALUE_BYTES: usize = 100;
const SERVICES: u64 = 10;
const REPLICAS: [u32; 2] = [2, 8];
const CHANGE_EVERY: Duration = Duration::from_millis(250);
/// What a start leaves behind, or a change of the load, is over by then.
const WARM_UP: Duration = Duration::from_secs(3);

/// What is to be measured.
pub struct Request<'a> {
    /// Managers of every cluster.
    pub managers: u32,
    /// Agents of each cluster.
    pub agents: &'a [u32],
    /// How long each load is measured.
    pub seconds: u64,
    /// How to print it.
    pub format: ListFormat,
}

/// Measures every cluster. Whatever happens, its nodes end.
pub fn run(request: &Request<'_>) -> Result<u8, Failure> {
    let managers_fit = (1..=9).contains(&request.managers);
    if !managers_fit
        || !request
            .agents
            .iter()
            .all(|agents| (1..=100).contains(agents))
    {
        let why = "a measured cluster has 1 to 9 managers and 1 to 100 agents";
        return Err(Failure::Usage(why.to_owned()));
    }
    let rows = block_on_real_time(async {
        let mut rows = Vec::new();
        for agents in request.agents {
            rows.extend(measure(request, *agents).await?);
        }
        anyhow::Ok(rows)
    })??;
    match request.format {
        ListFormat::Json => output::print(&lines::line(&rows)?)?,
        ListFormat::Table => output::print(&shell::render(&rows, output::stdout_style()))?,
    }
    Ok(exit_code::PASS)
}

async fn measure(request: &Request<'_>, agents: u32) -> anyhow::Result<[ShellRow; 2]> {
    // Dropped after the cluster that lives in it.
    let folder = tempfile::tempdir().context("no folder for the cluster")?;
    let shape = Shape {
        managers: request.managers,
        agents,
        runtime: RuntimeName::Sim,
        socket: None,
        dir: folder.path().to_owned(),
    };
    let cluster = start(shape).await?;
    let lasting = Duration::from_secs(request.seconds);
    let idle = observe("idle", &cluster, None, lasting).await?;
    let mut load = Load::start(&cluster).await?;
    let busy = observe("busy", &cluster, Some(&mut load), lasting).await?;
    Ok([idle, busy])
}

/// Waits until the load is steady, and then for as long as is to be measured.
async fn observe(
    name: &str,
    cluster: &Started,
    mut load: Option<&mut Load>,
    lasting: Duration,
) -> anyhow::Result<ShellRow> {
    tokio::time::sleep(WARM_UP).await;
    let done = |load: &Option<&mut Load>| load.as_ref().map_or((0, 0), |load| load.done());
    let (before, began) = (usages(cluster).await?, Instant::now());
    let done_before = done(&load);
    tokio::time::sleep(lasting).await;
    let (seconds, done_after) = (began.elapsed().as_secs_f64(), done(&load));
    let after = usages(cluster).await?;
    if let Some(load) = &mut load {
        load.must_go_on()?;
    }
    let of = |role: &str| cost(cluster, role, &before, &after);
    Ok(ShellRow {
        load: name.to_owned(),
        seconds,
        writes_per_second: rate(done_after.0 - done_before.0, seconds),
        changes_per_second: rate(done_after.1 - done_before.1, seconds),
        managers: of("manager"),
        agents: of("agent"),
    })
}

/// Of every node, in the cluster's order.
async fn usages(cluster: &Started) -> anyhow::Result<Vec<Usage>> {
    let mut usages = Vec::new();
    for node in &cluster.cluster.nodes {
        usages.push(Usage::of(node).await?);
    }
    Ok(usages)
}

fn cost(cluster: &Started, role: &str, before: &[Usage], after: &[Usage]) -> RoleCost {
    let nodes = cluster.cluster.nodes.iter();
    let is_of_role: Vec<bool> = nodes
        .map(|node| node.process.name.starts_with(role))
        .collect();
    let spans: Vec<(Usage, Usage)> = before
        .iter()
        .zip(after)
        .zip(is_of_role)
        .filter_map(|((before, after), is_of_role)| is_of_role.then_some((*before, *after)))
        .collect();
    role_cost(&spans)
}

fn role_cost(spans: &[(Usage, Usage)]) -> RoleCost {
    let per_second = |of: fn(&Usage) -> u64| -> f64 {
        let rates = spans.iter().map(|(before, after)| {
            let seconds = after.at.duration_since(before.at).as_secs_f64();
            rate(of(after).saturating_sub(of(before)), seconds)
        });
        rates.sum()
    };
    let sorted = |of: fn(&Usage) -> u64| {
        let mut sizes: Vec<u64> = spans.iter().map(|(_, after)| of(after)).collect();
        sizes.sort_unstable();
        sizes
    };
    let resident = sorted(|usage| usage.resident_bytes);
    let proportional = sorted(|usage| usage.proportional_bytes);
    let nanos = |usage: &Usage| u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX);
    RoleCost {
        nodes: u32::try_from(spans.len()).unwrap_or(u32::MAX),
        messages_per_second: per_second(|usage| usage.messages_written),
        bytes_per_second: per_second(|usage| usage.bytes_written),
        cpu_seconds_per_second: per_second(nanos) / 1e9,
        resident_bytes_median: median(&resident),
        resident_bytes_max: resident.last().copied().unwrap_or(0),
        proportional_bytes_median: median(&proportional),
    }
}

fn median(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is counted in a minute is far below 2^52"
)]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}

/// What keeps a cluster busy. It stops when this is dropped.
struct Load {
    tasks: JoinSet<anyhow::Result<()>>,
    writes: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

impl Load {
    async fn start(cluster: &Started) -> anyhow::Result<Self> {
        let mut load = Load {
            tasks: JoinSet::new(),
            writes: Arc::default(),
            changes: Arc::default(),
        };
        for number in 1..=WRITERS {
            let name = format!("writer-{number}");
            let client = Client::join(cluster, &name).await?;
            load.tasks.spawn(write(client, name, load.writes.clone()));
        }
        let client = Client::join(cluster, "operator-2").await?;
        load.tasks.spawn(change(client, load.changes.clone()));
        Ok(load)
    }

    /// Writes and changes that were acknowledged so far.
    fn done(&self) -> (u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (of(&self.writes), of(&self.changes))
    }

    /// Fails with whatever made a part of it end.
    fn must_go_on(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended.context("a client broke down")?,
        }
    }
}

async fn write(client: Client, name: String, writes: Arc<AtomicU64>) -> anyhow::Result<()> {
    let value = "v".repeat(VALUE_BYTES);
    for number in 0_u64.. {
        let put = Operation::Put {
            key: format!("{name}/{}", number % KEYS),
            value: value.clone(),
            claim: None,
        };
        client.ask(put).await?;
        writes.fetch_add(1, Ordering::Relaxed);
    }
    bail!("all numbers are used up")
}

async fn change(client: Client, changes: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(CHANGE_EVERY);
    for number in 0.. {
        clock.tick().await;
        match client.ask(next_change(number)?).await? {
            Outcome::Done { .. } => changes.fetch_add(1, Ordering::Relaxed),
            other => bail!("a change was answered with {other:?}"),
        };
    }
    bail!("all numbers are used up")
}

/// One service after the other: each is deployed once, then scaled to and fro.
fn next_change(number: u64) -> anyhow::Result<Operation> {
    let (round, service) = (number / SERVICES, format!("web-{}", number % SERVICES));
    let replicas = REPLICAS[usize::from(round % 2 == 1)];
    if round > 0 {
        let service = service.as_str().into();
        return Ok(Operation::Scale { service, replicas });
    }
    let manifest = json!({ "name": service, "image": "web:1", "replicas": replicas });
    let manifest: ServiceManifest = serde_json::from_value(manifest)?;
    let spec = ServiceSpec::try_from(manifest)?;
    Ok(Operation::Deploy { spec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_add_up_over_nodes_and_memory_does_not() {
        let at = Instant::now();
        let none = Usage {
            at,
            cpu: Duration::ZERO,
            resident_bytes: 0,
            proportional_bytes: 0,
            messages_written: 0,
            bytes_written: 0,
        };
        let after = |seconds, resident_bytes| Usage {
            at: at + Duration::from_secs(seconds),
            cpu: Duration::from_millis(500 * seconds),
            resident_bytes,
            proportional_bytes: resident_bytes / 2,
            messages_written: 10 * seconds,
            bytes_written: 1000 * seconds,
        };
        let spans = [
            (none, after(2, 30)),
            (none, after(4, 10)),
            (none, after(2, 20)),
        ];
        let cost = role_cost(&spans);
        assert_eq!(cost.nodes, 3);
        let close = |one: f64, other: f64| (one - other).abs() < 1e-6;
        assert!(close(cost.messages_per_second, 30.0), "{cost:?}");
        assert!(close(cost.bytes_per_second, 3000.0), "{cost:?}");
        assert!(close(cost.cpu_seconds_per_second, 1.5), "{cost:?}");
        let memory = (cost.resident_bytes_median, cost.resident_bytes_max);
        assert_eq!((memory, cost.proportional_bytes_median), ((20, 30), 10));
    }

    #[test]
    fn services_are_deployed_before_they_are_scaled() {
        let names: Vec<&str> = (0..2 * SERVICES)
            .map(|number| next_change(number).unwrap().name())
            .collect();
        assert!(
            names[..10].iter().all(|name| *name == "deploy"),
            "{names:?}"
        );
        assert!(names[10..].iter().all(|name| *name == "scale"), "{names:?}");
        let scaled = |number| match next_change(number).unwrap() {
            Operation::Scale { replicas, .. } => replicas,
            other => panic!("{other:?}"),
        };
        assert_ne!(scaled(10), scaled(20));
    }
}
