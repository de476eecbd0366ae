//! The one small port through which the shell reaches the machine it runs on: network, clocks,
//! entropy and tasks. Disks are reached through redb's `StorageBackend` and containers through
//! `wavetank_port::ContainerRuntime`.
//!
//! [`crate::os`] implements it for a real machine. A simulator implements it for its own, and the
//! rest of the shell cannot tell the difference: nothing else here may touch a socket, a clock or
//! an executor. tokio's channels and IO traits need none of them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use tokio::io::{AsyncRead, AsyncWrite};
use wavetank_model::Instant;
use wavetank_port::WallTime;

/// A machine, as the shell sees it.
pub trait Platform: Clone + Send + Sync + 'static {
    /// A connected byte stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A listening socket.
    type Listener: Send + 'static;

    /// Listens on `host:port`; port 0 takes a free one.
    fn listen(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Where a listener listens.
    fn local_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr>;

    /// The next connection, and who made it. Cancel-safe.
    fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Connects to `host:port`. May take for ever: callers bound it.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The wall clock; it may jump.
    fn wall(&self) -> WallTime;

    /// Comes back at `at`, or at once if that is past; never for [`Instant::NEVER`].
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;

    /// Runs a future beside the others. It ends when the [`Task`] is dropped.
    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task;

    /// Fills a buffer with random bytes that nobody can guess.
    fn entropy(&self, bytes: &mut [u8]);

    /// Random numbers of their own for one purpose.
    fn rng(&self) -> ChaCha8Rng {
        let mut seed = <ChaCha8Rng as SeedableRng>::Seed::default();
        self.entropy(&mut seed);
        ChaCha8Rng::from_seed(seed)
    }

    /// Comes back after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.sleep_until(self.now() + duration)
    }

    /// What a future answers, unless `duration` passes first.
    fn within<T: Send>(
        &self,
        duration: Duration,
        future: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send {
        async move {
            tokio::select! {
                biased;
                answer = future => Some(answer),
                () = self.sleep(duration) => None,
            }
        }
    }
}

/// A future that runs beside the others until it is over or this is dropped.
#[must_use = "a dropped task ends"]
pub struct Task {
    abort: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Task {
    /// A task that `abort` ends.
    pub fn new(abort: impl FnOnce() + Send + Sync + 'static) -> Self {
        Task {
            abort: Some(Box::new(abort)),
        }
    }

    /// Lets it run to its own end.
    pub fn detach(mut self) {
        self.abort = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(abort) = self.abort.take() {
            abort();
        }
    }
}
