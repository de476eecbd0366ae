//! The developer's loop: scenarios and sources change, and what became different is said.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::folder::Folder;

/// Longest that anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A loop that runs, and what it says on either output.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // After a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        pass_on(child.stdout.take().unwrap(), sender.clone());
        pass_on(child.stderr.take().unwrap(), sender);
        Dev { child, lines }
    }

    /// What it says until it says this.
    fn until(&self, words: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while said.last().is_none_or(|it: &String| !it.contains(words)) {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => said.push(line),
                Err(error) => panic!("no `{words}` ({error}) in:\n{}", said.join("\n")),
            }
        }
        said
    }

    /// Ctrl-C; what it says at last, and its exit code.
    fn interrupt(mut self) -> (Vec<String>, Option<i32>) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let code = self.child.wait().unwrap().code();
        (self.lines.iter().collect(), code)
    }
}

fn pass_on(output: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
}

fn has(said: &[String], words: &str) -> bool {
    said.iter().any(|line| line.contains(words))
}

#[test]
fn an_edited_scenario_is_run_again_and_compared() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let dev = Dev::start(&mut folder.command(&["dev", "all/good.yaml", "--seed", "1"]));
    let begin = dev.until("1 run of 1 scenario: 1 passed");
    assert!(has(&begin, "no wavetank sources here"), "{begin:?}");
    let text = fs::read_to_string(folder.path().join("all/good.yaml"))?;
    folder.write(
        "all/good.yaml",
        &text.replace("running == 3", "running == 4"),
    )?;
    let said = dev.until("history:");
    assert!(has(&said, "changed: all/good.yaml"), "{said:?}");
    assert!(has(&said, "  verdict: pass -> fail"), "{said:?}");
    assert!(has(&said, "  new: eventually"), "{said:?}");
    folder.write("all/good.yaml", &text.replace("replicas", "replcas"))?;
    let said = dev.until("there was no run (exit status: 2)");
    assert!(has(&said, "replcas"), "{said:?}");
    // It is compared with the last run that there was.
    folder.write("all/good.yaml", &text)?;
    let said = dev.until("history:");
    assert!(has(&said, "  verdict: fail -> pass"), "{said:?}");
    assert!(has(&said, "  gone: eventually"), "{said:?}");
    let (_, code) = dev.interrupt();
    assert_eq!(code, Some(0));
    Ok(())
}

/// A folder that looks like our sources, and a `cargo` that says what it was told to.
fn sources(folder: &Folder) -> std::io::Result<Command> {
    folder.write("Cargo.toml", "[workspace]\n")?;
    folder.write("cli/Cargo.toml", "[package]\nname = \"wavetank\"\n")?;
    let program = env!("CARGO_BIN_EXE_wavetank");
    let script = format!(
        "#!/bin/sh\n\
         if [ -e broken ]; then echo 'error: it is broken' >&2; exit 101; fi\n\
         name=$(cat name)\n\
         [ -e $name ] || ln -s '{program}' $name\n\
         echo \"{{\\\"executable\\\":\\\"$PWD/$name\\\"}}\"\n"
    );
    folder.write("cargo", &script)?;
    folder.write("name", "program")?;
    let cargo = folder.path().join("cargo");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;
    let mut command = folder.command(&["dev", "all/good.yaml", "--seed", "1"]);
    command.env("CARGO", cargo);
    Ok(command)
}

#[test]
fn edited_sources_are_built_and_a_build_that_fails_ends_nothing() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let dev = Dev::start(&mut sources(&folder)?);
    let begin = dev.until("1 run of 1 scenario: 1 passed");
    assert!(has(&begin, "building"), "{begin:?}");
    folder.write("sim/src/lib.rs", "//! Nothing.\n")?;
    let said = dev.until("the program has not changed: nothing to run");
    assert!(has(&said, "sim/src/lib.rs, to be built"), "{said:?}");
    folder.write("broken", "")?;
    folder.write("sim/src/lib.rs", "//! Wrong.\n")?;
    let said = dev.until("the build failed (exit status: 101)");
    assert!(has(&said, "error: it is broken"), "{said:?}");
    // Now the scenario alone is not enough: the program is not that of these sources.
    fs::remove_file(folder.path().join("broken"))?;
    folder.write("sim/src/lib.rs", "//! Right.\n")?;
    dev.until("the program has not changed: nothing to run");
    let text = fs::read_to_string(folder.path().join("all/good.yaml"))?;
    folder.write(
        "all/good.yaml",
        &text.replace("running == 3", "running < 4"),
    )?;
    let said = dev.until("history:");
    assert!(!has(&said, "building"), "{said:?}");
    assert!(has(&said, "  verdict: pass, as before"), "{said:?}");
    folder.write("name", "other-program")?;
    folder.write("sim/src/lib.rs", "//! Other.\n")?;
    let said = dev.until("history: the same, to the byte");
    assert!(has(&said, "building"), "{said:?}");
    assert_eq!(dev.interrupt().1, Some(0));
    Ok(())
}

#[test]
fn what_cannot_be_looped_over_is_said_at_once() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let cases: [(&[&str], &str); 4] = [
        (
            &["none.yaml"],
            "there is no none.yaml: `wavetank dev` wants",
        ),
        (&["all"], "all is no file"),
        (&["all/good.yaml", "--world", "all"], "runs in one world"),
        (
            &["all/good.yaml", "--runtime", "docker"],
            "no runtime `docker`",
        ),
    ];
    for (arguments, words) in cases {
        let said = folder.wavetank(&[&["dev"], arguments].concat())?;
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(words), "{}", said.err);
    }
    Ok(())
}
