//! The simulated runtime's contract, verb by verb.

use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_port::{ContainerSpec, ImageReference, RuntimeCommand};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range, RuntimeSteps};

use super::*;

mod measured;

struct Bench {
    runtime: Runtime,
    registry: Registry,
    clock: LocalClock,
    now: VirtualTime,
    calls: u64,
    replies: BTreeMap<u64, Result<RuntimeReply, RuntimeError>>,
    events: Vec<RuntimeEvent>,
    truth: Vec<Payload>,
}

fn image(run_for: Option<u64>, on_term: OnTerm) -> Image {
    let run_for = run_for
        .map(Duration::from_millis)
        .map(|d| Range { min: d, max: d });
    Image {
        run_for,
        exit_code: 7,
        on_term,
        health: Health::Ok,
        pull_bytes: 1_000,
        exists: true,
        memory_bytes: 0,
    }
}

impl Bench {
    fn new() -> Self {
        Bench::measured(RuntimeSteps::new())
    }

    /// One whose runtime takes what was measured.
    fn measured(steps: RuntimeSteps) -> Self {
        let obeys = OnTerm::Exits {
            after: Duration::from_millis(50),
            code: Some(0),
        };
        let images = [
            ("web".to_owned(), image(None, obeys)),
            ("stubborn".to_owned(), image(None, OnTerm::Ignores)),
            ("job".to_owned(), image(Some(5), obeys)),
        ];
        let millisecond = Duration::from_millis(1);
        let range = Range {
            min: millisecond,
            max: millisecond,
        };
        let config = RuntimeConfig {
            node: NodeId::agent(1),
            latency: range,
            event_delay: range,
            steps,
        };
        let mut bench = Bench {
            runtime: Runtime::new(config, Stream::new(1, "test", "runtime")),
            registry: Registry::new(images.into()),
            clock: LocalClock::new(0),
            now: VirtualTime::ZERO,
            calls: 0,
            replies: BTreeMap::new(),
            events: Vec::new(),
            truth: Vec::new(),
        };
        for image in ["web", "stubborn", "job"] {
            let image = ImageReference(image.into());
            bench
                .ask(RuntimeCommand::Pull { image })
                .expect("images can be pulled");
        }
        bench
    }

    fn send(&mut self, command: RuntimeCommand) -> u64 {
        self.calls += 1;
        self.runtime.submit(self.now, self.calls, command);
        self.calls
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.runtime.next_deadline().filter(|at| *at <= end) {
            self.now = at;
            self.runtime.wake(at, &self.clock, &mut self.registry);
        }
        self.now = end;
        for output in self.runtime.drain_output() {
            match output {
                Output::Reply { call, result } => {
                    self.replies.insert(call, result);
                }
                Output::Event(event) => self.events.push(event),
                Output::Truth(payload) => self.truth.push(payload),
                Output::Hit(_) => {}
            }
        }
    }

    fn ask(&mut self, command: RuntimeCommand) -> Result<RuntimeReply, RuntimeError> {
        let call = self.send(command);
        self.advance(Duration::from_millis(3));
        self.replies
            .remove(&call)
            .unwrap_or_else(|| Err(error(ErrorClass::DeadlineExceeded)))
    }

    /// How long a call takes that succeeds.
    fn takes(&mut self, command: RuntimeCommand) -> Duration {
        let call = self.send(command);
        self.takes_call(call)
    }

    fn takes_by_port(&mut self, command: PortCommand) -> Duration {
        self.calls += 1;
        self.runtime.submit_port(self.now, self.calls, command);
        self.takes_call(self.calls)
    }

    fn takes_call(&mut self, call: u64) -> Duration {
        let asked = self.now;
        while !self.replies.contains_key(&call) {
            let due = self.runtime.next_deadline().expect("an answer comes");
            self.advance(due.since(self.now));
        }
        assert_eq!(self.replies.remove(&call).map(|it| it.is_ok()), Some(true));
        self.now.since(asked)
    }

    fn class(&mut self, command: RuntimeCommand) -> Option<ErrorClass> {
        self.ask(command).err().map(|error| error.class)
    }

    fn create(&mut self, name: &str, image: &str) -> Option<ErrorClass> {
        let spec = ContainerSpec::of(id(name), ImageReference(image.into()));
        self.class(RuntimeCommand::Create { spec })
    }

    fn run(&mut self, name: &str, image: &str) {
        assert_eq!(self.create(name, image), None);
        assert_eq!(self.class(RuntimeCommand::Start { id: id(name) }), None);
    }

    fn state(&mut self, name: &str) -> Option<ContainerState> {
        match self.ask(RuntimeCommand::Inspect { id: id(name) }) {
            Ok(RuntimeReply::State { container }) => Some(container),
            _ => None,
        }
    }

    fn rule(&mut self, effect: RuntimeEffect, count: Option<u32>) {
        self.runtime.add_rule(RuntimeRule {
            fault: 9,
            effect,
            count,
        });
    }

    fn exits(&self, name: &str) -> usize {
        let is_exit = |event: &&RuntimeEvent| match event {
            RuntimeEvent::Exited { id: exited, .. } => exited.0 == name,
            _ => false,
        };
        self.events.iter().filter(is_exit).count()
    }
}

fn id(name: &str) -> ContainerId {
    ContainerId(name.into())
}

fn error(class: ErrorClass) -> RuntimeError {
    RuntimeError::new(class, "")
}

fn code(state: Option<ContainerState>) -> Option<ExitCode> {
    state.and_then(|state| state.exit).map(|exit| exit.code)
}

#[test]
fn wrong_order_is_refused_with_a_class() {
    let mut bench = Bench::new();
    assert_eq!(bench.create("a", "absent"), Some(ErrorClass::NotFound));
    bench.run("a", "web");
    assert_eq!(bench.create("a", "web"), Some(ErrorClass::AlreadyExists));
    let start = RuntimeCommand::Start { id: id("a") };
    assert_eq!(bench.class(start), Some(ErrorClass::FailedPrecondition));
    let delete = RuntimeCommand::Delete {
        id: id("a"),
        force: false,
    };
    assert_eq!(bench.class(delete), Some(ErrorClass::FailedPrecondition));
    let inspect = RuntimeCommand::Inspect { id: id("b") };
    assert_eq!(bench.class(inspect), Some(ErrorClass::NotFound));
}

#[test]
fn a_process_that_obeys_ends_within_its_grace_and_one_that_does_not_is_killed_after_it() {
    for (image, after_ms, expected) in [("web", 50, 0), ("stubborn", 400, 137)] {
        let mut bench = Bench::new();
        bench.run("a", image);
        let grace = Duration::from_millis(400);
        let call = bench.send(RuntimeCommand::Stop { id: id("a"), grace });
        bench.advance(Duration::from_millis(after_ms - 1));
        assert!(!bench.replies.contains_key(&call), "{image} ended early");
        bench.advance(Duration::from_millis(5));
        assert_eq!(bench.replies.get(&call), Some(&Ok(RuntimeReply::Done)));
        let state = bench.state("a");
        assert_eq!(code(state), Some(ExitCode::Known(expected)));
    }
}

#[test]
fn an_exit_is_said_once_and_a_second_stop_changes_nothing() {
    let mut bench = Bench::new();
    bench.run("a", "job");
    bench.advance(Duration::from_millis(20));
    let before = bench.state("a");
    let stop = RuntimeCommand::Stop {
        id: id("a"),
        grace: Duration::ZERO,
    };
    assert_eq!(bench.class(stop), None);
    assert_eq!(bench.state("a"), before);
    assert_eq!(
        (bench.exits("a"), code(before)),
        (1, Some(ExitCode::Known(7)))
    );
}

#[test]
fn a_lost_reply_still_takes_effect() {
    let mut bench = Bench::new();
    assert_eq!(bench.create("a", "web"), None);
    bench.rule(RuntimeEffect::LostReply("start".into()), Some(1));
    let start = RuntimeCommand::Start { id: id("a") };
    assert_eq!(bench.class(start), Some(ErrorClass::DeadlineExceeded));
    assert_eq!(
        bench.state("a").map(|state| state.status),
        Some(ContainerStatus::Running)
    );
}

#[test]
fn events_can_be_lost_doubled_and_late() {
    let mut bench = Bench::new();
    bench.rule(RuntimeEffect::DropEvent("exit".into()), Some(1));
    bench.run("a", "job");
    bench.advance(Duration::from_millis(20));
    bench.rule(RuntimeEffect::DuplicateEvent("exit".into()), Some(1));
    bench.run("b", "job");
    bench.advance(Duration::from_millis(20));
    let second = Duration::from_secs(1);
    let by = Range {
        min: second,
        max: second,
    };
    bench.rule(RuntimeEffect::DelayEvent("exit".into(), by), Some(1));
    bench.run("c", "job");
    bench.advance(Duration::from_millis(500));
    assert_eq!(
        (bench.exits("a"), bench.exits("b"), bench.exits("c")),
        (0, 2, 0)
    );
    bench.advance(second);
    assert_eq!(bench.exits("c"), 1);
}

#[test]
fn a_start_can_find_its_process_dead() {
    let mut bench = Bench::new();
    bench.rule(RuntimeEffect::ExitBeforeStart(3), Some(1));
    bench.run("a", "web");
    let state = bench.state("a");
    assert_eq!(code(state), Some(ExitCode::Known(3)));
}

#[test]
fn an_end_can_be_noticed_late_and_nothing_is_done_to_the_dead() {
    let mut bench = Bench::new();
    let second = Range {
        min: Duration::from_secs(1),
        max: Duration::from_secs(1),
    };
    bench.rule(RuntimeEffect::ExitLate(second), Some(2));
    bench.run("job", "job");
    bench.advance(Duration::from_millis(500));
    let state = bench.state("job").unwrap();
    assert_eq!(
        (state.status, state.exit),
        (ContainerStatus::Running, None),
        "nobody has noticed"
    );
    assert_eq!(bench.exits("job"), 0);
    let kill = RuntimeCommand::Kill {
        id: id("job"),
        signal: Signal::Kill,
    };
    assert_eq!(bench.class(kill), Some(ErrorClass::NotFound));
    let probe = RuntimeCommand::Probe {
        id: id("job"),
        command: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    assert_eq!(bench.class(probe), Some(ErrorClass::FailedPrecondition));
    bench.advance(Duration::from_secs(1));
    let state = bench.state("job");
    assert_eq!(
        code(state),
        Some(ExitCode::Known(7)),
        "of its own, not of the kill"
    );
    assert_eq!(bench.exits("job"), 1);
    // One that is removed before anybody noticed has ended all the same.
    bench.run("other", "job");
    bench.advance(Duration::from_millis(500));
    let delete = RuntimeCommand::Delete {
        id: id("other"),
        force: true,
    };
    assert_eq!(bench.class(delete), None);
    bench.advance(Duration::from_secs(2));
    assert_eq!(bench.exits("other"), 1);
}

#[test]
fn an_end_can_be_noticed_with_another_code() {
    let mut bench = Bench::new();
    bench.rule(RuntimeEffect::ExitCodeWrong(3), Some(1));
    for name in ["wrong", "right"] {
        bench.run(name, "job");
        bench.advance(Duration::from_millis(500));
    }
    let codes = ["wrong", "right"].map(|name| code(bench.state(name)));
    assert_eq!(codes, [3, 7].map(|it| Some(ExitCode::Known(it))));
}

#[test]
fn a_power_loss_keeps_records_and_loses_exit_codes() {
    let mut bench = Bench::new();
    bench.run("a", "web");
    bench.runtime.lose_power(bench.now, &bench.clock);
    let state = bench.state("a");
    assert_eq!(code(state), Some(ExitCode::Unknown));
    assert_eq!(bench.exits("a"), 0);
}

#[test]
fn a_daemon_that_is_down_refuses_calls_and_loses_events_while_containers_go_on() {
    let mut bench = Bench::new();
    bench.run("b", "web");
    bench.run("a", "job");
    bench.runtime.daemon_down(bench.now, &bench.clock, 1, true);
    let list = RuntimeCommand::List {
        labels: BTreeMap::new(),
    };
    assert_eq!(bench.class(list), Some(ErrorClass::Unavailable));
    bench.advance(Duration::from_millis(20));
    bench.runtime.daemon_up(bench.now, 1);
    bench.advance(Duration::from_millis(5));
    assert_eq!(bench.exits("a"), 0);
    assert!(bench.events.contains(&RuntimeEvent::Interrupted));
    let (a, b) = (bench.state("a"), bench.state("b"));
    assert_eq!(code(a), Some(ExitCode::Known(7)));
    assert_eq!(b.map(|state| state.status), Some(ContainerStatus::Running));
}

#[test]
fn a_hung_call_is_answered_once_the_fault_is_over() {
    let mut bench = Bench::new();
    bench.run("a", "web");
    bench.rule(RuntimeEffect::Hang(Some("inspect".into())), None);
    let call = bench.send(RuntimeCommand::Inspect { id: id("a") });
    bench.advance(Duration::from_secs(60));
    assert!(!bench.replies.contains_key(&call));
    bench.runtime.remove_rules(bench.now, 9);
    bench.advance(Duration::from_millis(3));
    assert!(bench.replies.contains_key(&call));
}

#[test]
fn an_empty_listing_lies_once() {
    let mut bench = Bench::new();
    bench.run("a", "web");
    bench.rule(RuntimeEffect::EmptyListing, Some(1));
    let list = RuntimeCommand::List {
        labels: BTreeMap::new(),
    };
    let listed = |answer| match answer {
        Ok(RuntimeReply::Containers { containers }) => containers.len(),
        _ => usize::MAX,
    };
    let first = bench.ask(list.clone());
    let second = bench.ask(list);
    assert_eq!((listed(first), listed(second)), (0, 1));
}

/// A program that tells its health late, draws its time and obeys SIGTERM beside all that.
fn lively(_: &ContainerSpec) -> Interpretation {
    let milliseconds = Duration::from_millis;
    Interpretation::Program(Program {
        steps: vec![
            Step::ExitOnSignal {
                signal: 15,
                after: milliseconds(50),
                code: 143,
            },
            Step::RequireNoFile("/ready".to_owned()),
            Step::WriteFileLater {
                after: milliseconds(100),
                path: "/ready".to_owned(),
                text: String::new(),
            },
            Step::SleepBetween(Range {
                min: milliseconds(200),
                max: milliseconds(300),
            }),
            Step::RequireFile("/ready".to_owned()),
            Step::RequireNoFile("/other".to_owned()),
            Step::Exit(5),
        ],
        stop_signal: None,
    })
}

fn exits(bench: &Bench) -> Vec<(ExitCode, ExitCause)> {
    let exit = |payload: &Payload| match payload {
        Payload::ContainerExited { exit, because, .. } => Some((exit.code, *because)),
        _ => None,
    };
    bench.truth.iter().filter_map(exit).collect()
}

#[test]
fn a_program_ends_after_a_drawn_time_with_what_happened_beside_it() {
    let mut bench = Bench::new();
    bench.runtime.interpreter = Some(lively);
    bench.run("a", "web");
    bench.advance(Duration::from_millis(150));
    assert!(exits(&bench).is_empty());
    bench.advance(Duration::from_millis(200));
    assert_eq!(exits(&bench), [(ExitCode::Known(5), ExitCause::Itself)]);
}

#[test]
fn a_program_ends_on_its_signal_whatever_it_does() {
    let mut bench = Bench::new();
    bench.runtime.interpreter = Some(lively);
    bench.run("a", "web");
    let kill = RuntimeCommand::Kill {
        id: id("a"),
        signal: Signal::Terminate,
    };
    assert_eq!(bench.class(kill), None);
    bench.advance(Duration::from_millis(40));
    assert!(exits(&bench).is_empty());
    bench.advance(Duration::from_millis(20));
    assert_eq!(
        exits(&bench),
        [(ExitCode::Known(143), ExitCause::Terminated)]
    );
}
