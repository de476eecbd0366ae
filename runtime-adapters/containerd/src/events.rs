//! What the daemon says by itself, as the port's events.
//!
//! A subscription says nothing until something happens, so it is proven live by an event of our
//! own: a marker that is published until it comes back. A broken stream is subscribed again; what
//! happened meanwhile is lost, because the daemon keeps nothing, and that is said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Streaming;
use wavetank_port::{
    ContainerId, ErrorClass, EventRecord, EventStream, ExitCode, ExitStatus, RuntimeEvent,
    WallTime, runtime::Result,
};

use crate::api::containerd::services::events::v1::{
    ContainerDelete, PublishRequest, SubscribeRequest, TaskExit, TaskStart,
};
use crate::api::containerd::types::Envelope;
use crate::daemon::Daemon;
use crate::error::{error, failed};
use crate::exec::unique_name;
use crate::observe::Phase;
use crate::record::wall_time;

/// The topic of our markers. Topics begin with a slash.
const MARKER: &str = "/wavetank/marker";
const STARTED: &str = "/tasks/start";
const EXITED: &str = "/tasks/exit";
const DELETED: &str = "/containers/delete";
/// Between two markers, until one comes back.
const MARK_AGAIN: Duration = Duration::from_millis(10);
/// Events that wait for a slow reader here; the rest waits in the daemon.
const EVENTS_AHEAD: usize = 256;
/// How long a broken stream is mended before it is over.
const MEND_MAX: Duration = Duration::from_secs(60);
const MEND_AGAIN: Duration = Duration::from_millis(50);
/// How long an end that was announced may take to be seen. Longer than the daemon takes to clean
/// up after a shim (its timeout `io.containerd.timeout.shim.cleanup` is 5 s).
const SEE_END_MAX: Duration = Duration::from_secs(6);
const SEE_AGAIN: Duration = Duration::from_millis(20);

/// A subscription: a task reads the daemon's stream, and this hands out what it found.
struct Subscription {
    events: mpsc::Receiver<Result<RuntimeEvent>>,
    /// Ends with us.
    _reader: JoinSet<()>,
}

#[async_trait]
impl EventStream for Subscription {
    async fn next(&mut self) -> Result<EventRecord> {
        let event = self.events.recv().await;
        let over = || error(ErrorClass::Unavailable, "the event stream is over");
        Ok(EventRecord {
            cursor: None,
            event: event.ok_or_else(over)??,
        })
    }
}

impl Daemon {
    /// With `resumed`, the first event says that there is a gap.
    pub(crate) async fn events(self: Arc<Self>, resumed: bool) -> Result<Box<dyn EventStream>> {
        let stream = self.subscribe().await?;
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        if resumed {
            // The channel is empty and has room for more than one.
            let _ = sender.try_send(Ok(RuntimeEvent::Interrupted));
        }
        let mut reader = JoinSet::new();
        reader.spawn(Reader::new(self, sender).read(stream));
        Ok(Box::new(Subscription {
            events,
            _reader: reader,
        }))
    }

    /// A stream that is live: everything that happens from now on is in it.
    async fn subscribe(&self) -> Result<Streaming<Envelope>> {
        let mut client = self.connection.events();
        let filter = |topic| {
            format!(
                "namespace==\"{}\",topic==\"{topic}\"",
                self.config.namespace
            )
        };
        let request = SubscribeRequest {
            filters: [MARKER, STARTED, EXITED, DELETED].map(filter).to_vec(),
        };
        let marker = unique_name().into_bytes();
        let live = async {
            let answer = client.subscribe(request).await;
            let mut stream = answer.map_err(failed("events"))?.into_inner();
            // What comes before the marker happened before we answered.
            while let Some(envelope) = stream.message().await.map_err(failed("events"))? {
                if envelope.event.is_some_and(|it| it.value == marker) {
                    return Ok(stream);
                }
            }
            Err(error(ErrorClass::Unavailable, "events: the daemon hung up"))
        };
        tokio::select! {
            live = live => live,
            failed = self.publish_until_failed(&marker) => Err(failed),
        }
    }

    /// Publishes the marker again and again; answers only if it cannot.
    async fn publish_until_failed(&self, marker: &[u8]) -> wavetank_port::RuntimeError {
        loop {
            let request = PublishRequest {
                topic: MARKER.to_owned(),
                event: Some(Any {
                    type_url: "io.wavetank.marker".to_owned(),
                    value: marker.to_vec(),
                }),
            };
            if let Err(status) = self.connection.events().publish(request).await {
                return failed("events")(status);
            }
            tokio::time::sleep(MARK_AGAIN).await;
        }
    }
}

/// Turns the daemon's stream into the port's.
struct Reader {
    daemon: Arc<Daemon>,
    events: mpsc::Sender<Result<RuntimeEvent>>,
    /// Containers whose end was told: when a shim is killed later, the daemon makes up another.
    ended: BTreeSet<ContainerId>,
}

impl Reader {
    fn new(daemon: Arc<Daemon>, events: mpsc::Sender<Result<RuntimeEvent>>) -> Self {
        Reader {
            daemon,
            events,
            ended: BTreeSet::new(),
        }
    }

    /// Ends when nobody listens or the stream cannot be mended.
    async fn read(mut self, mut stream: Streaming<Envelope>) {
        loop {
            while let Ok(Some(envelope)) = stream.message().await {
                if let Some(event) = self.translate(envelope).await
                    && self.events.send(Ok(event)).await.is_err()
                {
                    return;
                }
            }
            let next = match self.mend().await {
                Ok(mended) => {
                    stream = mended;
                    Ok(RuntimeEvent::Interrupted)
                }
                Err(error) => Err(error),
            };
            let over = next.is_err();
            if self.events.send(next).await.is_err() || over {
                return;
            }
        }
    }

    async fn mend(&self) -> Result<Streaming<Envelope>> {
        let again = async {
            loop {
                match self.daemon.subscribe().await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(MEND_AGAIN).await,
                }
            }
        };
        let mended = tokio::time::timeout(MEND_MAX, again).await;
        mended.map_err(|_| {
            error(
                ErrorClass::Unavailable,
                "events: the daemon does not come back",
            )
        })
    }

    /// The port's event, if it has one for this. What cannot be decoded is not ours.
    async fn translate(&mut self, envelope: Envelope) -> Option<RuntimeEvent> {
        let value = envelope.event?.value;
        match envelope.topic.as_str() {
            STARTED => {
                let event = TaskStart::decode(value.as_slice()).ok()?;
                Some(RuntimeEvent::Started {
                    id: ContainerId(event.container_id),
                    pid: event.pid,
                    at: wall_time(envelope.timestamp.as_ref()).unwrap_or(WallTime(0)),
                })
            }
            EXITED => self.exited(TaskExit::decode(value.as_slice()).ok()?).await,
            DELETED => {
                let id = ContainerId(ContainerDelete::decode(value.as_slice()).ok()?.id);
                self.ended.remove(&id);
                Some(RuntimeEvent::Deleted { id })
            }
            _ => None,
        }
    }

    /// The event names a code, but a made-up one looks like a real one: the record decides.
    async fn exited(&mut self, event: TaskExit) -> Option<RuntimeEvent> {
        // The same event tells of execs.
        if event.id != event.container_id {
            return None;
        }
        let id = ContainerId(event.container_id.clone());
        if self.ended.contains(&id) {
            return None;
        }
        let exit = tokio::time::timeout(SEE_END_MAX, self.see_end(&id, &event)).await;
        let exit = exit.unwrap_or(Some(ExitStatus {
            code: ExitCode::Unknown,
            exited_at: wall_time(event.exited_at.as_ref()),
            oom_killed: false,
        }))?;
        self.ended.insert(id.clone());
        Some(RuntimeEvent::Exited { id, exit })
    }

    /// `None` if the container never started: the daemon tells of a failed start in the same way.
    async fn see_end(&self, id: &ContainerId, event: &TaskExit) -> Option<ExitStatus> {
        loop {
            match self.daemon.observe(id).await {
                Ok(observed) => match observed.phase {
                    Phase::Exited(exit) => return Some(exit),
                    Phase::Created => return None,
                    Phase::Running { .. } | Phase::Paused { .. } => {}
                },
                // Deleted already, by somebody who had seen its end.
                Err(error) if error.class == ErrorClass::NotFound => {
                    return Some(ExitStatus {
                        code: ExitCode::Known(i32::try_from(event.exit_status).unwrap_or(i32::MAX)),
                        exited_at: wall_time(event.exited_at.as_ref()),
                        oom_killed: false,
                    });
                }
                Err(_) => {}
            }
            tokio::time::sleep(SEE_AGAIN).await;
        }
    }
}
