//! The node as a program: arguments in, one node or one command, an exit code out. It is
//! `wavetank-node`, and also what `wavetank up` runs, which so never mixes two builds.
//!
//! Everything it does is elsewhere: `serve` runs nodes, `ctl` asks clusters, `config` reads what it
//! is told.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{AgentFlags, ConfigError, File, Flags, ManagerFlags, ManagerSettings, Problem};
use crate::ctl::{self, CtlArguments, CtlError, Role};
use crate::identity::{Token, TokenError};
use crate::serve::{self, JoinRequest, RuntimeError, ServeError};

/// A node of a container cluster, and the tool to operate one.
///
/// Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration, 6 no manager answers.
#[derive(Parser, Debug)]
#[command(name = "wavetank-node", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How logs are written, on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: a level, or directives such as `warn,wavetank_node=debug`
    #[arg(long, global = true, env = "WAVETANK_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a new cluster: its authority, its first manager and its first operator
    Init {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        manager: ManagerFlags,
    },
    /// Join a cluster by a token; makes the node's folder and ends
    Join {
        /// Folder for identity and state; made if it does not exist
        #[arg(long, env = "WAVETANK_DIR", value_name = "DIR")]
        dir: PathBuf,
        /// The token, or `-` to read it from standard input
        #[arg(long, env = "WAVETANK_TOKEN", hide_env_values = true)]
        token: String,
        /// As what
        #[arg(long)]
        role: Role,
        /// A manager's address for nodes; may be repeated
        #[arg(long = "manager", required = true, value_name = "HOST:PORT")]
        managers: Vec<String>,
        /// For an operator: a manager's API; may be repeated
        #[arg(long, value_name = "HOST:PORT")]
        api: Vec<String>,
    },
    /// Run the manager that lives in a folder
    Manager {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        manager: ManagerFlags,
    },
    /// Run the agent that lives in a folder
    Agent {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        agent: AgentFlags,
    },
    Ctl(CtlArguments),
}

impl Arguments {
    /// An operator's command.
    pub fn ctl(arguments: CtlArguments) -> Self {
        Arguments {
            command: Command::Ctl(arguments),
            log_format: LogFormat::Text,
            log: None,
        }
    }
}

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Setting(#[from] Problem),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Ctl(#[from] CtlError),
    #[error("--log")]
    Log(#[source] tracing_subscriber::filter::ParseError),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl ProgramError {
    fn exit_code(&self) -> u8 {
        match self {
            ProgramError::Ctl(error) => error.exit_code(),
            ProgramError::Config(_) | ProgramError::Setting(_) | ProgramError::Log(_) => ctl::USAGE,
            ProgramError::Serve(_) | ProgramError::Runtime(_) | ProgramError::System { .. } => 1,
        }
    }
}

/// Runs the program; answers what the process ends with.
pub fn main(arguments: Arguments) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "error: {}", serve::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(arguments: Arguments) -> Result<(), ProgramError> {
    let quiet = matches!(arguments.command, Command::Ctl(_) | Command::Join { .. });
    start_logging(&arguments, quiet)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|source| ProgramError::System {
        what: "start tokio",
        source,
    })?;
    let ended = runtime.block_on(run(arguments.command));
    // What is still under way, such as a call that hangs, is not waited for.
    runtime.shutdown_background();
    ended
}

/// A manager's addresses as it is told them: its folder does not remember them.
fn as_flags(settings: &ManagerSettings) -> String {
    let ManagerSettings { listen, api, .. } = settings;
    let status = settings.common.status;
    let advertise = settings.advertise.as_ref();
    let advertise = advertise.map(|at| format!(" --advertise {at}"));
    let advertise = advertise.unwrap_or_default();
    format!(" --listen {listen} --api {api} --status {status}{advertise}")
}

async fn run(command: Command) -> Result<(), ProgramError> {
    match command {
        Command::Init { flags, manager } => {
            let settings = File::load(&flags)?.manager(&flags, &manager)?;
            let founded = serve::init(&settings)?;
            let operator = founded.operator.display();
            println!(
                "{} lives in {}",
                founded.node,
                settings.common.dir.display()
            );
            println!(
                "run it:  wavetank-node manager --dir {}{}",
                settings.common.dir.display(),
                as_flags(&settings)
            );
            println!("ask it:  wavetank-node ctl --operator {operator} list nodes");
            Ok(())
        }
        Command::Join {
            dir,
            token,
            role,
            managers,
            api,
        } => {
            let request = JoinRequest {
                dir,
                token: read_token(token)?,
                role: role.into(),
                managers,
                api,
            };
            let node = serve::join(&request).await?;
            println!("{node} lives in {}", request.dir.display());
            Ok(())
        }
        Command::Manager { flags, manager } => {
            let settings = File::load(&flags)?.manager(&flags, &manager)?;
            Ok(serve::manager(settings, stopped()?).await?)
        }
        Command::Agent { flags, agent } => {
            let settings = File::load(&flags)?.agent(&flags, &agent)?;
            let stop = stopped()?;
            let runtime = serve::open_runtime(&settings).await?;
            Ok(serve::agent(settings, runtime, stop).await?)
        }
        Command::Ctl(arguments) => {
            let ended = ctl::run(arguments, &mut io::stdout()).await;
            match ended {
                // Whoever reads has seen enough.
                Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                ended => Ok(ended?),
            }
        }
    }
}

fn read_token(given: String) -> Result<Token, CtlError> {
    let text = match given.as_str() {
        "-" => io::read_to_string(io::stdin())?,
        _ => given,
    };
    text.parse()
        .map_err(|error: TokenError| CtlError::Usage(format!("--token: {error}")))
}

/// Comes back when the node is asked to end.
fn stopped() -> Result<impl Future<Output = ()> + Send, ProgramError> {
    let listen = |kind| {
        signal(kind).map_err(|source| ProgramError::System {
            what: "listen for signals",
            source,
        })
    };
    let mut terminated = listen(SignalKind::terminate())?;
    let mut interrupted = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminated.recv() => tracing::info!("ending on SIGTERM"),
            _ = interrupted.recv() => tracing::info!("ending on SIGINT"),
        }
    })
}

fn start_logging(arguments: &Arguments, quiet: bool) -> Result<(), ProgramError> {
    let default = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let builder = EnvFilter::builder().with_default_directive(default.into());
    let filter = builder
        .parse(arguments.log.as_deref().unwrap_or_default())
        .map_err(ProgramError::Log)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}
