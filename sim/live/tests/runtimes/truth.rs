//! The observer on real runtimes: everything that happens is told once, in order, as it was.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wavetank_fixtures::daemon::process::Process;
use wavetank_live::images::{LiveImages, health_command};
use wavetank_live::truth::{self, Observer, Source, Told};
use wavetank_port::{ContainerId, ContainerRuntime, ExecRequest, ExitCode, Signal};
use wavetank_scenario::plan::{Image, OnTerm, Range};
use wavetank_trace::{ExitCause, Payload};

use crate::bed::{Case, LONG, OciBed, create, delete_all, eventually, image, registry, start};
use crate::daemons::DaemonBed;

pub const CASES: &[Case] = &[
    Case {
        name: "truth-oci-tells-everything",
        usable: OciBed::usable,
        run: || Box::pin(oci_tells_everything()),
    },
    Case {
        name: "truth-containerd-tells-everything",
        usable: DaemonBed::containerd_usable,
        run: || Box::pin(async { daemon_tells_everything(DaemonBed::containerd().await).await }),
    },
    Case {
        name: "truth-podman-tells-everything",
        usable: DaemonBed::podman_usable,
        run: || Box::pin(async { daemon_tells_everything(DaemonBed::podman().await).await }),
    },
];

fn plan() -> BTreeMap<String, Image> {
    let lasts = |milliseconds| {
        let time = Duration::from_millis(milliseconds);
        Some(Range {
            min: time,
            max: time,
        })
    };
    let job = |milliseconds| Image {
        run_for: lasts(milliseconds),
        exit_code: 3,
        ..image()
    };
    let polite = Image {
        on_term: OnTerm::Exits {
            after: Duration::ZERO,
            code: Some(0),
        },
        ..image()
    };
    let images = [
        ("web", image()),
        ("quick", job(0)),
        ("slow", job(15_000)),
        ("polite", polite),
    ];
    images.map(|(name, image)| (name.to_owned(), image)).into()
}

/// What an observer has told.
struct Watched {
    observer: Observer,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Watched {
    fn start(source: Arc<dyn Source>) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let observer = Observer::start(
            source,
            Box::new(|_| Vec::new()),
            Box::new(move |it| sink.lock().expect("no panic").push(it)),
        );
        Watched { observer, told }
    }

    /// What was told of one container, a word or two each; times must be in order.
    fn of(&self, wanted: &ContainerId) -> Vec<String> {
        let told = self.told.lock().expect("no panic");
        let mut latest = 0;
        let mut lines = Vec::new();
        for Told { at, payload } in told.iter() {
            let (id, line) = match payload {
                Payload::ContainerCreated { container, .. } => (container, "created".to_owned()),
                Payload::ContainerStarted { container, .. } => (container, "started".to_owned()),
                Payload::ContainerExited {
                    container,
                    exit,
                    because,
                } => (container, format!("exited {} {because:?}", exit.code)),
                Payload::ContainerExitForgotten { container } => {
                    (container, "forgotten".to_owned())
                }
                Payload::ContainerDeleted { container } => (container, "deleted".to_owned()),
                other => panic!("{other:?}"),
            };
            if id == wanted {
                assert!(*at >= latest, "{wanted}: {line} goes back in time");
                latest = *at;
                lines.push(line);
            }
        }
        lines
    }

    /// Waits until as much has been told as is expected, and finds exactly that.
    async fn expect(&self, id: &ContainerId, expected: &[&str]) {
        let all = async || (self.of(id).len() >= expected.len()).then_some(());
        eventually(&format!("{id}: {expected:?}, but {:?}", self.of(id)), all).await;
        assert_eq!(self.of(id), expected, "{id}");
    }
}

async fn oci_tells_everything() {
    let (_registry, live) = registry(&plan(), 1).await;
    let bed = OciBed::new().await;
    // As in a node's folder.
    let root = bed.folder.path().join("oci");
    std::fs::create_dir(&root).expect("folder");
    std::os::unix::fs::symlink("../root", root.join("root")).expect("link");
    let watched = Watched::start(truth::oci(bed.folder.path()));
    lives_are_told(&*bed.runtime, &live, &watched).await;
    delete_all(&*bed.runtime).await;
    finish(watched).await;
}

async fn daemon_tells_everything(mut bed: DaemonBed) {
    let (_registry, live) = registry(&plan(), 1).await;
    let watched = Watched::start(bed.source().await);
    lives_are_told(&*bed.runtime, &live, &watched).await;
    outage_is_survived(&mut bed, &live, &watched).await;
    delete_all(&*bed.runtime).await;
    finish(watched).await;
}

/// Whatever exists no more has been told of to its end.
async fn finish(watched: Watched) {
    let Watched { observer, told } = watched;
    observer.finish().await;
    let told = told.lock().expect("no panic");
    let count = |kind: fn(&Payload) -> bool| told.iter().filter(|it| kind(&it.payload)).count();
    let created = count(|it| matches!(it, Payload::ContainerCreated { .. }));
    let deleted = count(|it| matches!(it, Payload::ContainerDeleted { .. }));
    assert_eq!(created, deleted);
}

async fn lives_are_told(runtime: &dyn ContainerRuntime, live: &LiveImages, watched: &Watched) {
    let whole = ["created", "started", "exited 3 Itself", "deleted"];
    for number in 0..5 {
        let id = start(runtime, live, "quick", &format!("quick-{number}")).await;
        let exit = runtime.wait(&id, LONG).await.expect("wait");
        assert_eq!(exit.code, ExitCode::Known(3));
        // At once, so that some of them are never in a listing.
        runtime.delete(&id, false, LONG).await.expect("delete");
        watched.expect(&id, &whole).await;
    }
    let never = create(runtime, live, "web", "never-started", None).await;
    watched.expect(&never, &["created"]).await;
    runtime.delete(&never, false, LONG).await.expect("delete");
    watched.expect(&never, &["created", "deleted"]).await;

    let killed = start(runtime, live, "web", "killed").await;
    runtime
        .kill(&killed, Signal::Kill, LONG)
        .await
        .expect("kill");
    watched
        .expect(&killed, &["created", "started", "exited 137 Killed"])
        .await;

    let struck = start(runtime, live, "web", "struck").await;
    watched.observer.mark(&struck, ExitCause::Fault);
    runtime
        .kill(&struck, Signal::Kill, LONG)
        .await
        .expect("kill");
    watched
        .expect(&struck, &["created", "started", "exited 137 Fault"])
        .await;

    let stopped = start(runtime, live, "polite", "stopped").await;
    obeys(runtime, &stopped).await;
    watched.observer.mark(&stopped, ExitCause::Terminated);
    runtime.stop(&stopped, LONG, LONG).await.expect("stop");
    watched
        .expect(&stopped, &["created", "started", "exited 0 Terminated"])
        .await;

    let removed = start(runtime, live, "web", "removed").await;
    runtime.delete(&removed, true, LONG).await.expect("delete");
    let over = async || {
        watched
            .of(&removed)
            .contains(&"deleted".to_owned())
            .then_some(())
    };
    eventually("it is gone", over).await;
    let told = watched.of(&removed);
    // Its end may have been seen or not; it is never made up.
    let seen = ["created", "started", "exited 137 Killed", "deleted"];
    let unseen = [
        "created",
        "started",
        "exited unknown Killed",
        "forgotten",
        "deleted",
    ];
    assert!(told == seen || told == unseen, "{told:?}");
}

/// Waits until the program obeys SIGTERM: a signal that meets no handler yet is lost. It says that
/// it is healthy after it has set the handler.
async fn obeys(runtime: &dyn ContainerRuntime, id: &ContainerId) {
    let request = ExecRequest {
        command: health_command(),
        timeout: LONG,
    };
    eventually("the program is healthy", async || {
        let probed = runtime.exec(id, &request, LONG).await.expect("exec");
        (probed.code == ExitCode::Known(0)).then_some(())
    })
    .await;
}

async fn outage_is_survived(bed: &mut DaemonBed, live: &LiveImages, watched: &Watched) {
    let runtime = bed.runtime.clone();
    let lasting = start(&*runtime, live, "web", "lasting").await;
    let slow = start(&*runtime, live, "slow", "slow").await;
    for id in [&lasting, &slow] {
        watched.expect(id, &["created", "started"]).await;
    }
    let pid = runtime.inspect(&slow, LONG).await.expect("inspect").pid;
    let process = Process::read(pid.expect("a process")).expect("it runs");
    bed.daemon.kill();
    assert!(process.is_alive(), "it was to end during the outage");
    eventually("the process ends", async || {
        (!process.is_alive()).then_some(())
    })
    .await;
    // Nobody can say so. Nothing announces that either: whoever could would do so at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in [&lasting, &slow] {
        assert_eq!(watched.of(id), ["created", "started"]);
    }
    bed.daemon.restart().await;
    watched
        .expect(&slow, &["created", "started", "exited 3 Itself"])
        .await;
    assert_eq!(watched.of(&lasting), ["created", "started"]);
}
