//! The tools of the system that a room is made with, and what they say when they fail.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wavetank_fixtures::daemon::network_namespace;

use super::error::RoomError;

/// Each tool with its Debian package.
const TOOLS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables-restore", "iptables"),
];
/// A user's `PATH` may lack where administrators' tools are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// Says what keeps this user on this machine from having rooms, if anything does.
pub(crate) fn check() -> Result<(), RoomError> {
    if !rustix::process::geteuid().is_root() {
        return Err(unable("this is not root", "run as root"));
    }
    for (tool, package) in TOOLS {
        if !PATH.split(':').any(|it| Path::new(it).join(tool).exists()) {
            let hint = format!("install the package {package}, as ci/setup-runtimes does");
            return Err(unable(&format!("`{tool}` is not installed"), &hint));
        }
    }
    Ok(())
}

pub(crate) fn unable(what: &str, hint: &str) -> RoomError {
    RoomError::Unable {
        what: what.to_owned(),
        hint: hint.to_owned(),
    }
}

/// Runs a tool where we are; `line` is split at blanks.
pub(crate) fn run(line: &str) -> Result<String, RoomError> {
    finish(line, "", spawn(line, ""))
}

/// Runs a tool with this on its standard input.
pub(crate) fn run_with_input(line: &str, input: &str) -> Result<String, RoomError> {
    finish(line, input, spawn(line, input))
}

/// The same in a network namespace.
pub(crate) fn run_within(namespace: &Path, line: &str, input: &str) -> Result<String, RoomError> {
    let output = network_namespace::within(namespace, || spawn(line, input));
    finish(line, input, output)
}

fn spawn(line: &str, input: &str) -> io::Result<Output> {
    let mut words = line.split_ascii_whitespace();
    let mut child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading it all says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn finish(line: &str, input: &str, output: io::Result<Output>) -> Result<String, RoomError> {
    let failed = |status: String, said: &[u8]| {
        let mut stderr = String::from_utf8_lossy(said).trim().to_owned();
        if !input.is_empty() {
            stderr = format!("{stderr}; its input was:\n{input}");
        }
        RoomError::Tool {
            command: line.to_owned(),
            status,
            stderr,
        }
    };
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(failed(output.status.to_string(), &output.stderr)),
        Err(error) => Err(failed(
            "it was not run".to_owned(),
            error.to_string().as_bytes(),
        )),
    }
}
