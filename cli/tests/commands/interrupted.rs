//! A set of live runs that is asked to end: what runs is taken back, and nothing else begins.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::folder::{Folder, said};
use crate::up::is_usable;

/// Longest that anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What runs have in this folder for temporary files.
fn rooms(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let is_room = |path: &PathBuf| path.file_name().is_some_and(is_temporary);
    entries.filter(is_room).collect()
}

fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("wt")
}

fn until(what: &str, child: &mut Child, mut is_so: impl FnMut(&mut Child) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so(child) {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("not {what} within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Six runs are asked for; the first of them is interrupted.
fn ends_by(signal: Signal, name: &str) -> std::io::Result<()> {
    let folder = Folder::new()?;
    let live = ["--world", "live", "--runtime", "oci", "--speed", "10"];
    let set = [
        "run",
        "all/good.yaml",
        "--seeds",
        "0..6",
        "--set",
        "worlds=[live]",
    ];
    let mut child = folder
        .command(&[&set[..], &live[..]].concat())
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    until("begun", &mut child, |_| {
        let nodes = |room: &PathBuf| fs::read_dir(room).is_ok_and(|it| it.count() > 2);
        rooms(folder.path()).iter().any(nodes)
    });
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal)?;
    until("ended", &mut child, |child| {
        child.try_wait().is_ok_and(|it| it.is_some())
    });
    let said = said(&child.wait_with_output()?);
    assert_eq!(said.code, Some(6), "{}{}", said.out, said.err);
    assert!(
        said.err.contains(&format!("ended by {name}")),
        "{}",
        said.err
    );
    assert!(
        !said.out.contains("pass"),
        "no run came to its end: {}",
        said.out
    );
    assert_eq!(rooms(folder.path()), Vec::<PathBuf>::new());
    Ok(())
}

#[test]
fn a_signal_ends_the_whole_set_and_leaves_nothing() -> std::io::Result<()> {
    if !is_usable("oci") {
        return Ok(());
    }
    ends_by(Signal::TERM, "SIGTERM")?;
    ends_by(Signal::INT, "SIGINT")
}
