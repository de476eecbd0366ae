//! All cases on the simulated runtime, in virtual time.

use wavetank_conformance::{CASES, Outcome, run_case};
use wavetank_sim_arm::{SimBench, block_on_virtual_time};

#[test]
fn the_simulated_runtime_passes_every_case_that_applies() {
    let mut failed = Vec::new();
    let mut not_applicable = 0;
    for case in CASES {
        let result = block_on_virtual_time(run_case(&SimBench, case)).expect("a tokio runtime");
        match result.outcome {
            Outcome::Pass => {}
            Outcome::NotApplicable { .. } => not_applicable += 1,
            Outcome::Fail { message } => {
                failed.push(format!("{} {}: {message}", case.number, case.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // The model has everything that a case asks for.
    assert_eq!(not_applicable, 0);
}
