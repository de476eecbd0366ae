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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use wavetank_model::NodeId;
    use wavetank_port::{ContainerId, WallTime};
    use wavetank_scenario::plan::Range;
    use wavetank_world::Registry;

    use super::*;
    use crate::runtime::{SimConfig, SimRuntime};

    fn machine() -> SimRuntime {
        let at_once = Range {
            min: Duration::ZERO,
            max: Duration::ZERO,
        };
        let config = SimConfig {
            node: NodeId::agent(1),
            seed: 1,
            latency: at_once,
            event_delay: at_once,
            steps: Default::default(),
            interpreter: None,
        };
        let registry = Arc::new(Mutex::new(Registry::new(Default::default())));
        SimRuntime::new(&config, registry)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cursor_from_before_what_is_kept_is_told_of_the_gap() -> Result<(), RuntimeError> {
        let machine = machine();
        let event = RuntimeEvent::Started {
            id: ContainerId("a".to_owned()),
            pid: 1,
            at: WallTime(1),
        };
        {
            let mut state = machine.shared.lock();
            state.events_dropped = 5;
            state.events.push_back(event.clone());
        }
        let since = |place: &str| Some(EventCursor(place.to_owned()));
        let mut late = SimEvents::new(&machine.shared, since("2").as_ref())?;
        assert_eq!(late.next().await?.event, RuntimeEvent::Interrupted);
        let next = late.next().await?;
        assert_eq!(next.event, event);
        assert_eq!(next.cursor, since("6"));
        let mut in_time = SimEvents::new(&machine.shared, since("5").as_ref())?;
        assert_eq!(in_time.next().await?.event, event);
        let class = SimEvents::new(&machine.shared, since("x").as_ref())
            .err()
            .map(|error| error.class);
        assert_eq!(class, Some(ErrorClass::InvalidArgument));
        Ok(())
    }
}
