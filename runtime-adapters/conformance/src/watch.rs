//! Collects a runtime's events in the background, so that a case can look back at their order.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wavetank_port::{
    ContainerId, EventCursor, EventRecord, EventStream, RuntimeError, RuntimeEvent,
};

use crate::bed::SETTLE;
use crate::check::{Check, broken};

/// A subscription that is read all the time. Dropping it ends it.
pub struct Watch {
    seen: Arc<Seen>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    records: Vec<EventRecord>,
    /// The cursor of the last event of anybody's.
    cursor: Option<EventCursor>,
    ended: Option<RuntimeError>,
}

impl Watch {
    /// Reads `stream` and keeps what is about ids that begin with `prefix`, or about nobody.
    pub fn new(mut stream: Box<dyn EventStream>, prefix: String) -> Self {
        let seen = Arc::new(Seen::default());
        let kept = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            loop {
                let next = stream.next().await;
                let over = next.is_err();
                kept.take(next, &prefix);
                if over {
                    return;
                }
            }
        });
        Watch { seen, reader }
    }

    /// Everything seen so far.
    pub fn events(&self) -> Vec<RuntimeEvent> {
        let state = self.seen.lock();
        let events = state.records.iter().map(|record| record.event.clone());
        events.collect()
    }

    /// What has been seen of one container.
    pub fn of(&self, id: &ContainerId) -> Vec<RuntimeEvent> {
        let mut events = self.events();
        events.retain(|event| event.container() == Some(id));
        events
    }

    /// The names of what has been seen of one container.
    pub fn names(&self, id: &ContainerId) -> Vec<&'static str> {
        self.of(id).iter().map(RuntimeEvent::name).collect()
    }

    /// Where the stream is now.
    pub fn cursor(&self) -> Option<EventCursor> {
        self.seen.lock().cursor.clone()
    }

    /// Waits until what has been seen satisfies `enough`.
    pub async fn until(&self, what: &str, enough: impl Fn(&[RuntimeEvent]) -> bool) -> Check {
        let deadline = tokio::time::Instant::now() + SETTLE;
        loop {
            let news = self.seen.news.notified();
            let events = self.events();
            if enough(&events) {
                return Ok(());
            }
            if let Some(error) = &self.seen.lock().ended {
                return broken(format!("the event stream ended before {what}: {error}"));
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                let last = events.iter().rev().take(8).rev();
                return broken(format!(
                    "no event within {SETTLE:?}: {what}; the last were {:?}",
                    last.collect::<Vec<_>>()
                ));
            }
        }
    }

    /// Waits for an event of this name about `id`.
    pub async fn until_event(&self, id: &ContainerId, name: &str) -> Check {
        self.until(&format!("{name} of {id}"), |events| {
            let is_it =
                |event: &RuntimeEvent| event.container() == Some(id) && event.name() == name;
            events.iter().any(is_it)
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, next: Result<EventRecord, RuntimeError>, prefix: &str) {
        let mut state = self.lock();
        match next {
            Ok(record) => {
                if record.cursor.is_some() {
                    state.cursor.clone_from(&record.cursor);
                }
                let container = record.event.container();
                if container.is_none_or(|id| id.0.starts_with(prefix)) {
                    state.records.push(record);
                }
            }
            Err(error) => state.ended = Some(error),
        }
        drop(state);
        self.news.notify_waiters();
    }
}
