//! A real machine: tokio's network and timers, the operating system's clocks and entropy.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use wavetank_model::Instant;
use wavetank_port::WallTime;

use crate::platform::{Platform, Task};

/// The machine this process runs on. All clones share one beginning of time.
#[derive(Clone, Copy, Debug)]
pub struct Os {
    origin: std::time::Instant,
}

impl Os {
    /// Monotonic time begins now.
    pub fn new() -> Self {
        Os {
            origin: std::time::Instant::now(),
        }
    }
}

impl Default for Os {
    fn default() -> Self {
        Os::new()
    }
}

impl Platform for Os {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn listen(&self, address: &str) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    fn local_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        // Messages are small and wait for answers.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = since.unwrap_or(Duration::ZERO).as_nanos();
        WallTime(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    async fn sleep_until(&self, at: Instant) {
        if at == Instant::NEVER {
            return std::future::pending().await;
        }
        tokio::time::sleep(at.since(self.now())).await;
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let task = tokio::spawn(future);
        Task::new(move || task.abort())
    }

    fn entropy(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has entropy");
    }
}
