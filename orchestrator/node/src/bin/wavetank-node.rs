//! The node as a program: arguments in, one node or one command, an exit code out.
//!
//! Everything it does is in the library: `serve` runs nodes, `ctl` asks clusters, `config` reads
//! what it is told.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use wavetank_node::config::{AgentFlags, ConfigError, File, Flags, ManagerFlags};
use wavetank_node::ctl::{self, CtlArguments, Role};
use wavetank_node::identity::Token;
use wavetank_node::serve::{self, JoinRequest};

/// A node of a container cluster, and the tool to operate one.
///
/// Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration, 6 no manager answers.
#[derive(Parser)]
#[command(name = "wavetank-node", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How logs are written, on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: a level, or directives such as `warn,wavetank_node=debug`
    #[arg(long, global = true, env = "WAVETANK_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Subcommand)]
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

fn main() -> ExitCode {
    // A container of the oci adapter is watched by this program, run again.
    if let Some(code) = wavetank_oci::monitor::main_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    let quiet = matches!(arguments.command, Command::Ctl(_) | Command::Join { .. });
    if let Err(error) = start_logging(&arguments, quiet) {
        return complain(&error, ctl::USAGE);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::from(error), 1),
    };
    let ended = runtime.block_on(run(arguments.command));
    // What is still under way, such as a call that hangs, is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, exit_code(&error)),
    }
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::from(code)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<ctl::CtlError>() {
        return error.exit_code();
    }
    let is_usage = error.is::<ConfigError>() || error.is::<wavetank_node::config::Problem>();
    if is_usage { ctl::USAGE } else { 1 }
}

async fn run(command: Command) -> anyhow::Result<()> {
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
                "run it:  wavetank-node manager --dir {}",
                settings.common.dir.display()
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
                Err(ctl::CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Ok(())
                }
                ended => Ok(ended?),
            }
        }
    }
}

fn read_token(given: String) -> Result<Token, ctl::CtlError> {
    let text = match given.as_str() {
        "-" => io::read_to_string(io::stdin())?,
        _ => given,
    };
    text.parse()
        .map_err(|error: wavetank_node::identity::TokenError| {
            ctl::CtlError::Usage(format!("--token: {error}"))
        })
}

/// Comes back when the node is asked to end.
fn stopped() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminated.recv() => tracing::info!("ending on SIGTERM"),
            _ = interrupted.recv() => tracing::info!("ending on SIGINT"),
        }
    })
}

fn start_logging(arguments: &Arguments, quiet: bool) -> anyhow::Result<()> {
    let default = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let builder = EnvFilter::builder().with_default_directive(default.into());
    let filter = builder
        .parse(arguments.log.as_deref().unwrap_or_default())
        .context("--log")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}
