//! One connection on which both sides know each other: messages and acknowledgements in both
//! directions until it ends.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio_rustls::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use wavetank_model::{Incarnation, NodeRole};

use super::link::{Attachment, BATCH_BYTES, Direction, Link};
use super::meter::{Meter, Metered};
use super::streams::QUESTION_BYTES_MAX;
use super::{AddressBook, Arrival, Context, Follower};
use crate::platform::Platform;
use crate::wire::{self, Frame, Hello, Received};

/// Memory of a write that is kept for the next one.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

type Stream<P> = TlsStream<Metered<<P as Platform>::Stream>>;

/// A stream that carries frames, with what is needed to see whether it moves.
pub(crate) struct Framed<P: Platform> {
    pub(super) reader: FramedRead<ReadHalf<Stream<P>>, LengthDelimitedCodec>,
    pub(super) writer: WriteHalf<Stream<P>>,
    read: Arc<Meter>,
    written: Arc<Meter>,
}

impl<P: Platform> Framed<P> {
    pub(super) fn new(stream: Stream<P>, frame_bytes_max: usize) -> Self {
        let (read, written) = {
            let metered = stream.get_ref().0;
            (metered.read.clone(), metered.written.clone())
        };
        let (reader, writer) = tokio::io::split(stream);
        Framed {
            reader: FramedRead::new(reader, wire::codec(frame_bytes_max)),
            writer,
            read,
            written,
        }
    }

    /// The next frame of a kind that is known here.
    pub(super) async fn receive(&mut self) -> io::Result<Frame> {
        loop {
            let bytes = self
                .reader
                .next()
                .await
                .ok_or(io::ErrorKind::UnexpectedEof)??;
            if let Some(frame) = wire::decode(&bytes).map_err(invalid)? {
                return Ok(frame);
            }
        }
    }

    pub(super) async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(frame, &mut bytes);
        self.writer.write_all(&bytes).await?;
        self.writer.flush().await
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Says why somebody has to go. Whether that is heard does not matter.
pub(super) async fn refuse<P: Platform>(
    context: &Context<P>,
    framed: &mut Framed<P>,
    why: impl Into<String>,
) -> io::Error {
    let why = why.into();
    let frame = Frame::Refused { why: why.clone() };
    let timeout = context.shared.limits.handshake_timeout;
    let _ = context.platform.within(timeout, framed.send(&frame)).await;
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side ended it, or what it sent could not be understood.
    Broken(io::Error),
    /// Nothing was heard, or nothing was taken: the peer may well be alive.
    Stuck,
    /// A newer connection has its place.
    Superseded,
    /// Nobody here wants what arrives any more.
    Stopped,
}

/// Takes note of the boot that a peer is in; from then on only its connections count. `false` for
/// a boot before the newest.
async fn enter<P: Platform>(
    context: &Context<P>,
    link: &Link,
    direction: Direction,
    hello: &Hello,
) -> bool {
    let shared = &context.shared;
    let incarnation = hello.incarnation;
    let newest = || link.heard().map(|heard| heard.incarnation);
    if newest().is_some_and(|newest| newest > incarnation) {
        return false;
    }
    // Before anything is waited for: what is superseded may be what one would wait for.
    link.supersede(incarnation, direction);
    let _delivering = link.delivering.lock().await;
    match newest() {
        None => link.hear(Received {
            incarnation,
            through: 0,
        }),
        Some(newest) if newest > incarnation => return false,
        Some(newest) if newest == incarnation => {}
        Some(_) => {
            let outlived = link.start_anew(incarnation);
            shared.counters.messages_outlived.add(outlived);
            let lost = Arrival::Lost { peer: link.peer };
            // Whoever would be told may be gone, and so is everything else soon.
            let _ = shared.arrivals.send(lost).await;
        }
    }
    if let Some(received) = hello.received
        && received.incarnation == shared.incarnation
    {
        link.acknowledge(received.through);
    }
    true
}

/// Runs a connection to its end and tells if the peer is lost with it; fails if the peer may not
/// begin. `first` is what still has to be written before anything else.
pub(super) async fn run<P: Platform>(
    context: &Context<P>,
    link: &Arc<Link>,
    direction: Direction,
    hello: Hello,
    mut framed: Framed<P>,
    first: BytesMut,
) -> io::Result<End> {
    if !enter(context, link, direction, &hello).await {
        return Err(refuse(context, &mut framed, "a newer boot of this node is known").await);
    }
    let shared = &context.shared;
    shared.counters.connections_established.add(1);
    if let Some(at) = hello.advertise {
        shared.learn(|book| book.learn(link.peer, at, hello.incarnation));
    }
    let limits = &shared.limits;
    let frame_bytes_max = limits.frame_bytes_max_of(link.peer.role);
    framed
        .reader
        .decoder_mut()
        .set_max_frame_length(frame_bytes_max);
    let attachment = link.attach(context.next_id(), direction);
    let Framed {
        reader,
        writer,
        read,
        written,
    } = framed;
    let end = tokio::select! {
        biased;
        () = attachment.signals.close.notified() => End::Superseded,
        end = read_all(context, &attachment, hello.incarnation, reader, &read) => end,
        end = write_all(context, &attachment, writer, &written, first) => end,
    };
    drop(attachment);
    settle(context, link, &end).await;
    Ok(end)
}

/// Tells that a peer is lost if its last connection broke.
async fn settle<P: Platform>(context: &Context<P>, link: &Link, end: &End) {
    let shared = &context.shared;
    tracing::debug!(peer = %link.peer, ?end, "a connection ended");
    match end {
        End::Broken(_) => context.lost(link).await,
        End::Stuck => shared.counters.connections_abandoned.add(1),
        End::Superseded | End::Stopped => {}
    }
}

async fn read_all<P: Platform>(
    context: &Context<P>,
    attachment: &Attachment,
    incarnation: Incarnation,
    mut reader: FramedRead<ReadHalf<Stream<P>>, LengthDelimitedCodec>,
    meter: &Meter,
) -> End {
    let silence = context.shared.limits.silence_timeout;
    loop {
        let bytes = tokio::select! {
            biased;
            bytes = reader.next() => bytes,
            () = meter.stands_still(&context.platform, silence) => return End::Stuck,
        };
        let handled = match bytes {
            None => Err(End::Broken(io::ErrorKind::UnexpectedEof.into())),
            Some(Err(error)) => Err(End::Broken(error)),
            Some(Ok(bytes)) => match wire::decode(&bytes) {
                Ok(Some(frame)) => handle(context, attachment, incarnation, frame).await,
                Ok(None) => Ok(()),
                Err(error) => Err(End::Broken(invalid(error))),
            },
        };
        if let Err(end) = handled {
            return end;
        }
    }
}

async fn handle<P: Platform>(
    context: &Context<P>,
    attachment: &Attachment,
    incarnation: Incarnation,
    frame: Frame,
) -> Result<(), End> {
    let link = &attachment.link;
    match frame {
        Frame::Message { sequence, body } => {
            deliver(context, link, incarnation, sequence, &body).await?;
            attachment.signals.wake.notify_one();
        }
        Frame::Acknowledge { through } => link.acknowledge(through),
        // Managers know where managers are; agents and clients have it from them.
        Frame::Addresses(book) if link.peer.role == NodeRole::Manager => {
            context.shared.learn(|known| known.merge(book));
        }
        Frame::Refused { why } => return Err(End::Broken(invalid(why))),
        Frame::Ask {
            stream,
            pieces,
            question,
        } => answer(context, attachment, stream, pieces, question)?,
        Frame::Piece { stream, body } => attachment.streams.take_piece(stream, body),
        Frame::Grant { stream, pieces } => attachment.streams.take_grant(stream, pieces),
        Frame::Cancel { stream } => attachment.streams.take_cancel(stream),
        Frame::End { stream, error } => attachment.streams.take_end(stream, error),
        Frame::Addresses(_)
        | Frame::Hello(_)
        | Frame::Join(_)
        | Frame::Granted(_)
        | Frame::Renew { .. }
        | Frame::Renewed { .. } => {}
    }
    Ok(())
}

/// Has a manager's question answered, beside everything else.
fn answer<P: Platform>(
    context: &Context<P>,
    attachment: &Attachment,
    stream: u64,
    pieces: u32,
    question: Bytes,
) -> Result<(), End> {
    let streams = &attachment.streams;
    let broken = |violation| End::Broken(invalid(violation));
    let answers = context.shared.answers.get();
    let may_ask = attachment.link.peer.role == NodeRole::Manager;
    let Some(answers) = answers.filter(|_| may_ask && question.len() <= QUESTION_BYTES_MAX) else {
        return streams
            .refuse(stream, "this node answers no such request")
            .map_err(broken);
    };
    context.shared.counters.streams_answered.add(1);
    let writer = streams.begin(stream, pieces).map_err(broken)?;
    let answers = answers.clone();
    let task = context
        .platform
        .spawn(async move { answers.answer(question, writer).await });
    streams.keep(stream, task);
    Ok(())
}

/// Passes a message on, once. It counts as arrived when it is among the arrivals, and not before.
async fn deliver<P: Platform>(
    context: &Context<P>,
    link: &Link,
    incarnation: Incarnation,
    sequence: u64,
    body: &Bytes,
) -> Result<(), End> {
    let shared = &context.shared;
    let _delivering = link.delivering.lock().await;
    match link.heard() {
        Some(heard) if heard.incarnation != incarnation => return Err(End::Superseded),
        Some(heard) if heard.through >= sequence => {
            shared.counters.messages_repeated.add(1);
            return Ok(());
        }
        _ => {}
    }
    let from = link.peer;
    let arrival = match wire::decode_message(body) {
        Ok(message) => Arrival::Message { from, message },
        Err(wire::Undecodable { kind, error }) => {
            shared.counters.messages_undecodable.add(1);
            Arrival::Undecodable { from, kind, error }
        }
    };
    let sent = shared.arrivals.send(arrival).await;
    sent.map_err(|_| End::Stopped)?;
    shared.counters.messages_received.add(1);
    link.hear(Received {
        incarnation,
        through: sequence,
    });
    Ok(())
}

async fn write_all<P: Platform>(
    context: &Context<P>,
    attachment: &Attachment,
    mut writer: WriteHalf<Stream<P>>,
    meter: &Meter,
    mut buffer: BytesMut,
) -> End {
    let stall = context.shared.limits.stall_timeout;
    let mut pending = Pending::new(context);
    loop {
        pending.collect(context, attachment, &mut buffer).await;
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        let written = tokio::select! {
            biased;
            written = written => written,
            () = meter.stands_still(&context.platform, stall) => return End::Stuck,
        };
        if let Err(error) = written {
            return End::Broken(error);
        }
        buffer.clear();
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            buffer = BytesMut::new();
        }
    }
}

/// What one connection has yet to say.
struct Pending {
    book: Follower<AddressBook>,
    /// The last acknowledgement that it wrote; none at the beginning.
    acknowledged: Option<u64>,
}

impl Pending {
    fn new<P: Platform>(context: &Context<P>) -> Self {
        let mut book = context.shared.book.subscribe();
        book.forget();
        Pending {
            book,
            acknowledged: None,
        }
    }

    /// Waits until there is something to write and appends it. Says something in any case before
    /// the other side could think that nobody is there.
    async fn collect<P: Platform>(
        &mut self,
        context: &Context<P>,
        attachment: &Attachment,
        buffer: &mut BytesMut,
    ) {
        let shared = &context.shared;
        loop {
            self.append(context, attachment, buffer);
            if !buffer.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = attachment.signals.wake.notified() => {}
                () = self.book.changed() => {}
                () = context.platform.sleep(shared.limits.keepalive) => self.acknowledged = None,
            }
        }
    }

    fn append<P: Platform>(
        &mut self,
        context: &Context<P>,
        attachment: &Attachment,
        buffer: &mut BytesMut,
    ) {
        let shared = &context.shared;
        let heard = attachment.link.heard();
        let through = heard.map_or(0, |heard| heard.through);
        if self.acknowledged != Some(through) {
            self.acknowledged = Some(through);
            wire::encode(&Frame::Acknowledge { through }, buffer);
        }
        if self.book.has_news() {
            // Looked at by everybody, or it would be news for ever; told by managers.
            let book = self.book.look();
            if shared.node.role == NodeRole::Manager {
                wire::encode(&Frame::Addresses(book), buffer);
            }
        }
        let taken = attachment.take(buffer);
        shared.counters.messages_written.add(taken);
        // Last: a message waits for no stream.
        attachment.streams.append(buffer, BATCH_BYTES);
    }
}
