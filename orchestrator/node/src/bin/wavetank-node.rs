//! The node's program; all of it is in the library, `program`.

use std::process::ExitCode;

use clap::Parser as _;
use wavetank_node::program::{self, Arguments};

fn main() -> ExitCode {
    // A container of the oci adapter is watched by this program, run again.
    if let Some(code) = wavetank_oci::monitor::main_if_asked() {
        return code;
    }
    program::main(Arguments::parse())
}
