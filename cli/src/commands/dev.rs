//! `wavetank dev`: the developer's loop. Whenever the scenario or the sources change, the program
//! is built, the scenario is run, and what changed since the last run is shown.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};
use wavetank_reports::{exit_code, since};
use wavetank_scenario::Override;

use crate::dev::cycle::{Build, Change, Cycle, Input, Order};
use crate::dev::task::{self, Ended, Kind, Task};
use crate::dev::watch::{Found, Watch, source_tree};
use crate::failure::Failure;
use crate::files;
use crate::output::{self, Format};
use crate::seeds::parse_seed;
use crate::world::{Ground, SIMULATED_RUNTIME, World};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Changed files that are named.
const FILES_SHOWN: usize = 3;

/// Run a scenario again whenever it or the sources change, and say what is different.
///
/// In wavetank's source tree the program is built first; elsewhere runs are made by this program.
/// Ctrl-C ends a run with all that it took, and then this.
#[derive(Args)]
pub struct DevArguments {
    /// The scenario file.
    file: PathBuf,
    /// The seed, decimal or 0x hexadecimal; the file's first by default.
    #[arg(long, value_name = "N", value_parser = parse_seed)]
    seed: Option<u64>,
    /// The world to run in: event, turmoil or live; live by default if --runtime is a real one.
    #[arg(long)]
    world: Option<String>,
    #[command(flatten)]
    ground: Ground,
    /// Replaces a field of the file: `cluster.agents.count=9`; may be given several times.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = files::parse_assignment)]
    overrides: Vec<Override>,
}

/// Watches, builds, runs and compares until it is interrupted.
pub fn run(arguments: &DevArguments) -> Result<u8, Failure> {
    check_file(&arguments.file)?;
    let world = the_world(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut dev = Loop::begin(arguments, world)?;
        let ended = dev.attend().await;
        dev.leave().await;
        ended.map(|()| exit_code::PASS)
    })
}

fn check_file(file: &Path) -> Result<(), Failure> {
    let wrong = match (file.exists(), file.is_file()) {
        (_, true) => return Ok(()),
        (true, false) => format!("{} is no file", file.display()),
        (false, _) => format!("there is no {}", file.display()),
    };
    Err(Failure::Usage(format!(
        "{wrong}: `wavetank dev` wants one scenario file, such as scenarios/node-loss.yaml"
    )))
}

fn the_world(arguments: &DevArguments) -> Result<World, Failure> {
    let usual = match arguments.ground.runtime == SIMULATED_RUNTIME {
        true => World::Event.name(),
        false => "live",
    };
    let name = arguments.world.as_deref().unwrap_or(usual);
    let worlds = World::selected(name, &arguments.ground)?;
    match worlds[..] {
        [world] => Ok(world),
        _ => Err(Failure::Usage(format!(
            "`wavetank dev` runs in one world, not in `{name}`"
        ))),
    }
}

struct Loop<'a> {
    arguments: &'a DevArguments,
    world: World,
    root: Option<PathBuf>,
    /// Makes the runs.
    program: PathBuf,
    /// What of the program has run last, to tell a new one.
    stamp: Option<SystemTime>,
    watch: Watch,
    cycle: Cycle,
    began: Instant,
    ticks: Interval,
    interrupts: [Signal; 3],
    task: Option<Task>,
    /// For the traces of runs.
    store: TempDir,
    runs: u32,
    last: Option<Ended>,
}

impl<'a> Loop<'a> {
    fn begin(arguments: &'a DevArguments, world: World) -> Result<Self, Failure> {
        let root = source_tree(&std::env::current_dir()?);
        let program = std::env::current_exe()?;
        let file = arguments.file.display();
        output::complain(&match &root {
            Some(root) => format!("watching {file} and the sources in {}", root.display()),
            None => format!(
                "no wavetank sources here: watching {file} with its includes; runs are made by {}",
                program.display()
            ),
        });
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Loop {
            arguments,
            world,
            watch: Watch::begin(&arguments.file, root.as_deref()),
            cycle: Cycle::new(root.is_some()),
            root,
            stamp: stamp(&program),
            program,
            began: Instant::now(),
            ticks,
            interrupts: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
            task: None,
            store: tempfile::Builder::new().prefix("wavetank-dev").tempdir()?,
            runs: 0,
            last: None,
        })
    }

    /// Until it is interrupted and all is over.
    async fn attend(&mut self) -> Result<(), Failure> {
        loop {
            let [interrupt, terminate, hang_up] = &mut self.interrupts;
            let ended = tokio::select! {
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                _ = hang_up.recv() => None,
                ended = ended(&mut self.task) => Some(ended),
                _ = self.ticks.tick() => {
                    self.look()?;
                    continue;
                }
            };
            let is_over = match ended {
                None => self.interrupted()?,
                Some(output) => {
                    let kind = self.task.take().map(|task| task.kind);
                    self.task_ended(kind, &output?)?
                }
            };
            if is_over {
                return Ok(());
            }
        }
    }

    /// After an error of our own, nothing is left running.
    async fn leave(&mut self) {
        if let Some(task) = &mut self.task {
            task.interrupt();
            // Nobody is left to be told how it ended.
            let _ = task.ended().await;
        }
    }

    fn look(&mut self) -> Result<(), Failure> {
        for found in self.watch.look() {
            if !self.cycle.is_leaving() {
                output::complain(&format!("changed: {}", named(&found)));
            }
            self.handle(Input::Changed(found.change))?;
        }
        self.handle(Input::Ticked)?;
        Ok(())
    }

    fn interrupted(&mut self) -> Result<bool, Failure> {
        let order = self.handle(Input::Interrupted)?;
        if let Some(task) = &self.task {
            let what = match task.kind {
                Kind::Build => "the build",
                Kind::Run => "the run, with all that it took",
            };
            output::complain(&format!("ending {what}"));
        }
        Ok(order == Order::Quit)
    }

    fn task_ended(&mut self, kind: Option<Kind>, output: &Output) -> Result<bool, Failure> {
        let order = match kind {
            Some(Kind::Build) => self.built(output)?,
            Some(Kind::Run) | None => {
                let order = self.handle(Input::Ran)?;
                if order == Order::Show {
                    self.show(output)?;
                }
                // Traces are large; what is compared is in memory.
                self.store = tempfile::Builder::new().prefix("wavetank-dev").tempdir()?;
                order
            }
        };
        Ok(order == Order::Quit)
    }

    fn built(&mut self, output: &Output) -> Result<Order, Failure> {
        let build = match task::built(output) {
            Ok(program) => {
                let stamp = stamp(&program);
                let is_same = program == self.program && stamp == self.stamp;
                (self.program, self.stamp) = (program, stamp);
                if is_same { Build::Same } else { Build::New }
            }
            Err(error) => {
                if !self.cycle.is_leaving() {
                    output::complain(&format!("{error:#}; waiting for a change"));
                }
                Build::Failed
            }
        };
        let order = self.handle(Input::Built(build))?;
        if order == Order::WaitAsBefore {
            output::complain("the program has not changed: nothing to run");
        }
        Ok(order)
    }

    /// Takes an input in and does what follows, as far as that is the same whatever it was.
    fn handle(&mut self, input: Input) -> Result<Order, Failure> {
        let order = self.cycle.handle(self.began.elapsed(), input);
        match order {
            Order::Build => {
                output::complain("building");
                // Only with sources a build is ever asked for.
                let root = self.root.clone().unwrap_or_default();
                self.start(Kind::Build, &mut task::build(&root))?;
            }
            Order::Run => {
                self.runs += 1;
                output::complain(&format!("run {}", self.runs));
                let mut command = self.run_command();
                self.start(Kind::Run, &mut command)?;
            }
            Order::End => {
                if let Some(task) = &self.task {
                    task.interrupt();
                }
            }
            Order::Wait | Order::WaitAsBefore | Order::Show | Order::Quit => {}
        }
        Ok(order)
    }

    fn start(&mut self, kind: Kind, command: &mut Command) -> Result<(), Failure> {
        let program = command.as_std().get_program().to_os_string();
        let started = Task::start(kind, command).map_err(|error| {
            let program = program.display();
            Failure::Harness(anyhow::Error::new(error).context(format!("cannot start {program}")))
        });
        self.task = Some(started?);
        Ok(())
    }

    fn run_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(&self.arguments.file);
        match self.arguments.seed {
            Some(seed) => command.arg("--seed").arg(seed.to_string()),
            None => command.args(["--seeds-max", "1"]),
        };
        command.args(["--world", self.world.name()]);
        let Ground { runtime, speed } = &self.arguments.ground;
        command.args(["--runtime", runtime, "--speed", &speed.to_string()]);
        for one in &self.arguments.overrides {
            command.arg("--set").arg(files::assignment(one));
        }
        command.args(["--format", "json", "--keep", "--store"]);
        command.arg(self.store.path());
        command
    }

    /// Shows what came of a run, and what is different from the one before.
    fn show(&mut self, output: &Output) -> Result<(), Failure> {
        let ended = match task::ran(output) {
            Ok(ended) => ended,
            Err(error) => {
                output::complain(&format!("{error:#}; waiting for a change"));
                return Ok(());
            }
        };
        output::print_summary(std::slice::from_ref(&ended.report), Format::Table)?;
        if let Some(last) = &self.last {
            output::print(&since::render(&compared(last), &compared(&ended)))?;
        }
        self.last = Some(ended);
        Ok(())
    }
}

fn compared(ended: &Ended) -> since::Run<'_> {
    since::Run {
        report: &ended.report,
        events: ended.events.as_deref().map_err(String::as_str),
    }
}

/// The end of what is being done, if something is.
async fn ended(task: &mut Option<Task>) -> std::io::Result<Output> {
    match task {
        Some(task) => task.ended().await,
        None => pending().await,
    }
}

/// When a program was written.
fn stamp(program: &Path) -> Option<SystemTime> {
    std::fs::metadata(program).ok()?.modified().ok()
}

/// The first of the changed files.
fn named(found: &Found) -> String {
    let shown = found.files.iter().take(FILES_SHOWN);
    let mut names: Vec<String> = shown.map(|it| it.display().to_string()).collect();
    let hidden = found.files.len().saturating_sub(FILES_SHOWN);
    if hidden > 0 {
        names.push(format!("{hidden} more"));
    }
    let needs = match found.change {
        Change::Scenario => "",
        Change::Sources => ", to be built",
    };
    format!("{}{needs}", names.join(", "))
}
