//! The clocks of one machine: a monotonic one that may drift, and a wall clock that may jump.

use wavetank_model::Instant;
use wavetank_port::WallTime;
use wavetank_trace::VirtualTime;

/// Wall-clock time of the start of every run: 2026-01-01T00:00:00Z.
const EPOCH_NS: i64 = 1_767_225_600_000_000_000;

const MILLION: i128 = 1_000_000;

/// One machine's clocks. `local = anchor_local + (virtual - anchor_virtual) * (1 + drift)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalClock {
    anchor_virtual: u64,
    anchor_local: u64,
    drift_ppm: i64,
    wall_offset_ns: i64,
}

impl LocalClock {
    /// A machine that booted `uptime_ns` before the start of the run.
    pub fn new(uptime_ns: u64) -> Self {
        LocalClock {
            anchor_virtual: 0,
            anchor_local: uptime_ns,
            drift_ppm: 0,
            wall_offset_ns: 0,
        }
    }

    /// The monotonic clock at `at`.
    pub fn monotonic(&self, at: VirtualTime) -> Instant {
        let elapsed = at.0.saturating_sub(self.anchor_virtual);
        if self.drift_ppm == 0 {
            return Instant(self.anchor_local.saturating_add(elapsed));
        }
        let scaled = i128::from(elapsed) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        Instant(self.anchor_local.saturating_add(saturate(scaled)))
    }

    /// The first virtual time at which the monotonic clock shows `local` or more.
    pub fn when(&self, local: Instant) -> VirtualTime {
        if local == Instant::NEVER {
            return VirtualTime(u64::MAX);
        }
        let ahead = local.0.saturating_sub(self.anchor_local);
        if self.drift_ppm == 0 {
            return VirtualTime(self.anchor_virtual.saturating_add(ahead));
        }
        let rate = MILLION + i128::from(self.drift_ppm);
        let scaled = (i128::from(ahead) * MILLION + rate - 1) / rate;
        VirtualTime(self.anchor_virtual.saturating_add(saturate(scaled)))
    }

    /// The wall clock at `at`.
    pub fn wall(&self, at: VirtualTime) -> WallTime {
        let true_time = i128::from(EPOCH_NS) + i128::from(at.0);
        WallTime(saturate(true_time + i128::from(self.wall_offset_ns)))
    }

    /// From now on the monotonic clock runs fast (or slow) by this; it never jumps.
    pub fn set_drift(&mut self, at: VirtualTime, ppm: i64) {
        self.anchor_local = self.monotonic(at).0;
        self.anchor_virtual = at.0;
        self.drift_ppm = ppm.max(-999_999);
    }

    /// The wall clock jumps by this.
    pub fn jump_wall(&mut self, by_ns: i64) {
        self.wall_offset_ns = self.wall_offset_ns.saturating_add(by_ns);
    }

    /// The machine boots: its monotonic clock starts again from zero.
    pub fn reboot(&mut self, at: VirtualTime) {
        self.anchor_virtual = at.0;
        self.anchor_local = 0;
    }
}

fn saturate(number: i128) -> u64 {
    u64::try_from(number.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_exactly_when_it_is_due_whatever_the_drift() {
        for ppm in [-500_000, -1, 0, 1, 500, 2_000_000] {
            let mut clock = LocalClock::new(5_000);
            clock.set_drift(VirtualTime(1_000), ppm);
            for local in [6_001, 7_777, 1_000_000_007] {
                let at = clock.when(Instant(local));
                assert!(clock.monotonic(at) >= Instant(local), "{ppm} {local}");
                assert!(
                    clock.monotonic(VirtualTime(at.0 - 1)) < Instant(local),
                    "{ppm} {local}"
                );
            }
        }
    }

    #[test]
    fn a_wall_jump_leaves_the_monotonic_clock_alone() {
        let mut clock = LocalClock::new(0);
        let before = (clock.monotonic(VirtualTime(9)), clock.wall(VirtualTime(9)));
        clock.jump_wall(-3);
        assert_eq!(clock.monotonic(VirtualTime(9)), before.0);
        assert_eq!(clock.wall(VirtualTime(9)).0 + 3, before.1.0);
    }
}
