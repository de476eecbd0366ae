//! What a cluster of real processes costs: only the shape of the answer, since any figure is right
//! on some machine.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::folder::{Folder, said};

const SMALL: [&str; 8] = [
    "bench",
    "--shell",
    "--managers",
    "1",
    "--agents",
    "2",
    "--seconds",
    "5",
];

/// `bench` in a folder, with its cluster below that folder.
fn bench(folder: &Folder, more: &[&str]) -> Command {
    let mut command = folder.command(&[&SMALL[..], more].concat());
    command.env("TMPDIR", folder.path());
    command
}

/// Processes of the cluster that lives below the folder.
fn nodes_of(folder: &Folder) -> Vec<String> {
    let of_cluster = |pid: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(folder.path().to_str().unwrap())
            .then_some(line)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    let pids = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter_map(|pid| of_cluster(&pid)).collect()
}

#[test]
fn a_cluster_is_measured_idle_and_busy_and_ended() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let said = said(&bench(&folder, &["--format", "json"]).output()?);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows: Value = serde_json::from_str(&said.out).map_err(std::io::Error::other)?;
    let loads: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["load"])
        .collect();
    assert_eq!(loads, ["idle", "busy"]);
    for row in rows.as_array().unwrap() {
        let nodes = (&row["managers"]["nodes"], &row["agents"]["nodes"]);
        assert_eq!(nodes, (&Value::from(1), &Value::from(2)));
        for role in ["managers", "agents"] {
            let memory = |what: &str| row[role][what].as_u64().unwrap();
            let (median, max) = (
                memory("resident_bytes_median"),
                memory("resident_bytes_max"),
            );
            assert!(median > 1 << 20 && median <= max, "{row}");
            assert!(memory("proportional_bytes_median") <= max, "{row}");
        }
    }
    let busy = &rows[1];
    for what in ["writes_per_second", "changes_per_second"] {
        assert_eq!(rows[0][what], 0.0, "{rows}");
        assert!(busy[what].as_f64().unwrap() > 0.0, "{busy}");
    }
    for what in [
        "messages_per_second",
        "bytes_per_second",
        "cpu_seconds_per_second",
    ] {
        assert!(busy["managers"][what].as_f64().unwrap() > 0.0, "{busy}");
    }
    assert_eq!(nodes_of(&folder), [""; 0]);
    Ok(())
}

#[test]
fn an_interrupted_measurement_ends_its_cluster() -> std::io::Result<()> {
    let folder = Folder::new()?;
    let mut command = bench(&folder, &[]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let began = Instant::now();
    let is_agent = |line: &String| line.contains("agent-sim");
    while !nodes_of(&folder).iter().any(is_agent) {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "no agent starts"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    let said = said(&child.wait_with_output()?);
    assert_eq!(
        (said.code, said.err.trim_end()),
        (Some(6), "error: ended by SIGINT")
    );
    assert_eq!(nodes_of(&folder), [""; 0]);
    Ok(())
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.unwrap(), Signal::INT).unwrap();
}

#[test]
fn a_cluster_that_cannot_be_measured_is_wrong_usage() -> std::io::Result<()> {
    let folder = Folder::new()?;
    for nothing in [
        ["--agents", "0"],
        ["--managers", "0"],
        ["--virtual-seconds", "0"],
    ] {
        let said = folder.wavetank(&[&["bench"][..], &nothing].concat())?;
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("0 is not in 1.."), "{}", said.err);
    }
    let said = folder.wavetank(&["bench", "--shell", "--agents", "101"])?;
    let why = "error: a measured cluster has 1 to 9 managers and 1 to 100 agents\n";
    assert_eq!((said.code, said.err.as_str()), (Some(2), why));
    Ok(())
}
