//! A blob on its way in: pieces as they come, verified at the end.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;

use crate::digest::Verifier;
use crate::error::{DistributionError, Result};
use crate::transport::{Transport, malformed};

/// A blob as a stream. Dropping it ends the transfer.
///
/// The content is proven only when [`Blob::next`] has said `None`: whoever stores pieces as they
/// come must not make them visible before.
pub struct Blob {
    what: String,
    idle: Duration,
    body: Incoming,
    verifier: Option<Verifier>,
    bytes_total: u64,
    bytes_left: u64,
}

impl Blob {
    pub(crate) fn new(
        what: String,
        idle: Duration,
        body: Incoming,
        verifier: Verifier,
        bytes_total: u64,
    ) -> Self {
        Blob {
            what,
            idle,
            body,
            verifier: Some(verifier),
            bytes_total,
            bytes_left: bytes_total,
        }
    }

    /// The size that the manifest announced, in bytes; never more comes.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// The next piece, `None` once all came and the digest is right. Cancel-safe: a dropped call
    /// loses no piece.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match Transport::frame(&self.what, self.idle, &mut self.body).await? {
            Some(piece) => self.take(piece).map(Some),
            None => self.finish().map(|()| None),
        }
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes> {
        let length = piece.len() as u64;
        if length > self.bytes_left {
            return Err(DistributionError::TooLarge {
                what: self.what.clone(),
                bytes_max: self.bytes_total,
            });
        }
        self.bytes_left -= length;
        if let Some(verifier) = &mut self.verifier {
            verifier.update(&piece);
        }
        Ok(piece)
    }

    fn finish(&mut self) -> Result<()> {
        if self.bytes_left > 0 {
            let problem = format!("it ended {} bytes early", self.bytes_left);
            return Err(malformed(&self.what, problem));
        }
        // A second call after the end says the end again.
        self.verifier.take().map_or(Ok(()), Verifier::finish)
    }
}
