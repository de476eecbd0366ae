//! What a model of a runtime needs to know: how long each step takes, when events come, in which
//! order, and whether they come at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wavetank_port::{ContainerId, EventStream, RuntimeEvent, WallTime};

use super::CALL;
use super::clock::Clock;
use super::life::{self, Place, harness};
use super::samples::{Samples, Step};
use crate::arm::{Arm, ArmError};

/// An exit event that has not come after this long counts as lost.
const EVENT_MAX: Duration = Duration::from_secs(5);

/// A stream that breaks more often than this is no stream.
const BREAKS_MAX: u32 = 10;

/// What was measured of some lives, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// What the runtime calls itself.
    pub version: String,
    /// How many.
    pub lives: u32,
    /// How long each step took. Of exit events only those that came.
    pub samples: Samples,
    /// How often the stream of events broke.
    pub breaks: u32,
    /// Lives whose exit event never came.
    pub exits_lost: u32,
    /// Lives whose start event had not come when the exit event had, or the wait for it was over.
    pub starts_lost: u32,
    /// Lives whose exit event came before the answer of their start.
    pub exits_before_answer: u32,
    /// Lives whose exit event came before their start event.
    pub exits_before_start: u32,
}

/// Takes `lives` containers through their lives, one after the other, while listening to events. A
/// first one, which unpacks images and fills caches, is not counted.
pub async fn calibrate(
    arm: &dyn Arm,
    lives: u32,
    clock: &dyn Clock,
) -> Result<Calibration, ArmError> {
    let runtime = arm.runtime();
    let pull = life::pulled(arm).await?;
    let version = runtime.version(CALL).await.map_err(harness)?;
    let stream = runtime.events(None, CALL).await.map_err(harness)?;
    let place = Place {
        runtime: runtime.as_ref(),
        pull: &pull,
        clock,
    };
    let ear = Ear::default();
    let living = async {
        let mut calibration = Calibration::default();
        for number in 0..=lives {
            let id = ContainerId(format!("life-{number}"));
            live(&place, id, &ear, &mut calibration).await?;
            if number == 0 {
                calibration = Calibration::default();
            }
        }
        Ok(calibration)
    };
    let lived: Result<Calibration, ArmError> = tokio::select! {
        biased;
        broken = listen(&place, stream, &ear) => Err(broken),
        lived = living => lived,
    };
    Ok(Calibration {
        version,
        lives,
        breaks: ear.breaks.load(Ordering::Relaxed),
        ..lived?
    })
}

async fn live(
    place: &Place<'_>,
    id: ContainerId,
    ear: &Ear,
    calibration: &mut Calibration,
) -> Result<(), ArmError> {
    let samples = &mut calibration.samples;
    let ended = life::begin(place, id, samples).await?;
    life::inspect(place, &ended.id, samples).await?;
    let heard = ear.until_exit(&ended.id, place.clock).await;
    if let (Some(exit), Some(at)) = (&heard.exited, ended.exit.exited_at) {
        let late = Duration::from_nanos(exit.wall.0.saturating_sub(at.0));
        samples.entry(Step::ExitEvent).or_default().push(late);
    }
    life::delete(place, &ended.id, samples).await?;
    let exited = heard.exited.as_ref();
    calibration.exits_lost += u32::from(exited.is_none());
    calibration.starts_lost += u32::from(!heard.started);
    let early = exited.is_some_and(|exit| exit.at < ended.answered);
    calibration.exits_before_answer += u32::from(early);
    let first = exited.is_some_and(|exit| exit.before_start);
    calibration.exits_before_start += u32::from(first && heard.started);
    ear.forget(&ended.id);
    Ok(())
}

/// Hears all events. A stream that breaks is taken up where it broke, as an orchestrator does; one
/// that cannot be ends the measurement.
async fn listen(place: &Place<'_>, mut stream: Box<dyn EventStream>, ear: &Ear) -> ArmError {
    let mut cursor = None;
    loop {
        let broke = match stream.next().await {
            Ok(record) => {
                ear.hear(&record.event, place.clock);
                cursor = record.cursor.or(cursor);
                continue;
            }
            Err(error) => error,
        };
        if ear.breaks.fetch_add(1, Ordering::Relaxed) >= BREAKS_MAX {
            return harness(format!("the event stream keeps breaking: {broke}"));
        }
        stream = match place.runtime.events(cursor.as_ref(), CALL).await {
            Ok(stream) => stream,
            Err(error) => return harness(format!("after {broke}: no event stream: {error}")),
        };
    }
}

/// What has been heard of each container.
#[derive(Default)]
struct Ear {
    breaks: AtomicU32,
    heard: Mutex<BTreeMap<ContainerId, Heard>>,
    news: Notify,
}

#[derive(Clone, Debug, Default)]
struct Heard {
    started: bool,
    exited: Option<Exit>,
}

/// An exit event's arrival.
#[derive(Clone, Debug)]
struct Exit {
    at: Duration,
    wall: WallTime,
    /// No start event had come.
    before_start: bool,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, event: &RuntimeEvent, clock: &dyn Clock) {
        let Some(id) = event.container() else { return };
        let mut all = self.lock();
        let heard = all.entry(id.clone()).or_default();
        match event {
            RuntimeEvent::Started { .. } => heard.started = true,
            RuntimeEvent::Exited { .. } if heard.exited.is_none() => {
                heard.exited = Some(Exit {
                    at: clock.now(),
                    wall: clock.wall(),
                    before_start: !heard.started,
                });
            }
            _ => {}
        }
        drop(all);
        self.news.notify_waiters();
    }

    /// What has been heard once the exit event has come, or should have.
    async fn until_exit(&self, id: &ContainerId, clock: &dyn Clock) -> Heard {
        let heard = || self.lock().get(id).cloned().unwrap_or_default();
        let come = async {
            loop {
                let news = self.news.notified();
                if heard().exited.is_some() {
                    return;
                }
                news.await;
            }
        };
        tokio::select! {
            biased;
            () = come => {}
            () = clock.sleep(EVENT_MAX) => {}
        }
        heard()
    }

    fn forget(&self, id: &ContainerId) {
        self.lock().remove(id);
    }
}
