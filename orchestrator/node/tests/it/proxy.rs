//! A wire that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Forwards connections, and cuts each one somewhere: after a number of bytes that differs from
/// connection to connection, wherever in a frame that is.
pub struct Proxy {
    at: SocketAddr,
    cuts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// In front of `target`. Lets nobody carry more than `bytes_max` in one direction.
    pub async fn cutting(target: SocketAddr, bytes_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("an address");
        let cuts = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(forward(listener, target, bytes_max, cuts.clone()));
        Proxy { at, cuts, task }
    }

    pub fn at(&self) -> SocketAddr {
        self.at
    }

    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, target: SocketAddr, bytes_max: u64, cuts: Arc<AtomicU64>) {
    for number in 1_u64.. {
        let (near, _) = listener.accept().await.expect("a connection");
        let far = TcpStream::connect(target)
            .await
            .expect("the target listens");
        // A prime step spreads the cuts over all positions.
        let allowance = bytes_max / 2 + number * 7919 % (bytes_max / 2);
        let cuts = cuts.clone();
        tokio::spawn(async move {
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::select! {
                biased;
                () = pump(near_read, far_write, allowance) => {}
                () = pump(far_read, near_write, bytes_max) => {}
            }
            cuts.fetch_add(1, Ordering::Relaxed);
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut allowance: u64) {
    let mut buffer = [0; 777];
    while allowance > 0 {
        let Ok(read) = from.read(&mut buffer).await else {
            return;
        };
        let passed = read.min(usize::try_from(allowance).unwrap_or(usize::MAX));
        if read == 0 || to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        allowance -= passed as u64;
    }
}
