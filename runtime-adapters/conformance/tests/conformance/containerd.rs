//! What containerd comes through: kills at random points of many lives.

use wavetank_conformance::Bench as _;
use wavetank_conformance::arms::containerd::ContainerdBench;

use crate::real::usable;
use crate::storm::storm;

/// Any number; another one is another storm.
const SEED: u64 = 20_110;
const LIFECYCLES: u32 = 200;

#[ignore = "not green: now and then runc's own exit is taken for the container's"]
#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_known_whatever_is_killed() {
    if !usable(&ContainerdBench) {
        return;
    }
    let arm = ContainerdBench.arm().await.expect("an arm");
    let tally = storm(arm.as_ref(), SEED, LIFECYCLES).await;
    println!("{tally:#?}");
    arm.close().await.expect("nothing stays");
    assert!(tally.broken.is_empty(), "{}", tally.broken.join("\n"));
    assert_eq!(
        tally.known + tally.unknown + tally.never_started.len(),
        LIFECYCLES as usize
    );
    assert!(tally.never_started.len() <= tally.daemon_kills + tally.monitor_kills);
    // A storm that strikes nobody proves nothing.
    assert!(tally.daemon_kills > 0 && tally.monitor_kills > 0 && tally.process_kills > 0);
}
