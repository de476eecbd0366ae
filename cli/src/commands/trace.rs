//! `wavetank trace`: one run, event by event, as JSON Lines.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use clap::Args;
use wavetank_reports::exit_code;
use wavetank_scenario::Override;

use crate::failure::Failure;
use crate::seeds::parse_seed;
use crate::world::World;
use crate::{files, runner, store};

/// Print everything that happens in one run, event by event, as JSON Lines.
#[derive(Args)]
pub struct TraceArguments {
    /// The scenario file.
    file: PathBuf,
    /// The seed, decimal or 0x hexadecimal.
    #[arg(long, value_name = "N", value_parser = parse_seed)]
    seed: u64,
    /// The world to run in.
    #[arg(long, default_value = World::Event.name())]
    world: String,
    /// Replaces a field of the file.
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = files::parse_assignment)]
    overrides: Vec<Override>,
}

/// Prints the trace. The exit code does not judge: `check` does.
pub fn run(arguments: &TraceArguments) -> Result<u8, Failure> {
    let world = World::named(&arguments.world)?;
    let scenarios = files::load_all(std::slice::from_ref(&arguments.file), &arguments.overrides)?;
    for scenario in &scenarios {
        let plan = runner::plan(scenario, arguments.seed).map_err(anyhow::Error::msg)?;
        let out = BufWriter::new(io::stdout().lock());
        let written = store::trace_to(out, world, &plan).and_then(|mut out| Ok(out.flush()?));
        // A reader that has gone away has seen enough.
        if let Err(error) = written
            && !is_broken_pipe(&error)
        {
            return Err(Failure::Harness(error));
        }
    }
    Ok(exit_code::PASS)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
