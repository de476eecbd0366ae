//! A namespace's events without a gap, although Podman's stream has gaps.
//!
//! Podman keeps events in a file and ends a live stream, without a word, whenever the file is
//! rotated (and with a broken connection when the service dies), or with a complaint when it meets
//! a line that another process has not yet written to its end. What was missed is still in the
//! file: it is read again from a little before the last event that was given out, in the order of
//! the file, and what is new after that event goes on. Only if that event itself is gone from the
//! file nobody can know what is missing, and the stream says so.
//!
//! Times order nothing here: several processes write the file, each with its own reading of the
//! clock. An event is known by all of its time, action and container. The price: after the clock
//! was set back by more than [`OVERLAP_NANOS`], events written before the clock has caught up are
//! not in Podman's own answer.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use wavetank_port::{
    ContainerId, ErrorClass, EventCursor, EventRecord, EventStream, ExitCode, ExitStatus,
    RuntimeError, RuntimeEvent, WallTime,
};

use crate::error::{Error, Result};
use crate::names::{self, NAMESPACE_LABEL};
use crate::observed::Observed;
use crate::process;
use crate::service::Service;
use crate::transport::{Call, LineReader, Patience, late_refusal};
use crate::wire;

/// How far before the last event the file is read again: longer than any process takes between
/// its reading of the clock and its write.
const OVERLAP_NANOS: u64 = 10_000_000_000;

/// Podman reads `since` as a floating-point number, which rounds to a quarter of a microsecond.
const SINCE_ERROR_NANOS: u64 = 1_000;

/// How many missed events are held at most. Podman's file holds 3,600 by default.
const MISSED_MAX: usize = 200_000;

/// How many events of a stream are known again: more than are in a file of the default length.
const REMEMBERED_MAX: usize = 10_000;

/// How many events may wait for a reader before the service's stream is left unread.
const WAITING_MAX: usize = 1024;

/// How long a service may be away before the stream gives up.
const MEND_WITHIN: Duration = Duration::from_secs(60);

/// How long between two tries to mend.
const MEND_EVERY: Duration = Duration::from_millis(50);

/// How long an event may wait for what it does not say itself.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// One event among all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    nanos: u64,
    action: String,
    podman_id: String,
}

impl Mark {
    fn of(event: &wire::Event) -> Self {
        Mark {
            nanos: event.time_nano,
            action: event.action.clone(),
            podman_id: event.actor.id.clone(),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.nanos, self.action, self.podman_id)
    }
}

impl FromStr for Mark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '/');
        let mut next = || parts.next().filter(|it| !it.is_empty());
        match (next().and_then(|it| it.parse().ok()), next(), next()) {
            (Some(nanos), Some(action), Some(podman_id)) => Ok(Mark {
                nanos,
                action: action.to_owned(),
                podman_id: podman_id.to_owned(),
            }),
            _ => Err(Error::ours(
                ErrorClass::InvalidArgument,
                format!("`{text}` is not a cursor of this runtime"),
            )),
        }
    }
}

/// Where in the file the reader is.
#[derive(Clone, Debug)]
enum Place {
    /// Before everything from this time on.
    From(u64),
    /// Behind this event.
    Behind(Mark),
}

impl Place {
    /// From when on the file must be read to find the place.
    fn since(&self) -> u64 {
        match self {
            Place::From(nanos) => nanos.saturating_sub(SINCE_ERROR_NANOS),
            Place::Behind(mark) => mark.nanos.saturating_sub(OVERLAP_NANOS),
        }
    }

    /// What of `replayed` comes behind the place; `None` if the place is not in it.
    fn rest_of(&self, mut replayed: VecDeque<wire::Event>) -> Option<VecDeque<wire::Event>> {
        match self {
            Place::From(_) => Some(replayed),
            Place::Behind(mark) => {
                let at = replayed.iter().position(|it| Mark::of(it) == *mark)?;
                Some(replayed.split_off(at + 1))
            }
        }
    }
}

/// A live stream and what of it was given out already: read before it began, or out of a file that
/// was rotated while Podman read it.
struct Live {
    lines: LineReader,
    already: BTreeSet<Mark>,
}

impl Live {
    async fn next(&mut self) -> Result<Option<wire::Event>> {
        while let Some(line) = self.lines.next().await? {
            let event = parse(&line)?;
            if self.already.insert(Mark::of(&event)) {
                while self.already.len() > REMEMBERED_MAX {
                    self.already.pop_first();
                }
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn parse(line: &[u8]) -> Result<wire::Event> {
    serde_json::from_slice(line).map_err(|error| {
        late_refusal("events", line).unwrap_or_else(|| Error::Malformed {
            call: "events".to_owned(),
            problem: format!("a line is not an event: {error}"),
        })
    })
}

/// What a connection begins with.
struct Begun {
    /// Events behind the place; `None` if nobody knows which.
    missed: Option<VecDeque<wire::Event>>,
    live: Live,
}

impl Service {
    pub(crate) async fn events(self: &Arc<Self>, since: Option<&EventCursor>) -> Result<Events> {
        let place = match since {
            Some(cursor) => Place::Behind(cursor.0.parse()?),
            None => Place::From(now_nanos()),
        };
        let begun = self.begin(&place).await?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut follower = Follower {
            service: Arc::clone(self),
            place,
            sender,
        };
        let task = tokio::spawn(async move { follower.run(begun).await });
        Ok(Events { receiver, task })
    }

    /// Reads what there is behind `place`, then opens a stream that overlaps with it.
    async fn begin(&self, place: &Place) -> Result<Begun> {
        let mut patience = Patience::default();
        loop {
            match self.begin_once(place).await {
                Err(error) if patience.outlasts(&error).await => {}
                begun => return begun,
            }
        }
    }

    async fn begin_once(&self, place: &Place) -> Result<Begun> {
        let mut replayed = VecDeque::new();
        let mut lines = self.open_events(place, false).await?;
        while let Some(line) = lines.next().await? {
            replayed.push_back(parse(&line)?);
            if replayed.len() > MISSED_MAX {
                replayed.pop_front();
            }
        }
        Ok(Begun {
            live: Live {
                lines: self.open_events(place, true).await?,
                already: replayed.iter().map(Mark::of).collect(),
            },
            missed: place.rest_of(replayed),
        })
    }

    async fn open_events(&self, place: &Place, stream: bool) -> Result<LineReader> {
        let filters = serde_json::json!({
            "type": ["container"],
            "event": ["start", "died", "remove"],
            "label": [format!("{NAMESPACE_LABEL}={}", self.namespace.as_str())],
        });
        let since = place.since();
        let call = Call::get("/events")
            .query("stream", if stream { "true" } else { "false" })
            .query(
                "since",
                &format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000),
            )
            .query("filters", &filters.to_string());
        Ok(self.client.send(call).await?.lines())
    }

    /// What the port says of an event; `None` if it is about nothing of ours.
    async fn translate(&self, event: &wire::Event) -> Option<RuntimeEvent> {
        let name = event.actor.attributes.get("name")?;
        let id = names::id_in(&self.namespace, name)?;
        match event.action.as_str() {
            "start" => Some(RuntimeEvent::Started {
                pid: self.first_pid(&id, &event.actor.id).await.unwrap_or(0),
                id,
                at: WallTime(event.time_nano),
            }),
            "died" => Some(RuntimeEvent::Exited {
                exit: match self
                    .look(&id, &event.actor.id)
                    .await
                    .and_then(|it| it.state.exit)
                {
                    Some(exit) => exit,
                    None => self.judge_told_end(&event.actor.id, exit_in(event)).await,
                },
                id,
            }),
            "remove" => Some(RuntimeEvent::Deleted { id }),
            _ => None,
        }
    }

    /// The process id, which Podman's event lacks.
    async fn first_pid(&self, id: &ContainerId, podman_id: &str) -> Option<u32> {
        let known = self.memory.recall(podman_id).and_then(|it| it.state.pid);
        if known.is_some() {
            return known;
        }
        let seen = self.look(id, podman_id).await?;
        seen.state.pid.or_else(|| {
            let shares_files = self.client.shares_processes();
            shares_files.then(|| process::pid_in_file(&seen.pid_file))?
        })
    }

    /// What is known of this container, now or from before it went.
    async fn look(&self, id: &ContainerId, podman_id: &str) -> Option<Observed> {
        let known = self.memory.recall(podman_id);
        if let Some(known) = &known
            && known.state.exit.is_some()
        {
            return Some(known.clone());
        }
        match timeout(LOOK_WITHIN, self.observe(id)).await {
            Ok(Ok(seen)) if seen.podman_id == podman_id => Some(seen),
            _ => known,
        }
    }
}

/// What an event itself says of an exit: the code, and when Podman noticed.
fn exit_in(event: &wire::Event) -> ExitStatus {
    let code = event.actor.attributes.get("containerExitCode");
    let code = code.and_then(|it| it.parse().ok()).filter(|it| *it >= 0);
    ExitStatus {
        code: code.map_or(ExitCode::Unknown, ExitCode::Known),
        exited_at: Some(WallTime(event.time_nano)),
        oom_killed: false,
    }
}

fn now_nanos() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The task that reads and mends, so that a reader which stops waiting loses nothing.
struct Follower {
    service: Arc<Service>,
    place: Place,
    sender: mpsc::Sender<Result<EventRecord, RuntimeError>>,
}

/// The reader is gone.
struct Unwanted;

impl Follower {
    async fn run(&mut self, mut begun: Begun) {
        loop {
            let ended = match self.follow(begun).await {
                Ok(ended) => ended,
                Err(Unwanted) => return,
            };
            let mended = match ended {
                // What is no connection's fault does not get better by another one.
                Err(error) if error.class() != ErrorClass::Unavailable => Err(error),
                _ => self.mend().await,
            };
            match mended {
                Ok(next) => begun = next,
                Err(error) => {
                    let _ = self.sender.send(Err(error.into())).await;
                    return;
                }
            }
        }
    }

    /// Gives out events until the stream ends.
    async fn follow(&mut self, begun: Begun) -> Result<Result<()>, Unwanted> {
        match begun.missed {
            Some(missed) => {
                for event in missed {
                    self.give(&event).await?;
                }
            }
            None => {
                self.place = Place::From(now_nanos());
                self.say(None, RuntimeEvent::Interrupted).await?;
            }
        }
        let mut live = begun.live;
        loop {
            match live.next().await {
                Ok(Some(event)) => self.give(&event).await?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn mend(&self) -> Result<Begun> {
        let give_up = Instant::now() + MEND_WITHIN;
        loop {
            match timeout(MEND_WITHIN, self.service.begin(&self.place)).await {
                Ok(Ok(begun)) => return Ok(begun),
                Ok(Err(error)) if Instant::now() >= give_up => return Err(error),
                Ok(Err(error)) if error.class() != ErrorClass::Unavailable => return Err(error),
                Ok(Err(_)) => sleep(MEND_EVERY).await,
                Err(_) => {
                    let message = "the Podman service does not answer".to_owned();
                    return Err(Error::ours(ErrorClass::Unavailable, message));
                }
            }
        }
    }

    async fn give(&mut self, event: &wire::Event) -> Result<(), Unwanted> {
        let mark = Mark::of(event);
        if let Some(translated) = self.service.translate(event).await {
            let cursor = EventCursor(mark.to_string());
            self.say(Some(cursor), translated).await?;
        }
        self.place = Place::Behind(mark);
        Ok(())
    }

    async fn say(&self, cursor: Option<EventCursor>, event: RuntimeEvent) -> Result<(), Unwanted> {
        let sent = self.sender.send(Ok(EventRecord { cursor, event })).await;
        sent.map_err(|_| Unwanted)
    }
}

/// A live subscription.
pub(crate) struct Events {
    receiver: mpsc::Receiver<Result<EventRecord, RuntimeError>>,
    task: JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl EventStream for Events {
    async fn next(&mut self) -> Result<EventRecord, RuntimeError> {
        self.receiver.recv().await.unwrap_or_else(|| {
            Err(RuntimeError::new(
                ErrorClass::Unavailable,
                "the event stream is over",
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use wavetank_port::ErrorClass;

    use super::{Mark, Place, parse};
    use crate::wire;

    fn event(nanos: u64, action: &str, podman_id: &str) -> wire::Event {
        let line = serde_json::json!({
            "Action": action, "Actor": {"ID": podman_id}, "timeNano": nanos,
        });
        parse(line.to_string().as_bytes()).expect("an event")
    }

    /// In the order of a file whose writers raced: times are not in order.
    fn replayed() -> VecDeque<wire::Event> {
        VecDeque::from([
            event(5, "start", "a"),
            event(5, "start", "b"),
            event(4, "died", "c"),
            event(6, "died", "a"),
        ])
    }

    #[test]
    fn the_order_of_the_file_decides_what_is_behind_an_event() {
        let place = Place::Behind(Mark::of(&event(5, "start", "a")));
        let rest = place.rest_of(replayed()).expect("the place");
        let rest: Vec<String> = rest.iter().map(|it| Mark::of(it).to_string()).collect();
        assert_eq!(rest, ["5/start/b", "4/died/c", "6/died/a"]);
    }

    #[test]
    fn an_event_that_is_gone_from_the_file_leaves_the_rest_unknown() {
        let place = Place::Behind(Mark::of(&event(5, "died", "a")));
        assert!(place.rest_of(replayed()).is_none());
        assert_eq!(
            Place::From(5).rest_of(replayed()).map(|it| it.len()),
            Some(4)
        );
    }

    proptest! {
        #[test]
        fn any_cursor_is_read_or_refused(text: String) {
            match text.parse::<Mark>() {
                Ok(mark) => {
                    let again = mark.to_string().parse::<Mark>().expect("its own");
                    prop_assert_eq!(again, mark);
                }
                Err(error) => prop_assert_eq!(error.class(), ErrorClass::InvalidArgument),
            }
        }
    }
}
