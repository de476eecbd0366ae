//! The content store: reading small blobs whole and verified, and storing what a registry sends.

use std::str::FromStr as _;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wavetank_distribution::{Blob, CONFIG_BYTES_MAX, Descriptor, Digest, Verifier, sha256};
use wavetank_port::{ErrorClass, RuntimeError, runtime::Result};

use crate::api::containerd::services::content::v1::{
    DeleteContentRequest, Info, InfoRequest, ReadContentRequest, ReadContentResponse,
    UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use crate::daemon::Daemon;
use crate::error::{error, failed, found};
use crate::lease::Lease;

/// Each message to the daemon has at least so many bytes, but for the last: the daemon answers
/// every one of them.
const WRITE_BYTES_MIN: usize = 256 << 10;
/// Messages on their way to the daemon. A slow daemon slows the registry down instead of filling
/// our memory.
const WRITES_AHEAD: usize = 1;

/// Where the bytes of a blob come from.
pub(crate) enum Source {
    Bytes(Vec<u8>),
    Registry(Box<Blob>),
}

impl Source {
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self {
            Source::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Source::Bytes(bytes) => Ok(Some(std::mem::take(bytes))),
            Source::Registry(blob) => next_write(blob).await,
        }
    }
}

/// As many pieces as make up one message to the daemon, `None` at the end.
async fn next_write(blob: &mut Blob) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    while bytes.len() < WRITE_BYTES_MIN {
        match blob.next().await? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => break,
        }
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}

impl Daemon {
    /// A manifest or configuration, verified. `None` if it is absent or damaged.
    pub(crate) async fn read_content(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let bytes = found(self.read_whole(digest).await)?;
        Ok(bytes.filter(|it| is_digest_of(digest, it)))
    }

    /// At most [`CONFIG_BYTES_MAX`]: what is longer cannot have the digest of what we look for.
    async fn read_whole(&self, digest: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut stream = self.open_content(digest).await?;
        while let Some(piece) = stream.message().await.map_err(failed(digest))? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > CONFIG_BYTES_MAX {
                break;
            }
        }
        Ok(bytes)
    }

    async fn open_content(&self, digest: &str) -> Result<Streaming<ReadContentResponse>> {
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            ..ReadContentRequest::default()
        };
        let answer = self.connection.content().read(request).await;
        Ok(answer.map_err(failed(digest))?.into_inner())
    }

    /// True if a blob of any size is here and is not what its digest says.
    async fn is_damaged(&self, digest: &Digest) -> Result<bool> {
        let mut verifier = Verifier::new("content", digest)?;
        let digest = digest.as_ref();
        let read = async {
            let mut stream = self.open_content(digest).await?;
            while let Some(piece) = stream.message().await.map_err(failed(digest))? {
                verifier.update(&piece.data);
            }
            Ok(())
        };
        Ok(found(read.await)?.is_some() && verifier.finish().is_err())
    }

    /// Makes room for a blob that is stored and damaged, and says whether it was. Its bytes go only
    /// with a garbage collection, and until then the daemon would take them for the blob.
    pub(crate) async fn forget_damaged(self: &Arc<Self>, digest: &Digest) -> Result<bool> {
        // One at a time, or one would delete what the other has just mended.
        let _mending = self.mending.lock().await;
        if !self.is_damaged(digest).await? {
            return Ok(false);
        }
        let request = DeleteContentRequest {
            digest: digest.to_string(),
        };
        let answer = self.connection.content().delete(request).await;
        found(answer.map_err(failed(digest.as_ref())))?;
        Lease::begin(self).await?.discard().await?;
        Ok(true)
    }

    pub(crate) async fn has_content(&self, digest: &Digest) -> Result<bool> {
        let request = InfoRequest {
            digest: digest.to_string(),
        };
        let answer = self.connection.content().info(request).await;
        found(answer.map_err(failed(digest.as_ref()))).map(|it| it.is_some())
    }

    /// Sets labels of a blob, for garbage collection to know what it refers to.
    pub(crate) async fn label_content(
        &self,
        digest: &str,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> Result<()> {
        let labels: std::collections::BTreeMap<_, _> = labels.into_iter().collect();
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let request = UpdateRequest {
            info: Some(Info {
                digest: digest.to_owned(),
                size: 0,
                labels,
            }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let answer = self.connection.content().update(request).await;
        answer.map(drop).map_err(failed(digest))
    }
}

/// Stores a blob, held by `lease`. Another client's write of the same blob is as good as ours.
pub(crate) async fn write(lease: &Lease, descriptor: &Descriptor, source: Source) -> Result<()> {
    match write_new(lease, descriptor, source).await {
        Err(error) if error.class == ErrorClass::AlreadyExists => Ok(()),
        other => other,
    }
}

async fn write_new(lease: &Lease, descriptor: &Descriptor, mut source: Source) -> Result<()> {
    let what = descriptor.digest().to_string();
    let total = i64::try_from(descriptor.size())
        .map_err(|_| error(ErrorClass::InvalidArgument, format!("{what}: too large")))?;
    let request = |action: WriteAction, offset: i64, data: Vec<u8>| WriteContentRequest {
        action: action.into(),
        // Of our own, so that a write that was given up is in nobody's way.
        r#ref: format!("{}-{what}", lease.id),
        total,
        expected: what.clone(),
        offset,
        data,
        ..WriteContentRequest::default()
    };
    let (requests, receiver) = mpsc::channel(WRITES_AHEAD);
    let broke = || {
        error(
            ErrorClass::Unavailable,
            format!("{what}: the daemon hung up"),
        )
    };
    let send = async |request| requests.send(request).await.map_err(|_| broke());
    send(request(WriteAction::Stat, 0, Vec::new())).await?;
    let answer = lease
        .connection
        .content()
        .write(ReceiverStream::new(receiver))
        .await;
    let mut answers = answer.map_err(failed(&what))?.into_inner();
    let mut next = async || -> Result<WriteContentResponse> {
        answers
            .message()
            .await
            .map_err(failed(&what))?
            .ok_or_else(broke)
    };
    // The daemon has all of it already if another namespace has it.
    let mut offset = next().await?.offset;
    while offset < total {
        let Some(piece) = source.next().await? else {
            break;
        };
        let length = i64::try_from(piece.len()).unwrap_or(i64::MAX);
        send(request(WriteAction::Write, offset, piece)).await?;
        next().await?;
        offset += length;
    }
    // The registry's end proves the digest: it must be seen before the daemon is told.
    if matches!(source, Source::Registry(_)) && offset > 0 {
        source.next().await?;
    }
    send(request(WriteAction::Commit, offset, Vec::new())).await?;
    next().await.map(drop)
}

fn is_digest_of(digest: &str, bytes: &[u8]) -> bool {
    if let Some(quick) = digest.strip_prefix("sha256:") {
        return sha256(bytes).digest() == quick;
    }
    let verified = Digest::from_str(digest).map(|digest| {
        let mut verifier = Verifier::new("content", &digest)?;
        verifier.update(bytes);
        verifier.finish()
    });
    matches!(verified, Ok(Ok(())))
}

/// The error for content that was there and is damaged.
pub(crate) fn damaged(what: &str) -> RuntimeError {
    error(
        ErrorClass::Unavailable,
        format!("{what}: what is stored of it is damaged; a pull fetches it again"),
    )
}
