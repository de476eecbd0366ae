//! By which time lives are measured: a machine's own, or a simulated one's.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use wavetank_port::WallTime;

/// A clock to measure by.
pub trait Clock: Send + Sync {
    /// The time since some moment; never goes back.
    fn now(&self) -> Duration;

    /// The wall clock of the runtime's machine.
    fn wall(&self) -> WallTime;

    /// Comes back after `time`.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// This machine's clocks; tokio's where it is virtual.
pub struct MachineClock {
    origin: Instant,
}

impl MachineClock {
    /// Time zero is now.
    pub fn start() -> Self {
        MachineClock {
            origin: Instant::now(),
        }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        WallTime(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(time))
    }
}
