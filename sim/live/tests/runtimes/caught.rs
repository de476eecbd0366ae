//! Whole live runs of nodes that were broken on purpose: each is found by the checker whose matter
//! it is, in a scenario that the honest node passes.

use std::os::unix::fs::symlink;
use std::path::Path;

use wavetank_checkers::Verdict;
use wavetank_engine::{Keep, RunResult};
use wavetank_live::room::RoomError;
use wavetank_live::{SceneConfig, SceneError};
use wavetank_node::config::RuntimeKind;
use wavetank_scenario::load;
use wavetank_scenario::plan::Plan;

use crate::bed::Case;
use crate::broken::Habit;
use crate::daemons::DaemonBed;

pub const CASES: &[Case] = &[
    Case {
        name: "caught-a-node-that-trusts-an-empty-listing",
        usable: DaemonBed::containerd_usable,
        run: || {
            Box::pin(async {
                is_caught(Habit::TrustsListings, "runtime/empty-listing.yaml", "I21").await;
            })
        },
    },
    Case {
        name: "caught-a-node-that-loses-exits-while-it-is-down",
        usable: DaemonBed::containerd_usable,
        run: || {
            Box::pin(async {
                let file = "runtime/exit-while-agent-down.yaml";
                is_caught(Habit::LosesExits, file, "I5").await;
            })
        },
    },
];

/// How many of the scenario's seconds pass in one.
const SPEED: u32 = 8;

async fn is_caught(habit: Habit, file: &str, checker: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let scenario = load(&path.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let plan = scenario.plan(0);
    let Some(broken) = run(&plan, habit).await else {
        return;
    };
    let judgement = broken.judgement;
    assert_eq!(judgement.verdict, Verdict::Fail, "{}", habit.name());
    let found = judgement.findings.iter().find(|it| it.checker == checker);
    let found = found.unwrap_or_else(|| panic!("not by {checker}: {:#?}", judgement.findings));
    println!(
        "{} caught in {file} by {checker}: {}",
        habit.name(),
        found.cause
    );
    let honest = run(&plan, Habit::None).await.expect("it ran before");
    let judgement = honest.judgement;
    assert_eq!(
        judgement.verdict,
        Verdict::Pass,
        "{:#?}",
        judgement.findings
    );
}

/// `None` where this machine can have no hosts, which is a failure where skipping is forbidden.
async fn run(plan: &Plan, habit: Habit) -> Option<RunResult> {
    let folder = tempfile::Builder::new().prefix("wt").tempdir();
    let folder = folder.expect("a folder");
    let program = folder.path().join(habit.name());
    symlink(std::env::current_exe().expect("this program"), &program).expect("a link");
    let config = SceneConfig {
        program,
        runtime: RuntimeKind::Containerd,
        speed: SPEED,
        directory: folder.path().join("r"),
        is_temporary: true,
    };
    match wavetank_live::run(plan, &config, Keep::Nothing, &mut |_| {}).await {
        Ok(result) => Some(result),
        Err(SceneError::Room(error @ RoomError::Unable { .. })) => {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            assert!(required.is_none_or(|it| it.is_empty()), "{error}");
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}
