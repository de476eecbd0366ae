//! Draws from a process's own random numbers. Integers only, so that every machine draws the
//! same; nothing here keeps state.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

/// A number below `bound`; zero if `bound` is zero.
pub(crate) fn draw_below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let scaled = u128::from(rng.next_u64()) * u128::from(bound);
    // The upper half of the product is below `bound`, which is a u64.
    u64::try_from(scaled >> 64).unwrap_or(0)
}

/// A duration from `base` to a quarter more, so that waits that began together end apart.
pub(crate) fn jittered(rng: &mut ChaCha8Rng, base: Duration) -> Duration {
    let quarter = u64::try_from((base / 4).as_nanos()).unwrap_or(u64::MAX);
    base.saturating_add(Duration::from_nanos(draw_below(
        rng,
        quarter.saturating_add(1),
    )))
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let base = Duration::from_millis(100);
        let draws: Vec<Duration> = (0..200).map(|_| jittered(&mut rng, base)).collect();
        assert!(draws.iter().all(|d| *d >= base && *d <= base + base / 4));
        assert!(
            draws.iter().any(|d| *d > base + base / 5),
            "the upper end is used"
        );
        assert_eq!(jittered(&mut rng, Duration::ZERO), Duration::ZERO);
    }
}
