//! Seeded randomness: one ChaCha stream per entity and purpose.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use wavetank_scenario::plan::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of random numbers that belongs to one entity and one purpose.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The stream of `entity` for `purpose` in the run of `seed`. The ChaCha stream number is
    /// derived from both names, so streams do not depend on the order in which they are made.
    pub fn new(seed: u64, entity: &str, purpose: &str) -> Self {
        Stream {
            rng: generator(seed, entity, purpose),
        }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A share of one, in 2^-32.
    pub fn share(&mut self) -> u32 {
        u32::try_from(self.rng.next_u64() >> 32).unwrap_or(u32::MAX)
    }

    /// A number below `bound`; 0 if the bound is 0. Multiply-shift: the bias is below 2^-32 for
    /// bounds that fit in 32 bits, and it costs one draw.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.rng.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True with a chance of `percent` in 100.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// A duration from an inclusive range, in nanoseconds.
    pub fn duration(&mut self, range: Range) -> Duration {
        Duration::from_nanos(self.nanos(range))
    }

    /// As [`Stream::duration`], as a number of nanoseconds.
    pub fn nanos(&mut self, range: Range) -> u64 {
        let min = nanos(range.min);
        let span = nanos(range.max).saturating_sub(min);
        if span == 0 {
            min
        } else {
            min + self.below(span + 1)
        }
    }
}

/// The generator behind [`Stream::new`], for those who need it as it is.
pub fn generator(seed: u64, entity: &str, purpose: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let entity = xxh3_64_with_seed(entity.as_bytes(), 1);
    rng.set_stream(xxh3_64_with_seed(purpose.as_bytes(), entity));
    rng
}

/// Nanoseconds of a duration; 584 years and more saturate.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_entity_and_by_purpose_and_repeat_by_seed() {
        let draw = |seed, entity, purpose| Stream::new(seed, entity, purpose).number();
        assert_eq!(draw(1, "agent-1", "network"), draw(1, "agent-1", "network"));
        assert_ne!(draw(1, "agent-1", "network"), draw(1, "agent-2", "network"));
        assert_ne!(draw(1, "agent-1", "network"), draw(1, "agent-1", "runtime"));
        assert_ne!(draw(1, "agent-1", "network"), draw(2, "agent-1", "network"));
    }

    #[test]
    fn ranges_include_both_ends() {
        let mut stream = Stream::new(7, "test", "ranges");
        let range = Range {
            min: Duration::from_nanos(3),
            max: Duration::from_nanos(5),
        };
        let mut seen = [false; 3];
        for _ in 0..200 {
            let drawn = stream.nanos(range);
            assert!((3..=5).contains(&drawn));
            seen[usize::try_from(drawn - 3).unwrap_or(0)] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
