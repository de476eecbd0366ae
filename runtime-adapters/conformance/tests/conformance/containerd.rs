//! What containerd comes through: kills at random points of many lives.

use wavetank_conformance::Bench as _;
use wavetank_conformance::arms::containerd::ContainerdBench;

use crate::real::usable;
use crate::storm::storm;

/// Any number; another one is another storm.
const SEED: u64 = 20_110;
/// Set to a number, it is that storm.
const SEED_VARIABLE: &str = "WAVETANK_STORM_SEED";
const LIFECYCLES: u32 = 200;

fn seed() -> u64 {
    let Ok(text) = std::env::var(SEED_VARIABLE) else {
        return SEED;
    };
    text.parse().expect("the seed is a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_known_whatever_is_killed() {
    if !usable(&ContainerdBench) {
        return;
    }
    let arm = ContainerdBench.arm().await.expect("an arm");
    let tally = storm(arm.as_ref(), seed(), LIFECYCLES).await;
    println!("{tally:#?}");
    arm.close().await.expect("nothing stays");
    assert!(tally.broken.is_empty(), "{}", tally.broken.join("\n"));
    let ended = tally.known + tally.unknown + tally.ambiguous;
    assert_eq!(ended, LIFECYCLES as usize);
    // A storm that strikes nobody proves nothing.
    assert!(tally.daemon_kills > 0 && tally.monitor_kills > 0 && tally.process_kills > 0);
}
