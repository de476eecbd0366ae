//! Removals, creates and adoptions that others come into.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wavetank_oci::{Config, MonitorProgram, OciRuntime};
use wavetank_port::{ContainerId, ContainerRuntime as _, ErrorClass};

use crate::recovery::{kill_monitor, monitor_of};
use crate::support::{Bed, LONG, config, leftovers, script, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_does_not_mind_others_who_empty_the_trash() {
    let Some(bed) = Bed::new().await else { return };
    // What callers leave that die at the very beginning: whoever opens the root removes it.
    for number in 0..500 {
        let path = bed.container(&ContainerId(format!("c{number}")));
        fs::create_dir(path).expect("folder");
    }
    let trash = bed.folder.path().join("root/trash");
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    let sweep = std::thread::spawn(move || {
        while !is_done.load(Ordering::Relaxed) {
            for item in fs::read_dir(&trash).expect("trash").flatten() {
                let _ = fs::remove_dir_all(item.path());
            }
        }
    });
    bed.reopened().await;
    done.store(true, Ordering::Relaxed);
    sweep.join().expect("swept");
    assert_eq!(leftovers(bed.folder.path()), Vec::<String>::new());
    bed.close().await;
}

/// Its monitor is dead, and the OCI runtime's create goes on between the removal's two steps.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_goes_on_under_its_removal_undoes_itself() {
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("runtime");
    let text = r#"
        await() { while [ ! -e "$0.$1" ]; do sleep 0.01; done; }
        case " $* " in
        *" create "*) : >"$0.creating"; await deleted; runc "$@"; code=$?; : >"$0.created" ;;
        *" delete "*) runc "$@"; code=$?; : >"$0.deleted"; await created ;;
        *) exec runc "$@" ;;
        esac
        exit $code"#;
    script(&program, text);
    let Some(bed) = Bed::with_runtime(&program).await else {
        return;
    };
    let (runtime, spec) = (bed.runtime.clone(), spec("a", &["/bin/true"]));
    let id = spec.id.clone();
    let creation = tokio::spawn(async move { runtime.create(&spec, LONG).await });
    while !program.with_extension("creating").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    kill_monitor(&bed, &id).await;
    let error = creation.await.expect("joined").expect_err("it died");
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    assert!(program.with_extension("created").exists());
    assert_eq!(leftovers(bed.folder.path()), Vec::<String>::new());
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_patience_with_an_adoption_does_not_break_it_off() {
    let Some(mut bed) = Bed::new().await else {
        return;
    };
    let program = bed.folder.path().join("monitor");
    // Longer than an observer waits.
    let text = r#"
        echo >>"$0.runs"
        [ -e "$0.slow" ] && sleep 2
        exec "$0.real" "$@""#;
    script(&program, text);
    let real = env!("CARGO_BIN_EXE_wavetank-monitor");
    std::os::unix::fs::symlink(real, program.with_extension("real")).expect("link");
    let config = Config {
        monitor: MonitorProgram::Program(program.clone()),
        ..config(bed.folder.path(), Path::new("runc"))
    };
    bed.runtime = OciRuntime::open(config, LONG).await.expect("open");
    let id = bed.run("a", "while :; do sleep 0.1; done").await;
    fs::write(program.with_extension("slow"), b"").expect("slow");
    let killed = monitor_of(&bed, &id);
    kill_monitor(&bed, &id).await;
    while monitor_of(&bed, &id) == killed {
        bed.runtime.inspect(&id, LONG).await.expect("inspect");
    }
    let runs = fs::read_to_string(program.with_extension("runs")).expect("runs");
    assert_eq!(runs.lines().count(), 2, "one at the create, one afterwards");
    bed.close().await;
}
