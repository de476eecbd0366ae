//! Tells the program which commit it was built from, so that every failure can name it. Without
//! git, or outside a clone, the program does not know and says nothing.

use std::process::Command;

fn main() {
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=WAVETANK_COMMIT={commit}");
    }
    // Grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).ok())??;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
