//! `wavetank-chaos-runtime`: an OCI runtime that does wrong by rules. Everything is in
//! `wavetank_oci::chaos`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wavetank_oci::chaos::main()
}
