//! Random draws. Every draw has a stream of its own, keyed by the seed, who draws and what for, so
//! that removing one fault leaves every other draw as it was. Integers only, so that every machine
//! draws the same.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::plan::Range;

/// All streams of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    seed: u64,
}

impl Draws {
    /// The streams of `seed`.
    pub fn new(seed: u64) -> Self {
        Draws { seed }
    }

    /// The stream that `who` uses for `purpose`, at its start.
    pub fn stream(self, who: &str, purpose: &str) -> Stream {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream_number(who, purpose));
        Stream { rng }
    }
}

/// FNV-1a over both texts, with a separator that neither contains.
fn stream_number(who: &str, purpose: &str) -> u64 {
    let bytes = who.bytes().chain([0xff]).chain(purpose.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One sequence of draws.
pub(crate) struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Evenly from 0 to `bound` - 1; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.rng.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Evenly from `min` to `max`, both included.
    pub fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.below(max.saturating_sub(min).saturating_add(1))
    }

    /// True with this chance in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of `items`; `None` if there are none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(items.len() as u64)).ok()?;
        items.get(index).copied()
    }

    /// `count` of `items` in drawn order; all of them if there are fewer.
    pub fn choose<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut left = items.to_vec();
        let mut chosen = Vec::new();
        while chosen.len() < count && !left.is_empty() {
            let index = usize::try_from(self.below(left.len() as u64)).unwrap_or(0);
            chosen.push(left.swap_remove(index));
        }
        chosen
    }

    /// Evenly from a range, rounded so that a person can read it: to milliseconds for ranges of
    /// seconds, to microseconds for ranges of milliseconds.
    pub fn duration(&mut self, range: Range) -> Duration {
        let span = range.max.saturating_sub(range.min);
        let unit = match span {
            span if span >= Duration::from_secs(1) => 1_000_000,
            span if span >= Duration::from_millis(1) => 1_000,
            _ => 1,
        };
        let steps = u64::try_from(span.as_nanos() / unit).unwrap_or(u64::MAX);
        let drawn = self.below(steps.saturating_add(1));
        range.min + Duration::from_nanos(drawn.saturating_mul(u64::try_from(unit).unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_seed_drawer_and_purpose() {
        let first = |seed, who, purpose| Draws::new(seed).stream(who, purpose).any();
        let base = first(1, "a", "b");
        assert_eq!(base, first(1, "a", "b"));
        for other in [
            first(2, "a", "b"),
            first(1, "c", "b"),
            first(1, "a", "c"),
            first(1, "ab", ""),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_stay_in_bounds_and_reach_them() {
        let mut stream = Draws::new(7).stream("test", "bounds");
        let drawn: std::collections::BTreeSet<u64> =
            (0..200).map(|_| stream.between(3, 6)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.between(0, u64::MAX).min(1), 1);
    }

    #[test]
    fn choosing_takes_each_at_most_once() {
        let mut chosen = Draws::new(3)
            .stream("test", "choose")
            .choose(&[1, 2, 3, 4, 5], 9);
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 2, 3, 4, 5]);
    }
}
