//! A real runtime measured, and the simulated one made like it. Any time is right on some machine:
//! only what must hold on every one is looked at.

use serde_json::Value;

use crate::folder::{Folder, Said};
use crate::up::is_usable;

const STEPS: [&str; 9] = [
    "pull",
    "create",
    "start",
    "start-to-end",
    "exit-seen",
    "start-to-exit",
    "exit-event",
    "inspect",
    "delete",
];

/// A scenario that includes what was measured.
const SCENARIO: &str = "scenario: 1
name: measured
include: measured.yaml
seeds: 2
horizon: 20s
settle: 20s
images: { job: { run_for: 0ms, exit_code: 0, pull: { size: 4MiB } } }
workload: [{ at: 1s, deploy: batch, image: job, completions: 8 }]
expect: { eventually: [{ check: 'service(\"batch\").complete == 8', within: 10s }] }
";

fn calibrate(folder: &Folder, more: &[&str]) -> std::io::Result<Said> {
    folder.wavetank(&[&["calibrate"][..], more].concat())
}

/// Few lives are much chance, so the model may be found to be off; all else must be right.
fn is_measured(runtime: &'static str) -> std::io::Result<()> {
    if !is_usable(runtime) {
        return Ok(());
    }
    let folder = Folder::new()?;
    let few = ["--runtime", runtime, "--lives", "20", "--format", "json"];
    let said = calibrate(
        &folder,
        &[&few[..], &["--output", "measured.yaml"]].concat(),
    )?;
    let report: Value = serde_json::from_str(&said.out)?;
    let within = report["within"] == true;
    assert_eq!(
        said.code,
        Some(i32::from(!within)),
        "{}{}",
        said.out,
        said.err
    );
    assert_eq!(
        (&report["runtime"], &report["lives"]),
        (&runtime.into(), &20.into())
    );
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<&Value> = steps.iter().map(|row| &row["step"]).collect();
    assert_eq!(names, STEPS);
    for row in steps {
        let times = |of: &str| ["p50_us", "p95_us"].map(|it| row[of][it].as_u64().unwrap());
        let [middle, late] = times("measured");
        assert!(middle <= late, "{row}");
        assert!(row["step"] == "exit-seen" || middle > 0, "{row}");
        times("before");
        // What the model takes as it is given comes out as it went in, whatever it is.
        let given = !matches!(row["step"].as_str(), Some("start-to-exit" | "start-to-end"));
        let off = row["off_percent"]["p50"].as_i64().unwrap();
        assert!(!given || off.abs() <= 25 || middle < 100, "{row}");
    }
    assert_eq!(report["measured"]["exit_events_lost"], 0, "{}", said.out);

    // A scenario can include it, and runs the same way each time.
    folder.write("scenario.yaml", SCENARIO)?;
    let run = folder.wavetank(&["run", "scenario.yaml", "--check-determinism"])?;
    assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
    let explained = folder.wavetank(&["scenario", "explain", "scenario.yaml"])?;
    assert!(
        explained.out.contains("\nruntimes: pull "),
        "{}",
        explained.out
    );
    Ok(())
}

#[test]
fn containerd_is_measured() -> std::io::Result<()> {
    is_measured("containerd")
}

#[test]
fn podman_is_measured() -> std::io::Result<()> {
    is_measured("podman")
}

#[test]
fn an_oci_runtime_is_measured() -> std::io::Result<()> {
    is_measured("oci")
}

/// A profile from elsewhere is judged by what this machine does.
#[test]
fn a_profile_that_does_not_hold_is_told() -> std::io::Result<()> {
    if !is_usable("oci") {
        return Ok(());
    }
    let folder = Folder::new()?;
    let slow = "cluster: { runtime: { steps: { create: 20s..30s } } }\n";
    folder.write("slow.yaml", slow)?;
    let few = ["--runtime", "oci", "--lives", "3", "--profile", "slow.yaml"];
    let said = calibrate(&folder, &few)?;
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("\ncreate is off by +"), "{}", said.out);
    Ok(())
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is() -> std::io::Result<()> {
    let folder = Folder::new()?;
    folder.write(
        "falls.yaml",
        "cluster: { runtime: { steps: { call: { p0: 2s, p100: 1s } } } }\n",
    )?;
    let complaint = |more: &[&str]| -> std::io::Result<String> {
        let said = calibrate(&folder, more)?;
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{more:?}");
        Ok(said.err)
    };
    let oci = |more: &[&'static str]| [&["--runtime", "oci"][..], more].concat();
    let sim = complaint(&["--runtime", "sim"])?;
    assert_eq!(
        sim,
        "error: the simulated runtime is what is calibrated: name containerd, podman or oci\n"
    );
    let nowhere = complaint(&oci(&["--output", "nowhere/x.yaml"]))?;
    assert_eq!(
        nowhere,
        "error: cannot write the profile: there is no folder nowhere\n"
    );
    let folder = complaint(&oci(&["--output", "all"]))?;
    assert_eq!(folder, "error: cannot write the profile: all is a folder\n");
    let missing = complaint(&oci(&["--profile", "none.yaml"]))?;
    assert!(
        missing.starts_with("error: cannot read none.yaml: "),
        "{missing}"
    );
    let falls = complaint(&oci(&["--profile", "falls.yaml"]))?;
    assert!(
        falls.contains("`p100` of `call` is shorter than its `p0`"),
        "{falls}"
    );
    assert!(
        falls.ends_with("error: falls.yaml is not valid\n"),
        "{falls}"
    );
    assert!(complaint(&oci(&["--lives", "0"]))?.contains("--lives"));
    Ok(())
}
