//! By which time a simulated runtime lives.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;
use wavetank_trace::VirtualTime;

/// A clock that all machines of a run share, and a way to wait.
pub trait Pace: Send + Sync {
    /// The time since the start of the run.
    fn now(&self) -> VirtualTime;

    /// Comes back after `duration`.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// tokio's clock: paused, it is virtual.
pub struct TokioPace {
    origin: Instant,
}

impl TokioPace {
    /// Time zero is now.
    pub fn new() -> Self {
        TokioPace {
            origin: Instant::now(),
        }
    }
}

impl Default for TokioPace {
    fn default() -> Self {
        TokioPace::new()
    }
}

impl Pace for TokioPace {
    fn now(&self) -> VirtualTime {
        VirtualTime::from_duration(self.origin.elapsed())
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
