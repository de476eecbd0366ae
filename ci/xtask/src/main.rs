//! `cargo run -p xtask -- ...`: the checks of this repository that no compiler does.
//!
//! Map: `tidy` (house rules over all files), `published` (files that the code
//! generates are up to date), `masked` (which bytes of a Rust file are code). Nothing here ships,
//! and nothing here changes a file unless the command says so.

mod masked;
mod published;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::published::Published;

/// The repository's own checks.
#[derive(Parser)]
#[command(name = "xtask")]
enum Task {
    /// Checks the house rules: layers, banned APIs, sizes, names, spelling of files.
    Tidy,
    /// Writes sim/scenario/schema.json from the code.
    Schema {
        /// Only says whether the file is what the code generates.
        #[arg(long)]
        check: bool,
    },
    /// Writes scenarios/README.md, the table of scenario files, from what they say.
    Index {
        /// Only says whether the file is what the scenario files say.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = repository_root().and_then(|root| match Task::parse() {
        Task::Tidy => tidy::run(&root),
        Task::Schema { check } => Published::Schema.run(&root, check),
        Task::Index { check } => Published::Index.run(&root, check),
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder above `ci/xtask`, where this program was built.
fn repository_root() -> anyhow::Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("ci/xtask has no folder two levels above it")
}
