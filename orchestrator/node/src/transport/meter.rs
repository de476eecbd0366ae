//! A stream that counts its bytes, so that a connection without progress can be told from a slow
//! one, and so that it is known what a node's connections cost.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Counters;
use crate::platform::Platform;

/// Bytes that went through, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Comes back once `timeout` has passed without a byte: after that, or at most twice that.
    pub(crate) async fn stands_still<P: Platform>(&self, platform: &P, timeout: Duration) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            platform.sleep(timeout).await;
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// The stream. Both meters outlive it.
pub(crate) struct Metered<S> {
    stream: S,
    pub(crate) read: Arc<Meter>,
    pub(crate) written: Arc<Meter>,
    counters: Arc<Counters>,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, counters: Arc<Counters>) -> Self {
        Metered {
            stream,
            read: Arc::default(),
            written: Arc::default(),
            counters,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let more = buffer.filled().len() - before;
        self.read.add(more);
        self.counters.bytes_read.add(more);
        polled
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &polled {
            self.written.add(*written);
            self.counters.bytes_written.add(*written);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
