//! What the async face adds to the state machine: deadlines, cancellation, lost connections, and
//! virtual time that passes the same way every time. What the verbs do is for the conformance
//! suite.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_port::{
    ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, ErrorClass, EventRecord,
    ImageReference, Network, PullRequest, RuntimeError, RuntimeEvent,
};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range, RuntimeSteps};
use wavetank_sim_runtime::{SimConfig, SimRuntime};
use wavetank_world::{Registry, RuntimeEffect, RuntimeRule};

const CALL: Duration = Duration::from_secs(5);

fn span(min_ms: u64, max_ms: u64) -> Range {
    Range {
        min: Duration::from_millis(min_ms),
        max: Duration::from_millis(max_ms),
    }
}

fn image(run_for: Option<Range>) -> Image {
    Image {
        run_for,
        exit_code: 7,
        on_term: OnTerm::Ignores,
        health: Health::Ok,
        pull_bytes: 1_000,
        exists: true,
        memory_bytes: 0,
    }
}

async fn machine(seed: u64) -> Result<SimRuntime, RuntimeError> {
    let images = [
        ("service:1".to_owned(), image(None)),
        ("job:1".to_owned(), image(Some(span(1, 500)))),
        ("second:1".to_owned(), image(Some(span(1_000, 1_000)))),
    ];
    let config = SimConfig {
        node: NodeId::agent(1),
        seed,
        latency: span(1, 20),
        event_delay: span(1, 5),
        steps: RuntimeSteps::new(),
        interpreter: None,
    };
    let registry = Arc::new(Mutex::new(Registry::new(images.into())));
    let machine = SimRuntime::new(&config, registry);
    for image in ["service:1", "job:1", "second:1"] {
        let request = PullRequest::of(ImageReference(image.to_owned()));
        machine.pull(&request, CALL).await?;
    }
    Ok(machine)
}

fn id(name: &str) -> ContainerId {
    ContainerId(name.to_owned())
}

async fn create(machine: &SimRuntime, name: &str, image: &str) -> Result<(), RuntimeError> {
    let spec = ContainerSpec {
        network: Network::None,
        ..ContainerSpec::of(id(name), ImageReference(image.to_owned()))
    };
    machine.create(&spec, CALL).await
}

fn rule(machine: &SimRuntime, effect: RuntimeEffect) {
    let rule = RuntimeRule {
        fault: 1,
        effect,
        count: None,
    };
    machine.strike(|runtime, _, _| runtime.add_rule(rule));
}

fn class<T>(answer: Result<T, RuntimeError>) -> Option<ErrorClass> {
    answer.err().map(|error| error.class)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_keeps_its_deadline_and_holds_up_no_other() -> Result<(), RuntimeError> {
    let machine = machine(1).await?;
    create(&machine, "a", "service:1").await?;
    rule(&machine, RuntimeEffect::Hang(Some("inspect".to_owned())));
    let (id, nobody) = (id("a"), id("b"));
    let (hung, other) = tokio::join!(machine.inspect(&id, CALL), machine.start(&nobody, CALL));
    assert_eq!(class(hung), Some(ErrorClass::DeadlineExceeded));
    assert_eq!(class(other), Some(ErrorClass::NotFound));
    machine.strike(|runtime, now, _| runtime.remove_rules(now, 1));
    assert_eq!(
        machine.inspect(&id, CALL).await?.status,
        ContainerStatus::Created
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_a_deadline_and_took_effect() -> Result<(), RuntimeError> {
    let machine = machine(1).await?;
    create(&machine, "a", "service:1").await?;
    rule(&machine, RuntimeEffect::LostReply("start".to_owned()));
    let started = machine.start(&id("a"), CALL).await;
    assert_eq!(class(started), Some(ErrorClass::DeadlineExceeded));
    let state = machine.inspect(&id("a"), CALL).await?;
    assert_eq!(state.status, ContainerStatus::Running);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_the_connection_goes_is_told_so() -> Result<(), RuntimeError> {
    let machine = machine(1).await?;
    create(&machine, "a", "service:1").await?;
    machine.start(&id("a"), CALL).await?;
    let cut = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        machine.hang_up();
    };
    let id = id("a");
    let (waited, ()) = tokio::join!(machine.wait(&id, CALL), cut);
    assert_eq!(class(waited), Some(ErrorClass::Unavailable));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_their_machine() -> Result<(), RuntimeError> {
    let machine = machine(1).await?;
    let mut events = machine.events(None, CALL).await?;
    drop(machine);
    assert_eq!(class(events.next().await), Some(ErrorClass::Unavailable));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_ends_that_much_later() -> Result<(), RuntimeError> {
    let machine = machine(1).await?;
    let pause = Duration::from_secs(60);
    create(&machine, "a", "second:1").await?;
    let started = machine.start(&id("a"), CALL).await?.started_at;
    machine.pause(&id("a"), CALL).await?;
    tokio::time::sleep(pause).await;
    let state = machine.inspect(&id("a"), CALL).await?;
    assert_eq!(state.status, ContainerStatus::Paused);
    machine.resume(&id("a"), CALL).await?;
    let ended = machine.wait(&id("a"), CALL).await?.exited_at;
    let nanos = ended.map(|at| at.0).zip(started.map(|at| at.0));
    let ran = nanos.map(|(ended, started)| Duration::from_nanos(ended - started));
    assert!(ran >= Some(pause + Duration::from_secs(1)), "{ran:?}");
    Ok(())
}

/// Twenty jobs that end when their dice say so.
async fn run_of_jobs(seed: u64) -> Result<Vec<(Duration, EventRecord)>, RuntimeError> {
    let machine = machine(seed).await?;
    let origin = tokio::time::Instant::now();
    let mut events = machine.events(None, CALL).await?;
    for number in 0..20 {
        let name = number.to_string();
        create(&machine, &name, "job:1").await?;
        machine.start(&id(&name), CALL).await?;
    }
    let mut seen = Vec::new();
    let mut exits = 0;
    while exits < 20 {
        let record = events.next().await?;
        exits += u32::from(matches!(record.event, RuntimeEvent::Exited { .. }));
        seen.push((origin.elapsed(), record));
    }
    Ok(seen)
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_run_to_the_millisecond() -> Result<(), RuntimeError> {
    let first = run_of_jobs(7).await?;
    assert_eq!(run_of_jobs(7).await?, first);
    assert_ne!(run_of_jobs(8).await?, first);
    Ok(())
}
