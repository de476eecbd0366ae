//! The machine's clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use wavetank_port::WallTime;

/// Now. Zero before 1970, the end of time after 2554.
pub fn now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
