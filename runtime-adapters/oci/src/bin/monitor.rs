//! `wavetank-monitor`: a monitor for programs that cannot be their own. Everything is in
//! `wavetank_oci::monitor`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wavetank_oci::monitor::main_if_asked().unwrap_or_else(|| {
        eprintln!("wavetank-monitor is run by the oci adapter, not by hand");
        ExitCode::from(2)
    })
}
