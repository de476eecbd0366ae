//! Observations in, truth out: whatever is seen late, in part or twice is told whole and once.

use std::collections::BTreeMap;

use wavetank_port::{
    ContainerId, ContainerState, ContainerStatus, ExitCode, ExitStatus, ImageReference,
    RuntimeEvent, WallTime,
};
use wavetank_trace::{ExitCause, Payload};

use super::tracker::Tracker;

const MS: u64 = 1_000_000;
/// Long after everything has become certain.
const LATE: u64 = 100_000 * MS;

fn id(name: &str) -> ContainerId {
    ContainerId(name.to_owned())
}

fn exit(code: ExitCode, at_ms: Option<u64>) -> ExitStatus {
    ExitStatus {
        code,
        exited_at: at_ms.map(|at| WallTime(at * MS)),
        oom_killed: false,
    }
}

fn created(name: &str) -> ContainerState {
    ContainerState {
        id: id(name),
        image: ImageReference("image".to_owned()),
        labels: BTreeMap::new(),
        status: ContainerStatus::Created,
        pid: None,
        started_at: None,
        exit: None,
    }
}

fn running(name: &str, started_ms: u64, pid: u32) -> ContainerState {
    ContainerState {
        status: ContainerStatus::Running,
        pid: Some(pid),
        started_at: Some(WallTime(started_ms * MS)),
        ..created(name)
    }
}

fn exited(name: &str, started_ms: u64, exit: ExitStatus) -> ContainerState {
    ContainerState {
        status: ContainerStatus::Exited,
        started_at: Some(WallTime(started_ms * MS)),
        exit: Some(exit),
        ..created(name)
    }
}

/// A tracker with times in milliseconds and what it has told, a line each.
struct Bench {
    tracker: Tracker,
}

impl Bench {
    fn new() -> Self {
        let volumes = Box::new(|id: &ContainerId| vec![format!("of-{id}")]);
        Bench {
            tracker: Tracker::new(volumes),
        }
    }

    /// A listing that takes 10 ms.
    fn list(&mut self, asked_ms: u64, states: &[ContainerState]) -> &mut Self {
        let answered = (asked_ms + 10) * MS;
        self.tracker.listed(asked_ms * MS, answered, states);
        self
    }

    fn hear(&mut self, now_ms: u64, event: &RuntimeEvent) -> &mut Self {
        self.tracker.heard(now_ms * MS, event);
        self
    }

    fn told(&mut self) -> Vec<String> {
        let told = self.tracker.drain_told();
        told.iter().map(|it| line(it.at, &it.payload)).collect()
    }

    /// Once nothing better can come.
    fn told_late(&mut self) -> Vec<String> {
        self.tracker.settle(LATE);
        self.told()
    }
}

fn line(at: u64, payload: &Payload) -> String {
    let what = match payload {
        Payload::ContainerCreated { container, volumes } => {
            assert_eq!(*volumes, [format!("of-{container}")]);
            format!("{container} created")
        }
        Payload::ContainerStarted { container, pid } => format!("{container} started {pid}"),
        Payload::ContainerExited {
            container,
            exit,
            because,
        } => {
            let oom = if exit.oom_killed { " oom" } else { "" };
            format!("{container} exited {}{oom} {because:?}", exit.code)
        }
        Payload::ContainerExitForgotten { container } => format!("{container} forgotten"),
        Payload::ContainerDeleted { container } => format!("{container} deleted"),
        other => panic!("{other:?}"),
    };
    format!("{} {what}", at / MS)
}

fn started_event(name: &str, at_ms: u64, pid: u32) -> RuntimeEvent {
    RuntimeEvent::Started {
        id: id(name),
        pid,
        at: WallTime(at_ms * MS),
    }
}

fn exited_event(name: &str, exit: ExitStatus) -> RuntimeEvent {
    RuntimeEvent::Exited { id: id(name), exit }
}

fn deleted_event(name: &str) -> RuntimeEvent {
    RuntimeEvent::Deleted { id: id(name) }
}

#[test]
fn a_life_seen_from_listings_alone_is_told_step_by_step() {
    let mut bench = Bench::new();
    bench.list(100, &[created("a")]);
    // It may be about to start: then the time of that would be a better one.
    assert!(bench.told().is_empty());
    bench.list(200, &[running("a", 150, 7)]);
    assert_eq!(bench.told(), ["110 a created", "150 a started 7"]);
    bench.list(300, &[running("a", 150, 7)]);
    assert!(bench.told().is_empty());
    bench.list(
        400,
        &[exited("a", 150, exit(ExitCode::Known(3), Some(350)))],
    );
    assert_eq!(bench.told(), ["350 a exited 3 Itself"]);
    bench.list(500, &[]);
    // One listing may be wrong.
    assert!(bench.told().is_empty());
    bench.list(600, &[]);
    assert_eq!(bench.told(), ["510 a deleted"]);
    bench.list(700, &[]);
    assert!(bench.told_late().is_empty());
}

#[test]
fn a_created_container_that_does_not_start_is_told_after_a_while() {
    let mut bench = Bench::new();
    bench.list(100, &[created("a")]).list(200, &[created("a")]);
    assert!(bench.told().is_empty());
    bench.list(500, &[created("a")]);
    assert_eq!(bench.told(), ["110 a created"]);
    // It never ran, so it never exited.
    bench.list(600, &[]).list(1700, &[]);
    assert_eq!(bench.told(), ["610 a deleted"]);
}

#[test]
fn first_seen_running_or_exited_it_was_created_before_it_started() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(0), Some(80));
    bench.list(100, &[running("a", 50, 7), exited("b", 60, end)]);
    let expected = [
        "50 a created",
        "50 a started 7",
        "60 b created",
        "60 b started 0",
        "80 b exited 0 Itself",
    ];
    assert_eq!(bench.told(), expected);
}

#[test]
fn a_life_between_two_listings_is_told_by_its_events() {
    let mut bench = Bench::new();
    bench.list(100, &[]);
    bench.hear(121, &started_event("a", 120, 7));
    assert_eq!(bench.told(), ["120 a created", "120 a started 7"]);
    bench.hear(126, &exited_event("a", exit(ExitCode::Known(0), Some(125))));
    bench.hear(150, &deleted_event("a"));
    assert_eq!(bench.told(), ["125 a exited 0 Itself"]);
    bench.list(200, &[]);
    assert_eq!(bench.told(), ["150 a deleted"]);
}

#[test]
fn events_that_come_alone_are_enough() {
    // All others were lost.
    let mut bench = Bench::new();
    bench.hear(130, &exited_event("a", exit(ExitCode::Known(4), Some(125))));
    let expected = ["125 a created", "125 a started 0", "125 a exited 4 Itself"];
    assert_eq!(bench.told(), expected);
    // Of what nobody has seen there is nothing to say.
    bench
        .hear(140, &deleted_event("b"))
        .hear(141, &RuntimeEvent::Interrupted);
    bench.list(150, &[]).list(250, &[]);
    assert_eq!(bench.told_late(), ["160 a deleted"]);
}

#[test]
fn a_listing_from_before_an_event_takes_nothing_back() {
    let mut bench = Bench::new();
    bench.hear(100, &started_event("a", 100, 7)).told();
    // Both were asked for before it was there.
    bench.list(95, &[]).list(96, &[]);
    bench.hear(200, &exited_event("a", exit(ExitCode::Known(1), Some(200))));
    assert_eq!(bench.told(), ["200 a exited 1 Itself"]);
    bench.hear(300, &deleted_event("a")).list(310, &[]);
    assert_eq!(bench.told(), ["300 a deleted"]);
    // It was asked for before it went.
    bench.list(
        295,
        &[exited("a", 100, exit(ExitCode::Known(1), Some(200)))],
    );
    assert!(bench.told_late().is_empty());
}

#[test]
fn events_that_come_twice_or_too_late_are_told_once() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(1), Some(200));
    for _ in 0..2 {
        bench.hear(110, &started_event("a", 100, 7));
        bench.hear(210, &exited_event("a", end));
    }
    bench.list(220, &[exited("a", 100, end)]);
    let expected = ["100 a created", "100 a started 7", "200 a exited 1 Itself"];
    assert_eq!(bench.told(), expected);
    bench.list(300, &[]).list(400, &[]).told();
    bench.hear(450, &started_event("a", 100, 7));
    bench
        .hear(451, &exited_event("a", end))
        .hear(452, &exited_event("a", exit(ExitCode::Known(1), None)))
        .hear(453, &deleted_event("a"));
    assert!(bench.told_late().is_empty());
}

#[test]
fn gone_while_it_ran_its_exit_is_forgotten_and_not_guessed() {
    let mut bench = Bench::new();
    bench.list(100, &[running("a", 50, 7)]).told();
    bench.list(200, &[]).list(300, &[]);
    // The event that knows the code may be on its way.
    assert!(bench.told().is_empty());
    bench.list(1300, &[]);
    let expected = [
        "210 a exited unknown Killed",
        "210 a forgotten",
        "210 a deleted",
    ];
    assert_eq!(bench.told(), expected);
}

#[test]
fn gone_while_it_ran_an_event_in_time_knows_the_code() {
    let mut bench = Bench::new();
    bench.list(100, &[running("a", 50, 7)]).told();
    bench.list(200, &[]).list(300, &[]);
    bench.hear(
        400,
        &exited_event("a", exit(ExitCode::Known(137), Some(195))),
    );
    assert_eq!(bench.told(), ["195 a exited 137 Killed", "210 a deleted"]);
}

#[test]
fn an_unknown_code_waits_for_a_known_one() {
    let mut bench = Bench::new();
    let unknown = exit(ExitCode::Unknown, None);
    bench
        .list(100, &[running("a", 50, 7), running("b", 50, 8)])
        .told();
    bench.list(200, &[exited("a", 50, unknown), exited("b", 50, unknown)]);
    bench.hear(250, &exited_event("a", exit(ExitCode::Known(9), Some(199))));
    assert_eq!(bench.told(), ["199 a exited 9 Itself"]);
    let expected = ["210 b exited unknown Fault", "210 b forgotten"];
    assert_eq!(bench.told_late(), expected);
    // Too late.
    bench.hear(
        2000,
        &exited_event("b", exit(ExitCode::Known(9), Some(199))),
    );
    assert!(bench.told_late().is_empty());
}

#[test]
fn an_empty_listing_that_was_wrong_deletes_nothing() {
    let mut bench = Bench::new();
    bench.list(100, &[running("a", 50, 7)]).told();
    bench
        .list(200, &[])
        .list(300, &[running("a", 50, 7)])
        .list(400, &[]);
    bench.list(500, &[running("a", 50, 7)]);
    assert!(bench.told_late().is_empty());
}

#[test]
fn the_same_id_can_live_again() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(1), Some(60));
    bench.list(100, &[exited("a", 50, end)]).told();
    // Its removal was not seen.
    bench.list(1200, &[created("a")]);
    assert_eq!(bench.told(), ["1210 a deleted"]);
    bench.list(1300, &[running("a", 1250, 9)]);
    assert_eq!(bench.told(), ["1210 a created", "1250 a started 9"]);
    // Nor this one, nor its end.
    bench.list(1400, &[running("a", 1390, 10)]);
    let expected = [
        "1410 a exited unknown Killed",
        "1410 a forgotten",
        "1410 a deleted",
        "1410 a created",
        "1410 a started 10",
    ];
    assert_eq!(bench.told(), expected.map(str::to_owned));
}

#[test]
fn a_removal_that_was_seen_lets_the_same_id_live_again_at_once() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(1), Some(60));
    bench.list(100, &[exited("a", 50, end)]).told();
    bench.hear(150, &deleted_event("a"));
    bench.list(200, &[created("a")]);
    assert_eq!(bench.told(), ["150 a deleted"]);
    assert_eq!(bench.told_late(), ["210 a created"]);
}

#[test]
fn a_listing_that_lags_behind_brings_nobody_back() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(1), Some(60));
    bench.list(100, &[exited("a", 50, end)]).told();
    bench.hear(150, &deleted_event("a")).list(200, &[]);
    assert_eq!(bench.told(), ["150 a deleted"]);
    bench
        .list(250, &[exited("a", 50, end)])
        .list(300, &[created("a")]);
    assert_eq!(bench.told(), [] as [&str; 0]);
    // What has started since is another one.
    bench.list(350, &[running("a", 340, 9)]);
    assert_eq!(bench.told(), ["340 a created", "340 a started 9"]);
}

#[test]
fn causes_follow_from_what_is_known() {
    let cause = |mark: Option<ExitCause>, code: ExitCode, oom_killed: bool| {
        let mut bench = Bench::new();
        if let Some(mark) = mark {
            bench.tracker.mark(&id("a"), mark);
        }
        let end = ExitStatus {
            oom_killed,
            ..exit(code, Some(60))
        };
        bench.list(100, &[exited("a", 50, end)]);
        let told = bench.told_late();
        let exited = told
            .iter()
            .find(|it| it.contains("exited"))
            .expect("an exit");
        exited.rsplit(' ').next().expect("a cause").to_owned()
    };
    let known = ExitCode::Known;
    let cases = [
        (None, known(0), false, "Itself"),
        (None, known(137), false, "Killed"),
        (None, known(143), false, "Terminated"),
        (None, known(137), true, "OutOfMemory"),
        (None, ExitCode::Unknown, false, "Fault"),
        (Some(ExitCause::Fault), known(137), false, "Fault"),
        (Some(ExitCause::Fault), known(3), false, "Fault"),
        (
            Some(ExitCause::OutOfMemory),
            known(137),
            false,
            "OutOfMemory",
        ),
        (Some(ExitCause::Terminated), known(0), false, "Terminated"),
        (Some(ExitCause::Terminated), known(137), false, "Killed"),
        (Some(ExitCause::Terminated), known(137), true, "OutOfMemory"),
        (Some(ExitCause::Killed), ExitCode::Unknown, false, "Killed"),
        (Some(ExitCause::Killed), known(0), false, "Itself"),
    ];
    for (mark, code, oom, expected) in cases {
        assert_eq!(cause(mark, code, oom), expected, "{mark:?} {code} {oom}");
    }
}

#[test]
fn a_power_loss_ends_what_runs_and_only_that() {
    let mut bench = Bench::new();
    let end = exit(ExitCode::Known(1), Some(60));
    let all = [running("a", 50, 7), exited("b", 50, end), created("c")];
    bench.list(100, &all).told();
    bench.tracker.power_lost(500 * MS, false);
    assert_eq!(
        bench.told()[..2],
        ["500 a exited unknown PowerLoss", "500 a forgotten"]
    );
    // After the boot: all records are there, and one of a container that had not been seen.
    let unknown = exit(ExitCode::Unknown, None);
    let after = [
        exited("a", 50, unknown),
        exited("b", 50, end),
        created("c"),
        exited("d", 499, unknown),
    ];
    bench.list(900, &after);
    let told = bench.told_late();
    let expected = [
        "499 d created",
        "499 d started 0",
        "500 d exited unknown PowerLoss",
        "500 d forgotten",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_process_is_open_until_its_end_is_known_for_good() {
    let mut bench = Bench::new();
    let open = |bench: &Bench| bench.tracker.open_processes();
    bench.list(
        100,
        &[running("a", 50, 7), running("b", 50, 8), created("c")],
    );
    assert_eq!(open(&bench), [7, 8]);
    let known = exit(ExitCode::Known(1), Some(120));
    let unknown = exit(ExitCode::Unknown, Some(120));
    bench.list(200, &[exited("a", 50, unknown), exited("b", 50, known)]);
    assert_eq!(open(&bench), [7]);
    bench.hear(210, &exited_event("a", known));
    assert_eq!(open(&bench), Vec::<u32>::new());
}

#[test]
fn a_wiped_machine_has_no_containers_left() {
    let mut bench = Bench::new();
    bench.list(100, &[running("a", 50, 7), created("b")]).told();
    bench.tracker.power_lost(500 * MS, true);
    let expected = [
        "500 a exited unknown PowerLoss",
        "500 a forgotten",
        "500 a deleted",
        "110 b created",
        "500 b deleted",
    ];
    let told = bench.told();
    for line in expected {
        assert!(told.contains(&line.to_owned()), "{line} is not in {told:?}");
    }
    assert_eq!(told.len(), expected.len());
}

#[test]
fn at_the_end_everything_that_waited_is_told() {
    let mut bench = Bench::new();
    bench.list(100, &[running("a", 50, 7), created("b")]).told();
    bench.list(200, &[created("b")]);
    bench.tracker.close();
    let expected = [
        "210 a exited unknown Killed",
        "210 a forgotten",
        "210 a deleted",
        "110 b created",
    ];
    assert_eq!(bench.told(), expected);
}

#[test]
fn clocks_that_disagree_do_not_change_the_order() {
    let mut bench = Bench::new();
    // The end seems to come before the start, and both before the creation.
    bench.hear(100, &started_event("a", 120, 7));
    bench.hear(101, &exited_event("a", exit(ExitCode::Known(0), Some(110))));
    bench.hear(102, &deleted_event("a")).list(200, &[]);
    let times = |line: &String| line.split(' ').next().and_then(|it| it.parse::<u64>().ok());
    let told = bench.told_late();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told.is_sorted_by_key(times), "{told:?}");
}
