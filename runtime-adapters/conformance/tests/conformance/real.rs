//! All cases on each real runtime that this machine has, one runtime after another: together they
//! would only make each other slow. The oci adapter has a test program of its own, `oci`.

use tokio::sync::Mutex;
use wavetank_conformance::arms::containerd::ContainerdBench;
use wavetank_conformance::arms::podman::PodmanBench;
use wavetank_conformance::host::prerequisites;
use wavetank_conformance::{Bench, CASES, Outcome, run_case};

/// Set to anything, it forbids to skip a runtime that is absent.
const REQUIRE: &str = "WAVETANK_REQUIRE_RUNTIMES";

/// Not applicable at most so often on one runtime.
const NOT_APPLICABLE_MAX: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn containerd_passes_every_case_that_applies() {
    passes(&ContainerdBench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_passes_every_case_that_applies() {
    passes(&PodmanBench).await;
}

/// Whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

/// False where the runtime is absent, which is said; where it may not be absent, a failure.
pub fn usable(bench: &dyn Bench) -> bool {
    let Some(problem) = prerequisites(bench.runtime()).problem() else {
        return true;
    };
    let required = std::env::var_os(REQUIRE).is_some_and(|value| !value.is_empty());
    assert!(!required, "{} is required: {problem}", bench.runtime());
    eprintln!("skipped: no {}: {problem}", bench.runtime());
    false
}

async fn passes(bench: &dyn Bench) {
    let _turn = TURN.lock().await;
    if !usable(bench) {
        return;
    }
    let mut failed = Vec::new();
    let mut not_applicable = 0;
    for case in CASES {
        let result = run_case(bench, case).await;
        println!("{result:?}");
        match result.outcome {
            Outcome::Pass => {}
            Outcome::NotApplicable { .. } => not_applicable += 1,
            Outcome::Fail { message } => {
                failed.push(format!("{} {}: {message}", case.number, case.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(not_applicable <= NOT_APPLICABLE_MAX, "{not_applicable}");
}
