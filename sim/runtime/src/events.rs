//! Subscriptions: each is a place in the list of events that the runtime keeps.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use wavetank_port::{
    ErrorClass, EventCursor, EventRecord, EventStream, RuntimeError, RuntimeEvent,
};

use crate::runtime::Shared;

/// A subscription. The cursor is the number of events before the next one.
pub struct SimEvents {
    shared: Weak<Shared>,
    next: u64,
}

impl SimEvents {
    /// From `since` on, or from now on.
    pub fn new(shared: &Arc<Shared>, since: Option<&EventCursor>) -> Result<Self, RuntimeError> {
        let state = shared.lock();
        let now = state.events_dropped + state.events.len() as u64;
        let next = match since {
            None => now,
            Some(cursor) => cursor.0.parse().map_err(|_| {
                let message = format!("`{}` is no cursor of this runtime", cursor.0);
                RuntimeError::new(ErrorClass::InvalidArgument, message)
            })?,
        };
        Ok(SimEvents {
            shared: Arc::downgrade(shared),
            next: next.min(now),
        })
    }

    /// The next event, if there is one yet.
    fn take(&mut self, shared: &Shared) -> Option<EventRecord> {
        let state = shared.lock();
        let event = match self.next.checked_sub(state.events_dropped) {
            Some(place) => {
                let event = usize::try_from(place)
                    .ok()
                    .and_then(|at| state.events.get(at));
                self.next += u64::from(event.is_some());
                event?.clone()
            }
            // What came next is no longer kept.
            None => {
                self.next = state.events_dropped;
                RuntimeEvent::Interrupted
            }
        };
        Some(EventRecord {
            cursor: Some(EventCursor(self.next.to_string())),
            event,
        })
    }
}

#[async_trait]
impl EventStream for SimEvents {
    async fn next(&mut self) -> Result<EventRecord, RuntimeError> {
        loop {
            let Some(shared) = self.shared.upgrade() else {
                return Err(RuntimeError::new(
                    ErrorClass::Unavailable,
                    "the runtime is gone",
                ));
            };
            let news = shared.news.notified();
            if let Some(record) = self.take(&shared) {
                return Ok(record);
            }
            news.await;
        }
    }
}
