//! A subscription to the journal of events.

use async_trait::async_trait;
use wavetank_port::{
    ErrorClass, EventCursor, EventRecord, EventStream, RuntimeError, RuntimeEvent,
};

use crate::changes::Changes;
use crate::deadline::{Result, blocking, unknown};
use crate::journal::{Journal, Place};

/// Reads the journal from a place on, for ever.
pub struct Subscription {
    journal: Journal,
    changes: Changes,
    place: Place,
    /// Events before `place` may be lost, and that has not been said yet.
    interrupted: bool,
}

impl Subscription {
    /// From `since` on, or from now.
    pub async fn open(journal: Journal, since: Option<EventCursor>) -> Result<Self> {
        let changes = Changes::of(journal.folder())?;
        blocking(move || {
            let wanted = since.map(|cursor| parse(&cursor)).transpose()?;
            let end = journal.end().map_err(|error| unknown(&error))?;
            let held = match wanted {
                Some(place) => journal.holds(place).map_err(|error| unknown(&error))?,
                None => false,
            };
            Ok(Subscription {
                place: wanted.filter(|_| held).unwrap_or(end),
                interrupted: wanted.is_some() && !held,
                journal,
                changes,
            })
        })
        .await
    }

    /// What is there now; `None` if there is nothing new.
    async fn look(&mut self) -> Result<Option<EventRecord>> {
        if self.interrupted {
            self.interrupted = false;
            return Ok(Some(record(RuntimeEvent::Interrupted, self.place)));
        }
        let (journal, place) = (self.journal.clone(), self.place);
        let read = blocking(move || journal.read(place).map_err(|error| unknown(&error))).await?;
        let Some((entry, next)) = read else {
            return Ok(None);
        };
        if next.file > self.place.file + 1 {
            // We read so slowly that a whole file was removed before we came to it.
            self.place = Place {
                file: next.file,
                offset: 0,
            };
            return Ok(Some(record(RuntimeEvent::Interrupted, self.place)));
        }
        self.place = next;
        Ok(Some(record(entry.event, next)))
    }
}

fn record(event: RuntimeEvent, place: Place) -> EventRecord {
    EventRecord {
        cursor: Some(EventCursor(place.to_text())),
        event,
    }
}

fn parse(cursor: &EventCursor) -> Result<Place> {
    Place::from_text(&cursor.0).ok_or_else(|| {
        let message = format!("`{}` is no cursor of ours", cursor.0);
        RuntimeError::new(ErrorClass::InvalidArgument, message)
    })
}

#[async_trait]
impl EventStream for Subscription {
    async fn next(&mut self) -> Result<EventRecord> {
        loop {
            if let Some(record) = self.look().await? {
                return Ok(record);
            }
            self.changes.next().await?;
        }
    }
}
