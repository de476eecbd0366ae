//! A folder with small scenarios, and the program started in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A cluster that deploys three replicas, and what is expected of it.
fn scenario(name: &str, seeds: &str, faults: &str, running: u32) -> String {
    format!(
        "scenario: 1\n\
         name: {name}\n\
         seeds: {seeds}\n\
         horizon: 20s\n\
         settle: 20s\n\
         cluster:\n  managers: 3\n  agents: {{ count: 3, cpus: 4, memory: 8GiB }}\n\
         images:\n  web: {{ run: forever, health: ok, pull: {{ size: 4MiB }} }}\n\
         workload:\n  - {{ at: 1s, deploy: web, image: web, replicas: 3 }}\n\
         faults: {faults}\n\
         expect:\n  invariants: all\n  eventually:\n    \
         - {{ check: 'service(\"web\").running == {running}', within: 10s }}\n"
    )
}

const NEVER_FIRES: &str = "\n  - { name: never, action: process-kill, target: { role: leader }, \
                           on: { event: task.state, occurrence: 90000 }, for: 1s }";

/// What a command printed.
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// What went to stdout.
    pub out: String,
    /// What went to stderr.
    pub err: String,
}

/// The folder.
pub struct Folder {
    folder: TempDir,
}

impl Folder {
    /// `good.yaml` passes, `bad.yaml` fails, `idle.yaml` is inconclusive; beside them lies what
    /// is no scenario.
    pub fn new() -> std::io::Result<Self> {
        let folder = Folder {
            folder: tempfile::tempdir()?,
        };
        folder.write("all/good.yaml", &scenario("good", "3", "[]", 3))?;
        folder.write("all/bad.yaml", &scenario("bad", "[7, 0x1a]", "[]", 4))?;
        folder.write("all/idle.yaml", &scenario("idle", "1", NEVER_FIRES, 3))?;
        folder.write("all/_part.yaml", "scenario: 1\n")?;
        folder.write("all/shared/part.yaml", "scenario: 1\n")?;
        folder.write("all/notes.yaml", "notes: 1\n")?;
        folder.write("empty/notes.yaml", "notes: 1\n")?;
        let wrong = scenario("wrong", "1", "[]", 3).replace("replicas", "replcas");
        folder.write("wrong.yaml", &wrong)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a file.
    pub fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(self.path()))?;
        fs::write(path, text)
    }

    /// The program in this folder, with nothing of the outside that could show.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wavetank"));
        command.args(arguments).current_dir(self.path());
        command
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .env_remove("COLUMNS");
        command
    }

    /// Starts the program and waits for it.
    pub fn wavetank(&self, arguments: &[&str]) -> std::io::Result<Said> {
        Ok(said(&self.command(arguments).output()?))
    }
}

/// Takes an output apart.
pub fn said(output: &Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Redacts what the engine measured and what the build knew, then runs `check`.
pub fn redacted(check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"[0-9a-f]{40}", "[commit]");
    settings.add_filter(r"[0-9a-f]{32}", "[digest]");
    settings.add_filter(r#""events":\d+"#, r#""events":"[events]""#);
    settings.add_filter(r"[\d,]+ events", "[events] events");
    settings.add_filter(r" +[\d,]+ +([\d.]+(ms|s)|\d+m \d\ds) │", " [events] $1 │");
    settings.add_filter(r"[─═]+", "─");
    settings.add_filter(r" +│", " │");
    settings.add_filter(r"virtual time +", "virtual time ");
    settings.bind(check);
}
