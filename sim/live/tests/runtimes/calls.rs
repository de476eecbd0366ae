//! Faulty calls between an adapter and its daemon, or between the oci adapter and its runtime: each
//! is seen by the caller as it should be, and the daemon is in the state in which it should be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use wavetank_fixtures::daemon::OciRuntime;
use wavetank_fixtures::{CallProxy, CallRule, Effect, Program, Protocol};
use wavetank_live::calls::{ChaosRules, Means, means};
use wavetank_live::images::LiveImages;
use wavetank_node::config::RuntimeKind;
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, ErrorClass, ExecRequest,
    ExitCode, ListFilter, Network, RuntimeError, RuntimeEvent, Signal,
};
use wavetank_scenario::plan::{Action, Image, Range};

use crate::bed::{Case, LONG, OciBed, create, delete_all, image, registry, start};
use crate::daemons::{Daemon, DaemonBed};

pub const CASES: &[Case] = &[
    Case {
        name: "calls-containerd-go-wrong-as-told",
        usable: DaemonBed::containerd_usable,
        run: || Box::pin(async { go_wrong_as_told(DaemonBed::containerd().await).await }),
    },
    Case {
        name: "calls-podman-go-wrong-as-told",
        usable: DaemonBed::podman_usable,
        run: || Box::pin(async { go_wrong_as_told(DaemonBed::podman().await).await }),
    },
    Case {
        name: "ends-below-containerd-come-early-as-told",
        usable: || DaemonBed::containerd_usable().and_then(|()| chaos_usable()),
        run: || Box::pin(ends_come_early_below(RuntimeKind::Containerd)),
    },
    Case {
        name: "ends-below-podman-come-early-as-told",
        usable: || DaemonBed::podman_usable().and_then(|()| chaos_usable()),
        run: || Box::pin(ends_come_early_below(RuntimeKind::Podman)),
    },
    Case {
        name: "calls-oci-go-wrong-as-told",
        usable: chaos_usable,
        run: || Box::pin(oci_goes_wrong_as_told()),
    },
];

/// Short enough to wait for in vain.
const SHORT: Duration = Duration::from_millis(500);
/// How much later an end is noticed.
const LATE: Duration = Duration::from_secs(2);

fn plan() -> BTreeMap<String, Image> {
    let job = Image {
        run_for: Some(Range {
            min: Duration::ZERO,
            max: Duration::from_millis(10),
        }),
        exit_code: 0,
        ..image()
    };
    BTreeMap::from([("web".to_owned(), image()), ("job".to_owned(), job)])
}

/// A daemon, a proxy before it, a client by each way.
struct Bed {
    direct: Arc<dyn ContainerRuntime>,
    proxied: Arc<dyn ContainerRuntime>,
    proxy: CallProxy,
    live: LiveImages,
}

impl Bed {
    /// Created by the direct way.
    async fn create(&self, name: &str) -> ContainerId {
        create(&*self.direct, &self.live, "web", name, None).await
    }

    async fn status(&self, id: &ContainerId) -> ContainerStatus {
        self.direct
            .inspect(id, LONG)
            .await
            .expect("it is there")
            .status
    }

    async fn listed(&self, by: &dyn ContainerRuntime) -> usize {
        by.list(&ListFilter::default(), LONG)
            .await
            .expect("a listing")
            .len()
    }

    fn spec(&self, name: &str) -> ContainerSpec {
        let reference = self.live.reference("web").expect("an image of the plan");
        ContainerSpec {
            network: Network::None,
            ..ContainerSpec::of(ContainerId(name.to_owned()), reference)
        }
    }
}

fn rule(verb: &str, effect: Effect, count: Option<u32>) -> CallRule {
    CallRule {
        verb: Some(verb.to_owned()),
        effect,
        count,
    }
}

async fn go_wrong_as_told(bed: DaemonBed) {
    let (_registry, live) = registry(&plan(), 1).await;
    let path = bed.folder.path().join("proxy.sock");
    let protocol = match bed.daemon {
        Daemon::Containerd(_) => Protocol::Containerd,
        Daemon::Podman(_) => Protocol::Podman,
    };
    let proxy = CallProxy::start(&path, &bed.daemon.socket(), protocol)
        .await
        .expect("proxy");
    let around = Bed {
        direct: bed.runtime.clone(),
        proxied: bed.through(&path).await,
        proxy,
        live,
    };
    everything_passes(&around).await;
    errors_have_their_class_and_no_effect(&around).await;
    a_call_hangs_until_healed(&around).await;
    a_call_is_late(&around).await;
    replies_are_lost_after_the_effect(&around).await;
    listings_are_empty(&around).await;
    delete_all(&*around.direct).await;
}

/// A whole life, with a command's output and an event.
async fn everything_passes(bed: &Bed) {
    let runtime = &*bed.proxied;
    let mut events = runtime.events(None, LONG).await.expect("events");
    let id = start(runtime, &bed.live, "web", "passes").await;
    let next = async {
        loop {
            let record = events.next().await.expect("an event");
            if matches!(&record.event, RuntimeEvent::Started { id: started, .. } if *started == id)
            {
                return;
            }
        }
    };
    timeout(LONG, next).await.expect("the start is told");
    let request = ExecRequest {
        command: Program::exit(7).command(),
        timeout: LONG,
    };
    let result = runtime.exec(&id, &request, LONG).await.expect("exec");
    assert_eq!(result.code, ExitCode::Known(7));
    let (wait, kill) = tokio::join!(
        runtime.wait(&id, LONG),
        runtime.kill(&id, Signal::Kill, LONG)
    );
    kill.expect("kill");
    assert_eq!(wait.expect("wait").code, ExitCode::Known(137));
    runtime.delete(&id, false, LONG).await.expect("delete");
    assert_eq!(bed.listed(&*bed.direct).await, 0);
}

async fn errors_have_their_class_and_no_effect(bed: &Bed) {
    let id = bed.create("refused").await;
    let classes = [
        ErrorClass::Unavailable,
        ErrorClass::FailedPrecondition,
        ErrorClass::ResourceExhausted,
        ErrorClass::InvalidArgument,
        ErrorClass::Unauthenticated,
        ErrorClass::Unknown,
    ];
    for class in classes {
        let id_of_rule = bed
            .proxy
            .add_rule(rule("start", Effect::Error(class), Some(1)));
        let refused = bed.proxied.start(&id, LONG).await.expect_err("a refusal");
        assert_eq!(refused.class, class, "{refused}");
        assert_eq!(bed.status(&id).await, ContainerStatus::Created, "{class}");
        assert_eq!(bed.proxy.remove_rule(id_of_rule), Some(1));
    }
    let full = Effect::Error(ErrorClass::ResourceExhausted);
    bed.proxy.add_rule(rule("create", full, Some(1)));
    let spec = bed.spec("never-made");
    let refused = bed
        .proxied
        .create(&spec, LONG)
        .await
        .expect_err("a refusal");
    assert_eq!(refused.class, ErrorClass::ResourceExhausted);
    let absent = bed
        .direct
        .inspect(&spec.id, LONG)
        .await
        .expect_err("it was not made");
    assert_eq!(absent.class, ErrorClass::NotFound);
    // The count has run out.
    bed.proxied.start(&id, LONG).await.expect("start");
    assert_eq!(bed.status(&id).await, ContainerStatus::Running);
}

async fn a_call_hangs_until_healed(bed: &Bed) {
    let id = bed.create("hangs").await;
    let hang = bed.proxy.add_rule(rule("start", Effect::Hang, None));
    let starting = tokio::spawn({
        let (runtime, id) = (bed.proxied.clone(), id.clone());
        async move { runtime.start(&id, LONG).await.map(|state| state.status) }
    });
    tokio::time::sleep(SHORT).await;
    assert!(!starting.is_finished());
    assert_eq!(bed.status(&id).await, ContainerStatus::Created);
    // Other calls go on meanwhile.
    bed.proxied.inspect(&id, LONG).await.expect("an answer");
    assert_eq!(bed.proxy.remove_rule(hang), Some(1));
    let started = timeout(LONG, starting)
        .await
        .expect("it goes on")
        .expect("no panic");
    assert_eq!(started, Ok(ContainerStatus::Running));
}

async fn a_call_is_late(bed: &Bed) {
    let id = bed.create("late").await;
    let (min, max) = (SHORT, SHORT * 2);
    let late = bed
        .proxy
        .add_rule(rule("start", Effect::Delay { min, max }, None));
    let began = Instant::now();
    bed.proxied.start(&id, LONG).await.expect("start");
    assert!(began.elapsed() >= SHORT);
    assert_eq!(bed.proxy.remove_rule(late), Some(1));
}

async fn replies_are_lost_after_the_effect(bed: &Bed) {
    let spec = bed.spec("made");
    let lost = bed
        .proxy
        .add_rule(rule("create", Effect::LoseReply, Some(1)));
    // An adapter may find out by itself that it was done.
    let unavailable = |error: RuntimeError| {
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    };
    let created = bed.proxied.create(&spec, LONG).await;
    created.unwrap_or_else(unavailable);
    assert_eq!(bed.status(&spec.id).await, ContainerStatus::Created);
    assert_eq!(bed.proxy.remove_rule(lost), Some(1));

    let lost = bed
        .proxy
        .add_rule(rule("start", Effect::LoseReply, Some(1)));
    let started = bed.proxied.start(&spec.id, LONG).await;
    started.map(drop).unwrap_or_else(unavailable);
    assert_eq!(bed.status(&spec.id).await, ContainerStatus::Running);
    assert_eq!(bed.proxy.remove_rule(lost), Some(1));

    bed.direct
        .kill(&spec.id, Signal::Kill, LONG)
        .await
        .expect("kill");
    bed.direct.wait(&spec.id, LONG).await.expect("wait");
    let lost = bed
        .proxy
        .add_rule(rule("delete", Effect::LoseReply, Some(1)));
    let deleted = bed.proxied.delete(&spec.id, false, LONG).await;
    deleted.unwrap_or_else(unavailable);
    let absent = bed
        .direct
        .inspect(&spec.id, LONG)
        .await
        .expect_err("it is gone");
    assert_eq!(absent.class, ErrorClass::NotFound);
    assert_eq!(bed.proxy.remove_rule(lost), Some(1));
}

async fn listings_are_empty(bed: &Bed) {
    let all = bed.listed(&*bed.direct).await;
    assert!(all > 1);
    let empty = bed.proxy.add_rule(CallRule {
        verb: None,
        effect: Effect::EmptyListing,
        count: Some(2),
    });
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.push(bed.listed(&*bed.proxied).await);
        assert_eq!(bed.listed(&*bed.direct).await, all);
    }
    assert_eq!(counts, [0, 0, all]);
    assert_eq!(bed.proxy.remove_rule(empty), Some(2));
}

/// The chaos runtime in runc's place: a process ends before its start was answered, by its own code
/// and by ours; before and after that, and once healed, containers live as ever.
async fn ends_come_early_below(kind: RuntimeKind) {
    let (_registry, live) = registry(&plan(), 1).await;
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("chaos");
    std::fs::copy(chaos_runtime().expect("usable"), &program).expect("copy");
    let mut chaos = ChaosRules::beside(&program, Path::new("runc"));
    let over = OciRuntime::At(program);
    let bed = match kind {
        RuntimeKind::Podman => DaemonBed::podman_over(over).await,
        _ => DaemonBed::containerd_over(over).await,
    };
    let runtime = &*bed.runtime;
    let code_of = async |id: &ContainerId| runtime.wait(id, LONG).await.expect("wait").code;
    let is_running = async |id: &ContainerId| {
        let state = runtime.inspect(id, LONG).await.expect("it is there");
        state.status == ContainerStatus::Running
    };
    let before = start(runtime, &live, "web", "before").await;
    assert!(is_running(&before).await);
    for code in [3, 0, 137] {
        let early = Action::ExitBeforeStart { count: 1, code };
        let name = add(&mut chaos, &early);
        let id = start(runtime, &live, "web", &format!("early-{code}")).await;
        assert_eq!(code_of(&id).await, ExitCode::Known(code));
        assert_eq!(chaos.hits(&name).expect("counted"), 1);
        chaos.remove(&name).expect("removed");
    }
    let wrong = Action::ExitCodeWrong { count: 1, code: 9 };
    let name = add(&mut chaos, &wrong);
    let id = start(runtime, &live, "job", "wrong").await;
    assert_eq!(code_of(&id).await, ExitCode::Known(9));
    assert_eq!(chaos.hits(&name).expect("counted"), 1);
    chaos.remove(&name).expect("removed");
    let (min, max) = (LATE, LATE);
    let late = Action::ExitLate {
        by: Range { min, max },
        count: 1,
    };
    let name = add(&mut chaos, &late);
    let began = Instant::now();
    let id = start(runtime, &live, "job", "late").await;
    assert_eq!(code_of(&id).await, ExitCode::Known(0), "its own");
    assert!(began.elapsed() >= LATE);
    assert_eq!(chaos.hits(&name).expect("counted"), 1);
    chaos.remove(&name).expect("removed");
    let after = start(runtime, &live, "web", "after").await;
    assert!(is_running(&after).await && is_running(&before).await);
    delete_all(runtime).await;
}

async fn oci_goes_wrong_as_told() {
    let (_registry, live) = registry(&plan(), 1).await;
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("chaos");
    std::fs::copy(chaos_runtime().expect("usable"), &program).expect("copy");
    let mut chaos = ChaosRules::beside(&program, Path::new("runc"));
    let bed = OciBed::with_runtime(&program).await;
    let runtime = &*bed.runtime;

    let early = Action::ExitBeforeStart { count: 1, code: 3 };
    let name = add(&mut chaos, &early);
    let id = start(runtime, &live, "web", "early").await;
    let exit = runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(3));
    assert_eq!(chaos.hits(&name).expect("counted"), 1);
    chaos.remove(&name).expect("removed");

    let failing = Action::RuntimeError {
        call: Some("start".to_owned()),
        class: ErrorClass::Unknown,
        count: Some(1),
    };
    let name = add(&mut chaos, &failing);
    let id = create(runtime, &live, "web", "refused", None).await;
    let refused = runtime.start(&id, LONG).await.expect_err("a refusal");
    assert_eq!(refused.class, ErrorClass::Unknown, "{refused}");
    let state = runtime.inspect(&id, LONG).await.expect("it is there");
    assert_eq!(state.status, ContainerStatus::Created);
    assert_eq!(chaos.hits(&name).expect("counted"), 1);
    chaos.remove(&name).expect("removed");

    let by = Range {
        min: SHORT,
        max: SHORT,
    };
    let late = Action::RuntimeDelay {
        call: Some("start".to_owned()),
        by,
    };
    let name = add(&mut chaos, &late);
    let began = Instant::now();
    runtime.start(&id, LONG).await.expect("start");
    assert!(began.elapsed() >= SHORT);
    chaos.remove(&name).expect("removed");
    delete_all(runtime).await;
}

fn add(chaos: &mut ChaosRules, action: &Action) -> String {
    match means(action, RuntimeKind::Oci, 1) {
        Ok(Means::Chaos(rules)) => chaos.add(&rules).expect("written"),
        other => panic!("{other:?}"),
    }
}

fn chaos_usable() -> Result<(), String> {
    OciBed::usable()?;
    let missing = "there is no wavetank-chaos-runtime: cargo build -p wavetank-oci --bins";
    chaos_runtime().map(drop).ok_or_else(|| missing.to_owned())
}

/// The program that cargo puts beside this one's folder when the whole workspace is built.
fn chaos_runtime() -> Option<std::path::PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = own.parent()?.parent()?.join("wavetank-chaos-runtime");
    path.exists().then_some(path)
}
