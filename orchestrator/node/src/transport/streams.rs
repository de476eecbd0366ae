//! Streams: one side of a connection asks for something, the other answers piece by piece.
//!
//! A message is small, has to arrive, and is sent again until it has. What a stream carries is
//! large, comes for as long as it likes, and matters only while somebody reads it. So a stream
//! lives and ends with one connection, waits behind its messages, and flows no faster than it is
//! read: whoever asks grants pieces, and grants more as it takes them. Nothing here makes the
//! loops of the connection wait, and everything that the other side can make us keep is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc};

use crate::platform::Task;
use crate::wire::{self, Frame};

/// The longest piece, in bytes. A message waits behind one at most.
pub const PIECE_BYTES_MAX: usize = 16 << 10;
/// The longest question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 4 << 10;
/// Streams at once on one connection, in each direction.
pub const STREAMS_MAX: usize = 16;

/// Pieces that may be under way to whoever asked. Enough for 128 KiB in each round trip.
const WINDOW: u32 = 8;
/// Pieces that wait for whoever asked to grant more, or for the connection.
const WAITING_MAX: usize = 2;
/// Questions, cancellations and refusals that wait for the connection.
const CONTROL_MAX: usize = 64;

/// Why a stream broke off, or did not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// There is no connection with the node.
    #[error("it is not connected")]
    NotConnected,
    /// The connection carries as many streams as it may.
    #[error("it answers {STREAMS_MAX} requests already")]
    Busy,
    /// The connection ended, or what came was not what had been agreed on.
    #[error("the connection broke off")]
    Broken,
    /// The other side says why.
    #[error("{0}")]
    Refused(String),
}

/// Whoever can answer what peers ask.
#[async_trait]
pub trait Answer: Send + Sync {
    /// Answers `question`. Dropped when whoever asked no longer wants to know.
    async fn answer(&self, question: Bytes, writer: StreamWriter);
}

/// What the other side did that it must not: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more streams than agreed on")]
pub(super) struct Violation;

/// What a writer is told when nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted;

/// The streams of one connection.
pub(super) struct Streams {
    state: Mutex<State>,
    /// Told when there is something to write.
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The connection has ended.
    over: bool,
    /// The number of the last stream that was asked for here.
    last: u64,
    asked: BTreeMap<u64, Asked>,
    answered: BTreeMap<u64, Answered>,
    /// Written before any piece.
    control: VecDeque<Frame>,
    /// The last stream of which a piece was written: the next one's turn has come.
    turn: u64,
}

/// A stream that was asked for here.
struct Asked {
    items: mpsc::Sender<Item>,
    /// Pieces that were taken and may be sent again.
    owed: u32,
}

enum Item {
    Piece(Bytes),
    End(Option<String>),
}

/// A stream that is answered here.
struct Answered {
    /// Pieces that may be written.
    granted: u32,
    waiting: VecDeque<Bytes>,
    /// How it ends, once it does.
    end: Option<Option<String>>,
    room: Arc<Notify>,
    task: Option<Task>,
}

impl Streams {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Streams {
            state: Mutex::default(),
            wake,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the other side.
    pub(super) fn ask(self: &Arc<Self>, question: Bytes) -> Result<StreamReader, StreamError> {
        let mut state = self.state();
        if state.over {
            return Err(StreamError::NotConnected);
        }
        if state.asked.len() >= STREAMS_MAX || state.control.len() >= CONTROL_MAX {
            return Err(StreamError::Busy);
        }
        state.last += 1;
        let stream = state.last;
        // One more than the window: the end fits in any case.
        let (items, received) = mpsc::channel(WINDOW as usize + 1);
        state.asked.insert(stream, Asked { items, owed: 0 });
        state.control.push_back(Frame::Ask {
            stream,
            pieces: WINDOW,
            question,
        });
        drop(state);
        self.wake.notify_one();
        Ok(StreamReader {
            streams: Arc::clone(self),
            stream,
            received,
            ended: false,
        })
    }

    /// The other side asks: a place for the answer.
    pub(super) fn begin(
        self: &Arc<Self>,
        stream: u64,
        pieces: u32,
    ) -> Result<StreamWriter, Violation> {
        let mut state = self.state();
        if state.answered.len() >= STREAMS_MAX || state.answered.contains_key(&stream) {
            return Err(Violation);
        }
        let room = Arc::new(Notify::new());
        let answered = Answered {
            granted: pieces.min(WINDOW),
            waiting: VecDeque::new(),
            end: None,
            room: Arc::clone(&room),
            task: None,
        };
        state.answered.insert(stream, answered);
        Ok(StreamWriter {
            streams: Arc::clone(self),
            stream,
            room,
        })
    }

    /// The task that answers ends with the stream.
    pub(super) fn keep(&self, stream: u64, task: Task) {
        let mut state = self.state();
        // Otherwise it was cancelled meanwhile, and the task goes.
        let unwanted = match state.answered.get_mut(&stream) {
            Some(answered) => answered.task.replace(task),
            None => Some(task),
        };
        drop(state);
        drop(unwanted);
    }

    /// The other side is told that nobody answers here.
    pub(super) fn refuse(&self, stream: u64, why: &str) -> Result<(), Violation> {
        let mut state = self.state();
        if state.control.len() >= CONTROL_MAX {
            return Err(Violation);
        }
        let error = Some(why.to_owned());
        state.control.push_back(Frame::End { stream, error });
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// A piece arrived. One that is too long or was not granted ends the stream.
    pub(super) fn take_piece(&self, stream: u64, body: Bytes) {
        let mut state = self.state();
        let Some(asked) = state.asked.get(&stream) else {
            return;
        };
        // The last place is for the end.
        let is_granted = asked.items.capacity() > 1 && body.len() <= PIECE_BYTES_MAX;
        if !is_granted || asked.items.try_send(Item::Piece(body)).is_err() {
            state.asked.remove(&stream);
            state.cancel(stream);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The other side has said all that it will.
    pub(super) fn take_end(&self, stream: u64, error: Option<String>) {
        if let Some(asked) = self.state().asked.remove(&stream) {
            // Nobody may be there to be told.
            let _ = asked.items.try_send(Item::End(error));
        }
    }

    /// The other side can take more.
    pub(super) fn take_grant(&self, stream: u64, pieces: u32) {
        if let Some(answered) = self.state().answered.get_mut(&stream) {
            answered.granted = answered.granted.saturating_add(pieces).min(WINDOW);
        }
        self.wake.notify_one();
    }

    /// The other side wants no more.
    pub(super) fn take_cancel(&self, stream: u64) {
        let cancelled = self.state().answered.remove(&stream);
        // After the lock: what it drops may want the lock.
        drop(cancelled);
    }

    /// Appends what has to be said until `out` is that long.
    pub(super) fn append(&self, out: &mut BytesMut, bytes_max: usize) {
        let mut state = self.state();
        for frame in std::mem::take(&mut state.control) {
            wire::encode(&frame, out);
        }
        for (stream, asked) in &mut state.asked {
            if asked.owed >= WINDOW / 2 {
                let pieces = std::mem::take(&mut asked.owed);
                let stream = *stream;
                wire::encode(&Frame::Grant { stream, pieces }, out);
            }
        }
        while out.len() < bytes_max && state.append_piece(out) {}
        let ended = state.append_ends(out);
        drop(state);
        drop(ended);
    }

    /// The connection has ended, and its streams with it.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.over = true;
        state.control.clear();
        let asked = std::mem::take(&mut state.asked);
        let answered = std::mem::take(&mut state.answered);
        drop(state);
        drop((asked, answered));
    }
}

impl State {
    /// Appends one piece of the stream whose turn it is; false if none may be written.
    fn append_piece(&mut self, out: &mut BytesMut) -> bool {
        let turn = self.turn;
        let may = |answered: &Answered| answered.granted > 0 && !answered.waiting.is_empty();
        let after = self.answered.range(turn.saturating_add(1)..);
        let next = after
            .chain(self.answered.range(..=turn))
            .find(|(_, answered)| may(answered))
            .map(|(stream, _)| *stream);
        let Some(stream) = next else { return false };
        let Some(answered) = self.answered.get_mut(&stream) else {
            return false;
        };
        if let Some(body) = answered.waiting.pop_front() {
            answered.granted -= 1;
            answered.room.notify_one();
            wire::encode(&Frame::Piece { stream, body }, out);
        }
        self.turn = stream;
        true
    }

    /// Appends the ends of streams of which everything is written; answers what is over.
    fn append_ends(&mut self, out: &mut BytesMut) -> Vec<Answered> {
        let is_over = |answered: &Answered| answered.end.is_some() && answered.waiting.is_empty();
        let over = self.answered.iter().filter(|(_, it)| is_over(it));
        let over: Vec<u64> = over.map(|(stream, _)| *stream).collect();
        let mut ended = Vec::new();
        for stream in over {
            if let Some(mut answered) = self.answered.remove(&stream) {
                let error = answered.end.take().flatten();
                wire::encode(&Frame::End { stream, error }, out);
                ended.push(answered);
            }
        }
        ended
    }

    /// Tells the other side to end a stream, which it may never have heard of.
    fn cancel(&mut self, stream: u64) {
        let is_question =
            |frame: &Frame| matches!(frame, Frame::Ask { stream: of, .. } if *of == stream);
        match self.control.iter().position(is_question) {
            Some(at) => drop(self.control.remove(at)),
            None => self.control.push_back(Frame::Cancel { stream }),
        }
    }
}

/// The answer, as whoever asked reads it. Dropped, it tells the other side to stop.
pub struct StreamReader {
    streams: Arc<Streams>,
    stream: u64,
    received: mpsc::Receiver<Item>,
    ended: bool,
}

impl StreamReader {
    /// The next piece; nothing at the end. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.ended {
            return Ok(None);
        }
        match self.received.recv().await {
            Some(Item::Piece(body)) => {
                self.grant();
                Ok(Some(body))
            }
            Some(Item::End(None)) => {
                self.ended = true;
                Ok(None)
            }
            Some(Item::End(Some(why))) => {
                self.ended = true;
                Err(StreamError::Refused(why))
            }
            None => {
                self.ended = true;
                Err(StreamError::Broken)
            }
        }
    }

    fn grant(&self) {
        let mut state = self.streams.state();
        if let Some(asked) = state.asked.get_mut(&self.stream) {
            asked.owed += 1;
            if asked.owed >= WINDOW / 2 {
                drop(state);
                self.streams.wake.notify_one();
            }
        }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        if state.asked.remove(&self.stream).is_some() {
            state.cancel(self.stream);
            drop(state);
            self.streams.wake.notify_one();
        }
    }
}

/// Where an answer is written. Dropped without [`StreamWriter::finish`], it says that it broke off.
pub struct StreamWriter {
    streams: Arc<Streams>,
    stream: u64,
    room: Arc<Notify>,
}

impl StreamWriter {
    /// Writes a piece, at most [`PIECE_BYTES_MAX`] long, once there is room for it.
    pub async fn write(&self, piece: Bytes) -> Result<(), Unwanted> {
        loop {
            {
                let mut state = self.streams.state();
                let answered = state.answered.get_mut(&self.stream).ok_or(Unwanted)?;
                if answered.waiting.len() < WAITING_MAX {
                    answered.waiting.push_back(piece);
                    break;
                }
            }
            // Keeps a notification that comes before it is waited for.
            self.room.notified().await;
        }
        self.streams.wake.notify_one();
        Ok(())
    }

    /// Everything is written; `error` says why there is no more if there should be.
    pub fn finish(self, error: Option<String>) {
        self.end(error);
    }

    fn end(&self, error: Option<String>) {
        let mut state = self.streams.state();
        if let Some(answered) = state.answered.get_mut(&self.stream)
            && answered.end.is_none()
        {
            answered.end = Some(error);
            drop(state);
            self.streams.wake.notify_one();
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.end(Some("the answer broke off".to_owned()));
    }
}
