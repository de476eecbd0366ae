//! An operator's commands: each asks the API of any manager that answers.
//!
//! Map: `client` (HTTP over mutual TLS, one manager after the other), `file` (service files),
//! `logs` (of tasks), `show` (tables). Data goes to stdout, complaints to stderr; with `--json`
//! every command prints one JSON value, or one a line for `watch` and `logs`.

mod client;
mod file;
mod logs;
mod show;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use wavetank_model::NodeRole;

use crate::api::views::{KeyValue, Mode, Nodes, Service, Services};
use crate::config::Span;
use crate::serve::{StateFolder, chain};
use client::Client;

/// Before a watch that a manager ended goes on with one that can be reached.
const BETWEEN_WATCHES: Duration = Duration::from_secs(1);

/// Everything went as asked.
pub const OK: u8 = 0;
/// The cluster refused.
pub const REFUSED: u8 = 1;
/// Wrong usage, or a file that is not what it should be. clap's own, too.
pub const USAGE: u8 = 2;
/// No manager could be reached, or none answered in time.
pub const UNREACHABLE: u8 = 6;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The cluster said no.
    #[error("{0}")]
    Refused(String),
    /// The command or a file makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// Whoever reads the output is gone, or the like.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CtlError {
    /// Says which service of a file the cluster refuses.
    fn about(self, service: &str) -> Self {
        match self {
            CtlError::Refused(why) => CtlError::Refused(format!("service {service:?}: {why}")),
            other => other,
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            CtlError::Refused(_) => REFUSED,
            CtlError::Usage(_) => USAGE,
            CtlError::Unreachable(_) | CtlError::Output(_) => UNREACHABLE,
        }
    }
}

/// Ask a cluster for something
///
/// Exit codes: 0 done, 1 refused by the cluster, 2 wrong usage or file, 6 no manager answers.
#[derive(Args, Debug)]
pub struct CtlArguments {
    #[command(subcommand)]
    command: Command,
    /// Folder with an operator's identity; `init` makes DIR/operator
    #[arg(long, global = true, env = "WAVETANK_OPERATOR", value_name = "DIR")]
    operator: Option<PathBuf>,
    /// A manager's API; may be repeated [default: what the operator's folder says]
    #[arg(
        long,
        global = true,
        env = "WAVETANK_API",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    api: Vec<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Create services, or update them, as the file says
    Apply {
        /// YAML or JSON; `-` reads from standard input
        file: PathBuf,
    },
    /// List services, tasks or nodes
    List {
        /// What to list
        #[arg(default_value = "services")]
        what: What,
    },
    /// Show a service with its tasks
    Get {
        /// Its name
        service: String,
    },
    /// Change the number of a service's tasks
    Scale {
        /// Its name
        service: String,
        /// So many
        replicas: u32,
    },
    /// Give a service another image, as a rolling update
    Update {
        /// Its name
        service: String,
        /// The new image
        #[arg(long)]
        image: String,
    },
    /// Move all tasks away from a node
    Drain {
        /// Such as agent-1
        node: String,
    },
    /// Keep a node's tasks and give it no more
    Pause {
        /// Such as agent-1
        node: String,
    },
    /// Give a node tasks again
    Activate {
        /// Such as agent-1
        node: String,
    },
    /// Put a manager out of the consensus group for good
    RemoveManager {
        /// Such as manager-3
        node: String,
    },
    /// Stop a service's tasks and keep the service
    Stop {
        /// Its name
        service: String,
    },
    /// Undo a stop
    Start {
        /// Its name
        service: String,
    },
    /// Go back to the last completed generation
    Rollback {
        /// Its name
        service: String,
    },
    /// Stop a service's tasks and forget it
    Delete {
        /// Its name
        service: String,
    },
    /// Print what a service's running tasks, or one task, have written
    Logs {
        /// A service's name, a task such as task-17, or an attempt such as task-17.2
        what: String,
        /// Only so many last lines of each task's outputs
        #[arg(long, value_name = "LINES")]
        tail: Option<u32>,
        /// Go on until the tasks' processes have ended
        #[arg(long, short)]
        follow: bool,
    },
    /// Print what changes, until interrupted
    Watch,
    /// Make a token that lets one node in
    Token {
        /// As what: manager, agent or client (another operator)
        role: Role,
        /// How long it is good for
        #[arg(long, default_value = "1h")]
        lifetime: Span,
    },
    /// Write a key
    Put {
        /// Which key
        key: String,
        /// Its new value
        value: String,
    },
    /// Read a key
    GetKey {
        /// Which key
        key: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Services,
    Tasks,
    Nodes,
}

/// A role, as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Replicates state and decides.
    Manager,
    /// Runs containers.
    Agent,
    /// An operator.
    Client,
}

impl From<Role> for NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Manager => NodeRole::Manager,
            Role::Agent => NodeRole::Agent,
            Role::Client => NodeRole::Client,
        }
    }
}

/// Carries a command out.
pub async fn run(arguments: CtlArguments, out: &mut (dyn Write + Send)) -> Result<(), CtlError> {
    let command = arguments.command;
    // What is wrong with a file is wrong whether or not a cluster answers.
    let manifests = match &command {
        Command::Apply { file } => file::read(file)?,
        _ => Vec::new(),
    };
    let mut session = Session {
        client: connect(arguments.operator, arguments.api)?,
        json: arguments.json,
        out,
    };
    match command {
        Command::Apply { .. } => session.apply(manifests).await,
        Command::List { what } => session.list(what).await,
        Command::Get { service } => session.get(&service).await,
        Command::Update { service, image } => session.update(&service, image).await,
        Command::Logs { what, tail, follow } => {
            let wanted = logs::Wanted { what, tail, follow };
            session.logs(&wanted).await
        }
        Command::Watch => session.watch().await,
        Command::Token { role, lifetime } => session.token(role, lifetime).await,
        Command::GetKey { key } => session.get_key(&key).await,
        change => session.change(&change).await,
    }
}

fn connect(operator: Option<PathBuf>, api: Vec<String>) -> Result<Client, CtlError> {
    let path = operator.ok_or_else(|| {
        let hint =
            "say who you are: --operator DIR, or WAVETANK_OPERATOR; `init` makes such a folder";
        CtlError::Usage(hint.to_owned())
    })?;
    if !path.is_dir() {
        let why = format!("{} is no folder", path.display());
        return Err(CtlError::Usage(why));
    }
    let usage = |error: &(dyn std::error::Error + 'static)| CtlError::Usage(chain(error));
    let folder = StateFolder::at(&path);
    let identity = folder
        .identity_files()
        .identity()
        .map_err(|error| usage(&error))?;
    let identity = identity.ok_or_else(|| {
        CtlError::Usage(format!("{} holds no operator's identity", path.display()))
    })?;
    let addresses = match api.is_empty() {
        false => api,
        true => folder.api().map_err(|error| {
            CtlError::Usage(format!("{}; or use --api HOST:PORT", chain(&error)))
        })?,
    };
    Client::new(&identity, addresses).map_err(|error| usage(&error))
}

/// One command's connection and output.
struct Session<'a> {
    client: Client,
    json: bool,
    out: &'a mut (dyn Write + Send),
}

impl Session<'_> {
    async fn apply(
        &mut self,
        manifests: Vec<crate::api::manifest::ServiceManifest>,
    ) -> Result<(), CtlError> {
        let mut applied = Vec::new();
        for manifest in manifests {
            let path = format!("/v1/services/{}", client::segment(&manifest.name));
            let done: Result<Value, CtlError> =
                self.client.call(Method::PUT, &path, Some(&manifest)).await;
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    // What was applied before is.
                    if self.json {
                        self.print(&applied)?;
                    }
                    return Err(error.about(&manifest.name));
                }
            };
            if !self.json {
                writeln!(self.out, "{} is as asked for", manifest.name)?;
            }
            applied.push(json!({ "service": manifest.name, "revision": done["revision"] }));
        }
        match self.json {
            true => self.print(&applied),
            false => Ok(()),
        }
    }

    async fn list(&mut self, what: What) -> Result<(), CtlError> {
        if what == What::Nodes {
            let nodes: Nodes = self.client.get("/v1/nodes").await?;
            return self.show(&nodes, show::nodes);
        }
        let services: Services = self.client.get("/v1/services").await?;
        match what {
            What::Tasks => self.show(&services, show::tasks),
            What::Services | What::Nodes => self.show(&services, show::services),
        }
    }

    async fn get(&mut self, name: &str) -> Result<(), CtlError> {
        let path = format!("/v1/services/{}", client::segment(name));
        let service: Service = self.client.get(&path).await?;
        self.show(&service, show::service)
    }

    async fn update(&mut self, name: &str, image: String) -> Result<(), CtlError> {
        let path = format!("/v1/services/{}", client::segment(name));
        let service: Service = self.client.get(&path).await?;
        let mut manifest = service.spec;
        manifest.image = image;
        let done: Value = self
            .client
            .call(Method::PUT, &path, Some(&manifest))
            .await?;
        self.done(&done, "update begun")
    }

    async fn token(&mut self, role: Role, lifetime: Span) -> Result<(), CtlError> {
        let body = json!({ "role": NodeRole::from(role), "lifetime": lifetime.to_string() });
        let token: Value = self
            .client
            .call(Method::POST, "/v1/tokens", Some(&body))
            .await?;
        match self.json {
            true => self.print(&token),
            false => Ok(writeln!(
                self.out,
                "{}",
                token["token"].as_str().unwrap_or_default()
            )?),
        }
    }

    async fn get_key(&mut self, key: &str) -> Result<(), CtlError> {
        let path = format!("/v1/keys/{}", client::path(key));
        let found: KeyValue = self.client.get(&path).await?;
        match (self.json, &found.value) {
            (true, _) => self.print(&found)?,
            (false, Some(value)) => writeln!(self.out, "{value}")?,
            (false, None) => {}
        }
        let was_never = || CtlError::Refused(format!("{key} was never written"));
        found.value.map(drop).ok_or_else(was_never)
    }

    /// Commands that ask for one change and are told where it is.
    async fn change(&mut self, command: &Command) -> Result<(), CtlError> {
        let (method, path, body) = request(command);
        let done: Value = self.client.call(method, &path, body.as_ref()).await?;
        self.done(&done, "done")
    }

    /// Goes on for ever, once a manager has answered. A watch begins with how things are, so
    /// nothing is missed where one manager ends it and another goes on.
    async fn watch(&mut self) -> Result<(), CtlError> {
        let mut has_begun = false;
        loop {
            let mut lines = match self.client.lines("/v1/watch").await {
                Err(CtlError::Unreachable(_)) if has_begun => {
                    tokio::time::sleep(BETWEEN_WATCHES).await;
                    continue;
                }
                lines => lines?,
            };
            has_begun = true;
            while let Ok(Some(line)) = lines.next().await {
                match self.json {
                    true => writeln!(self.out, "{line}")?,
                    false => writeln!(self.out, "{}", show::change(&line))?,
                }
                self.out.flush()?;
            }
            tokio::time::sleep(BETWEEN_WATCHES).await;
        }
    }

    fn done(&mut self, done: &Value, what: &str) -> Result<(), CtlError> {
        match self.json {
            true => self.print(done),
            false => Ok(writeln!(self.out, "{what}")?),
        }
    }

    fn show<T: Serialize>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CtlError> {
        match self.json {
            true => self.print(value),
            false => Ok(writeln!(self.out, "{}", table(value))?),
        }
    }

    fn print(&mut self, value: &impl Serialize) -> Result<(), CtlError> {
        serde_json::to_writer_pretty(&mut *self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }
}

/// The request of a command that only changes something.
fn request(command: &Command) -> (Method, String, Option<Value>) {
    let service = |name: &str, verb: &str| format!("/v1/services/{}{verb}", client::segment(name));
    let availability = |node: &str, mode: Mode| {
        let path = format!("/v1/nodes/{}/availability", client::segment(node));
        (Method::PUT, path, Some(json!({ "availability": mode })))
    };
    match command {
        Command::Scale {
            service: name,
            replicas,
        } => {
            let body = json!({ "replicas": replicas });
            (Method::POST, service(name, "/scale"), Some(body))
        }
        Command::Stop { service: name } => (Method::POST, service(name, "/stop"), None),
        Command::Start { service: name } => (Method::POST, service(name, "/start"), None),
        Command::Rollback { service: name } => (Method::POST, service(name, "/rollback"), None),
        Command::Delete { service: name } => (Method::DELETE, service(name, ""), None),
        Command::Drain { node } => availability(node, Mode::Drain),
        Command::Pause { node } => availability(node, Mode::Pause),
        Command::Activate { node } => availability(node, Mode::Active),
        Command::RemoveManager { node } => {
            let path = format!("/v1/nodes/{}", client::segment(node));
            (Method::DELETE, path, None)
        }
        Command::Put { key, value } => {
            let path = format!("/v1/keys/{}", client::path(key));
            (Method::PUT, path, Some(json!({ "value": value })))
        }
        Command::Apply { .. }
        | Command::List { .. }
        | Command::Get { .. }
        | Command::Update { .. }
        | Command::Logs { .. }
        | Command::Watch
        | Command::Token { .. }
        | Command::GetKey { .. } => unreachable!("handled by `run`"),
    }
}
