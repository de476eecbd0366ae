//! What a node is told: a TOML file, and flags that overrule it. Every value is checked here, and
//! a wrong one is an error that says where it is, why it cannot be used and what would do.
//!
//! Map: `values` (durations, sizes, addresses), `timers` (the orchestrator's), this file (the
//! rest).

mod timers;
mod values;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;
use wavetank_model::{Resources, Timers};

pub use values::{Bytes, Problem, Span};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A value makes no sense.
    #[error(transparent)]
    Value(#[from] Problem),
}

/// What a node runs containers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    /// containerd, by its gRPC socket.
    Containerd,
    /// Podman, by its REST socket.
    Podman,
    /// An OCI runtime binary such as runc.
    Oci,
}

impl RuntimeKind {
    /// As files and flags spell it.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeKind::Containerd => "containerd",
            RuntimeKind::Podman => "podman",
            RuntimeKind::Oci => "oci",
        }
    }
}

/// The file, as it is written. Every setting may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    dir: Option<PathBuf>,
    listen: Option<String>,
    advertise: Option<String>,
    api: Option<String>,
    status: Option<String>,
    events: Option<PathBuf>,
    certificate_lifetime: Option<Span>,
    agent: AgentTable,
    timers: timers::TimersTable,
}

/// The table `[agent]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AgentTable {
    runtime: Option<RuntimeKind>,
    socket: Option<PathBuf>,
    namespace: Option<String>,
    cpus: Option<f64>,
    memory: Option<Bytes>,
    labels: BTreeMap<String, String>,
}

/// Flags of every node; each overrules the setting of its name.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Configuration file (TOML)
    #[arg(long, env = "WAVETANK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for identity and state; made if it does not exist
    #[arg(long, env = "WAVETANK_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics are, on loopback [default: 127.0.0.1:7445]
    #[arg(long, value_name = "HOST:PORT")]
    pub status: Option<String>,
    /// Append what the node decides and asks of its runtime to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

/// Flags of managers.
#[derive(Args, Clone, Debug, Default)]
pub struct ManagerFlags {
    /// Where nodes connect to [default: 0.0.0.0:7443]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where others reach it, if that is not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where the API is, over TLS [default: 0.0.0.0:7444]
    #[arg(long, value_name = "HOST:PORT")]
    pub api: Option<String>,
}

/// Flags of agents.
#[derive(Args, Clone, Debug, Default)]
pub struct AgentFlags {
    /// What to run containers with [default: containerd]
    #[arg(long)]
    pub runtime: Option<RuntimeKind>,
    /// The runtime's socket, or the OCI runtime's binary
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What separates this node's containers from others' in one runtime [default: wavetank]
    #[arg(long)]
    pub namespace: Option<String>,
    /// Cores to offer [default: the machine's]
    #[arg(long)]
    pub cpus: Option<f64>,
    /// Memory to offer, as in 8GiB [default: the machine's]
    #[arg(long)]
    pub memory: Option<Bytes>,
    /// What the node is like; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// What every node was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// Its folder.
    pub dir: PathBuf,
    /// Where it says how it does, to this machine alone.
    pub status: SocketAddr,
    /// Where its event log is, if it keeps one.
    pub events: Option<PathBuf>,
    /// The orchestrator's timers.
    pub timers: Timers,
}

/// What a manager was told.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagerSettings {
    /// What every node is told.
    pub common: Common,
    /// Where nodes connect to.
    pub listen: String,
    /// Where they are told to.
    pub advertise: Option<String>,
    /// Where the API is.
    pub api: String,
    /// How long the certificates last that it signs.
    pub certificate_lifetime: std::time::Duration,
}

/// What an agent was told.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSettings {
    /// What every node is told.
    pub common: Common,
    /// What it runs containers with.
    pub runtime: RuntimeKind,
    /// The runtime's socket or binary, if it is not in its usual place.
    pub socket: Option<PathBuf>,
    /// Which part of the runtime is this node's.
    pub namespace: String,
    /// What it offers.
    pub resources: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
}

impl File {
    /// Reads the file that the flags name, if they name one.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let Some(path) = &flags.config else {
            return Ok(File::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        File::parse(path, &text)
    }

    /// Reads a file's text; `path` is for errors only.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.get(..offset).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before
                    .get(line_start..)
                    .map_or(0, |text| text.chars().count())
                    + 1,
                reason: error.message().to_owned(),
            }
        })
    }

    /// A manager's settings.
    pub fn manager(&self, flags: &Flags, own: &ManagerFlags) -> Result<ManagerSettings, Problem> {
        let text = |flag: &Option<String>, set: &Option<String>, default: &str| {
            let given = flag.as_ref().or(set.as_ref());
            given.map_or_else(|| default.to_owned(), String::clone)
        };
        let advertise = own.advertise.as_ref().or(self.advertise.as_ref());
        let advertise = advertise.map(|text| values::address("advertise", text));
        let lifetime = self.certificate_lifetime;
        Ok(ManagerSettings {
            common: self.common(flags)?,
            listen: values::address("listen", &text(&own.listen, &self.listen, "0.0.0.0:7443"))?,
            advertise: advertise.transpose()?,
            api: values::address("api", &text(&own.api, &self.api, "0.0.0.0:7444"))?,
            certificate_lifetime: lifetime.map_or(crate::identity::LIFETIME, |span| span.0),
        })
    }

    /// An agent's settings.
    pub fn agent(&self, flags: &Flags, own: &AgentFlags) -> Result<AgentSettings, Problem> {
        let set = &self.agent;
        let mut labels = set.labels.clone();
        labels.extend(own.labels.iter().cloned());
        let namespace = own.namespace.as_ref().or(set.namespace.as_ref());
        Ok(AgentSettings {
            common: self.common(flags)?,
            runtime: own
                .runtime
                .or(set.runtime)
                .unwrap_or(RuntimeKind::Containerd),
            socket: own.socket.clone().or_else(|| set.socket.clone()),
            namespace: namespace.map_or_else(|| "wavetank".to_owned(), String::clone),
            resources: Resources {
                cpu_millis: cpus(own.cpus.or(set.cpus))?,
                memory_bytes: memory(own.memory.or(set.memory))?,
            },
            labels,
        })
    }

    /// What every node is told.
    pub fn common(&self, flags: &Flags) -> Result<Common, Problem> {
        let dir = flags.dir.as_ref().or(self.dir.as_ref()).cloned();
        let dir = dir.ok_or_else(|| {
            let reason = "no folder is named for the node's identity and state".to_owned();
            Problem::new("dir", reason, "set it in the file, or use --dir DIR")
        })?;
        let status = flags.status.as_ref().or(self.status.as_ref());
        let status = status.map_or("127.0.0.1:7445", String::as_str);
        Ok(Common {
            dir,
            status: values::loopback("status", status)?,
            events: flags.events.clone().or_else(|| self.events.clone()),
            timers: self.timers.resolve()?,
        })
    }
}

/// Most cores that a node may offer: far more than any machine has.
const CPUS_MAX: f64 = 10_000.0;

fn cpus(given: Option<f64>) -> Result<u32, Problem> {
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = match given {
        Some(cpus) => cpus,
        None => return Ok(u32::try_from(machine()).unwrap_or(1).saturating_mul(1000)),
    };
    if !(cpus > 0.0 && cpus <= CPUS_MAX) {
        let reason = format!("{cpus} is not a number of cores");
        return Err(Problem::new(
            "agent.cpus",
            reason,
            "use a number above zero, such as 1.5",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was just checked to be small and positive"
    )]
    let millis = (cpus * 1000.0).round() as u32;
    Ok(millis)
}

fn memory(given: Option<Bytes>) -> Result<u64, Problem> {
    if let Some(Bytes(bytes)) = given {
        return Ok(bytes);
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total_memory(&meminfo).ok_or_else(|| {
        let reason = "the machine does not say how much memory it has".to_owned();
        Problem::new(
            "agent.memory",
            reason,
            "say how much to offer, as in `8GiB`",
        )
    })
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(text: &str) -> String {
        let file = match File::parse(Path::new("node.toml"), text) {
            Ok(file) => file,
            Err(error) => return error.to_string(),
        };
        let flags = Flags {
            dir: Some("/state".into()),
            ..Flags::default()
        };
        match file.manager(&flags, &ManagerFlags::default()) {
            Ok(settings) => format!("{settings:?}"),
            Err(problem) => problem.to_string(),
        }
    }

    fn agent(text: &str) -> String {
        let file = match File::parse(Path::new("node.toml"), text) {
            Ok(file) => file,
            Err(error) => return error.to_string(),
        };
        match file.agent(&Flags::default(), &AgentFlags::default()) {
            Ok(settings) => format!("{settings:?}"),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_place_and_a_way_out() {
        let managers = [
            "dir = ",
            "lisen = \"0.0.0.0:1\"",
            "listen = \"0.0.0.0\"",
            "api = \"host:99999\"",
            "advertise = \"-bad:1\"",
            "status = \"0.0.0.0:7445\"",
            "certificate_lifetime = \"0s\"",
            "[timers]\nheartbeat = \"soon\"",
            "[timers]\nheartbeat = \"20s\"",
            "[timers]\nraft_election = \"200ms\"",
            "[timers]\nnode_down_after = \"1s\"",
            "[timers]\nsnapshot_every = 0",
            "[timers]\npull_attempts_max = 0",
            "[timers.pull_backoff]\nbase = \"10s\"\ncap = \"1s\"",
        ];
        let agents = [
            "",
            "dir = \"/s\"\n[agent]\nruntime = \"docker\"",
            "dir = \"/s\"\n[agent]\ncpus = 0.0",
            "dir = \"/s\"\n[agent]\ncpus = nan",
            "dir = \"/s\"\n[agent]\nmemory = \"lots\"",
        ];
        let mut text = String::new();
        for (of, answer) in managers
            .iter()
            .map(|of| (of, manager(of)))
            .chain(agents.iter().map(|of| (of, agent(of))))
        {
            text.push_str(&format!("--- {}\n{answer}\n", of.replace('\n', " | ")));
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn flags_overrule_the_file_and_the_file_overrules_the_defaults() {
        let text = "dir = \"/a\"\nlisten = \"10.0.0.1:1\"\napi = \"10.0.0.1:2\"\n\
                    [timers]\nheartbeat = \"3s\"\n[agent]\ncpus = 1.5\nmemory = \"1GiB\"\n\
                    [agent.labels]\nzone = \"a\"";
        let file = File::parse(Path::new("node.toml"), text).unwrap();
        let flags = Flags {
            dir: Some("/b".into()),
            ..Flags::default()
        };
        let own = ManagerFlags {
            api: Some("10.0.0.1:3".to_owned()),
            ..ManagerFlags::default()
        };
        let settings = file.manager(&flags, &own).unwrap();
        assert_eq!(settings.common.dir, Path::new("/b"));
        assert_eq!(
            (&*settings.listen, &*settings.api),
            ("10.0.0.1:1", "10.0.0.1:3")
        );
        assert_eq!(settings.common.timers.heartbeat.as_secs(), 3);
        assert_eq!(settings.common.timers.reconcile, Timers::SHIPPED.reconcile);
        let own = AgentFlags {
            labels: vec![("zone".to_owned(), "b".to_owned())],
            ..AgentFlags::default()
        };
        let settings = file.agent(&flags, &own).unwrap();
        assert_eq!(settings.resources.cpu_millis, 1500);
        assert_eq!(settings.resources.memory_bytes, 1 << 30);
        assert_eq!(settings.labels["zone"], "b");
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        let text = "MemTotal:       24551236 kB\nMemFree: 1 kB\n";
        assert_eq!(total_memory(text), Some(24_551_236 * 1024));
        assert_eq!(total_memory("MemTotal: much\n"), None);
        assert_eq!(total_memory(""), None);
    }
}
