//! A plan's images in a real runtime: containers do what the plan says, and pulls fail as it says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wavetank_live::images::{LiveImages, health_command, healthy_command, unhealthy_command};
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ErrorClass, ExecRequest, ExitCode, PullRequest, Signal,
};
use wavetank_scenario::plan::{Action, Health, Image, OnTerm, Range};

use crate::bed::{Case, LONG, OciBed, create, delete_all, eventually, image, registry, start};

pub const CASES: &[Case] = &[
    Case {
        name: "images-oci-behave-as-planned",
        usable: OciBed::usable,
        run: || Box::pin(behave_as_planned()),
    },
    Case {
        name: "images-oci-pulls-fail-as-planned",
        usable: OciBed::usable,
        run: || Box::pin(pulls_fail_as_planned()),
    },
];

/// The plan's times are ten times as long as the real ones.
const SPEED: u32 = 10;

fn plan() -> BTreeMap<String, Image> {
    let seconds = |seconds| Duration::from_secs(seconds);
    let exits = |after, code| OnTerm::Exits { after, code };
    let images = [
        ("web", image()),
        (
            "job",
            Image {
                run_for: Some(Range {
                    min: seconds(1),
                    max: seconds(2),
                }),
                exit_code: 3,
                ..image()
            },
        ),
        (
            "polite",
            Image {
                on_term: exits(seconds(2), Some(0)),
                health: Health::After(seconds(5)),
                ..image()
            },
        ),
        (
            "mule",
            Image {
                on_term: OnTerm::Ignores,
                health: Health::Never,
                ..image()
            },
        ),
        (
            "hog",
            Image {
                memory_bytes: 64 << 20,
                ..image()
            },
        ),
    ];
    images.map(|(name, image)| (name.to_owned(), image)).into()
}

async fn probe(bed: &OciBed, id: &ContainerId, command: Vec<String>) -> ExitCode {
    let request = ExecRequest {
        command,
        timeout: LONG,
    };
    let result = bed.runtime.exec(id, &request, LONG).await;
    result.expect("exec").code
}

async fn behave_as_planned() {
    let (_registry, live) = registry(&plan(), SPEED).await;
    let bed = OciBed::new().await;
    let runtime = &*bed.runtime;
    ends_by_itself(&bed, &live).await;
    obeys_or_ignores(&bed, &live).await;
    tells_its_health(&bed, &live).await;
    for (limit, is_killed) in [(32 << 20, true), (128 << 20, false)] {
        let id = create(runtime, &live, "hog", &format!("hog-{limit}"), Some(limit)).await;
        runtime.start(&id, LONG).await.expect("start");
        if is_killed {
            let exit = runtime.wait(&id, LONG).await.expect("wait");
            assert_eq!((exit.code, exit.oom_killed), (ExitCode::Known(137), true));
        } else {
            // It takes its memory before it waits for anything.
            eventually("nearly 64 MiB are taken", async || {
                let stats = runtime.stats(&id, LONG).await.expect("it runs");
                (stats.memory_bytes >= 63 << 20).then_some(())
            })
            .await;
        }
    }
    delete_all(runtime).await;
}

async fn ends_by_itself(bed: &OciBed, live: &LiveImages) {
    let began = Instant::now();
    let id = start(&*bed.runtime, live, "job", "job-1").await;
    let exit = bed.runtime.wait(&id, LONG).await.expect("wait");
    assert_eq!(exit.code, ExitCode::Known(3));
    assert!(began.elapsed() >= Duration::from_secs(1) / SPEED);
}

async fn obeys_or_ignores(bed: &OciBed, live: &LiveImages) {
    let runtime = &*bed.runtime;
    let cases = [("web", 143, 0), ("polite", 0, 200), ("mule", 137, 500)];
    for (name, code, at_least_ms) in cases {
        let id = start(runtime, live, name, &format!("{name}-1")).await;
        // Until the program runs, the kernel drops what it has no handler for.
        eventually("the program runs", async || {
            let ready = probe(bed, &id, healthy_command()).await;
            (ready == ExitCode::Known(0)).then_some(())
        })
        .await;
        let began = Instant::now();
        let grace = Duration::from_millis(500);
        let exit = runtime.stop(&id, grace, LONG).await.expect("stop");
        assert_eq!(
            exit.map(|it| it.code),
            Some(ExitCode::Known(code)),
            "{name}"
        );
        assert!(
            began.elapsed() >= Duration::from_millis(at_least_ms),
            "{name}"
        );
    }
}

async fn tells_its_health(bed: &OciBed, live: &LiveImages) {
    let runtime = &*bed.runtime;
    let id = start(runtime, live, "polite", "polite-2").await;
    // Not at first: five planned seconds are half a second here.
    let began = Instant::now();
    let first = probe(bed, &id, health_command()).await;
    if began.elapsed() < Duration::from_millis(400) {
        assert_eq!(first, ExitCode::Known(1));
    }
    let healthy = async || {
        let code = probe(bed, &id, health_command()).await;
        (code == ExitCode::Known(0)).then_some(())
    };
    eventually("it is healthy", healthy).await;
    assert_eq!(
        probe(bed, &id, unhealthy_command()).await,
        ExitCode::Known(0)
    );
    assert_eq!(probe(bed, &id, health_command()).await, ExitCode::Known(2));
    assert_eq!(probe(bed, &id, healthy_command()).await, ExitCode::Known(0));
    assert_eq!(probe(bed, &id, health_command()).await, ExitCode::Known(0));
    let never = start(runtime, live, "mule", "mule-2").await;
    assert_eq!(
        probe(bed, &never, health_command()).await,
        ExitCode::Known(1)
    );
    runtime
        .kill(&never, Signal::Kill, LONG)
        .await
        .expect("kill");
}

async fn pulls_fail_as_planned() {
    let (registry, live) = registry(&plan(), SPEED).await;
    let bed = OciBed::new().await;
    let pull = async |name: &str| {
        let reference = live.reference(name).expect("an image of the plan");
        let pulled = bed.runtime.pull(&PullRequest::of(reference), LONG).await;
        pulled.map(drop).map_err(|error| error.class)
    };
    let count = Some(2);
    let error = |class| Action::RegistryError { class, count };
    // The runtime's own words for what came short or damaged.
    let cases = [
        (error(ErrorClass::NotFound), ErrorClass::NotFound),
        (
            error(ErrorClass::Unauthenticated),
            ErrorClass::Unauthenticated,
        ),
        (
            error(ErrorClass::ResourceExhausted),
            ErrorClass::ResourceExhausted,
        ),
        (error(ErrorClass::Unavailable), ErrorClass::Unavailable),
        (Action::RegistryTruncate { count }, ErrorClass::Unavailable),
        (
            Action::RegistryWrongDigest { count },
            ErrorClass::Unavailable,
        ),
    ];
    for (action, class) in cases {
        let fault = live
            .strike(&registry, &action, &["web".to_owned()])
            .expect("served");
        // Exactly so many pulls, whatever each asks the registry for.
        assert_eq!(pull("web").await, Err(class), "{action:?}");
        assert_eq!(pull("web").await, Err(class), "{action:?}");
        assert_eq!(pull("web").await, Ok(()), "{action:?}");
        assert_eq!(fault.heal(&registry), 2, "{action:?}");
        let reference = live.reference("web").expect("an image of the plan");
        bed.runtime
            .remove_image(&reference, LONG)
            .await
            .expect("removed");
    }
    let stall = Action::RegistryStall { after_bytes: 0 };
    let fault = live.strike(&registry, &stall, &[]).expect("served");
    let hits = async {
        eventually("the pull stands still", async || {
            (fault.hits(&registry) > 0).then_some(())
        })
        .await;
        fault.heal(&registry)
    };
    let (pulled, hits) = tokio::join!(pull("web"), hits);
    assert_eq!((pulled, hits), (Ok(()), 1));
}
