//! A decorator that passes everything on to a runtime that is right, and spoils one thing.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    ContainerStatus, Credentials, ErrorClass, EventCursor, EventRecord, EventStream, ExecRequest,
    ExecResult, ExitCode, ExitStatus, Image, ImageReference, Limits, ListFilter, LogChunk,
    LogOptions, LogStream, OutputStream, PullPolicy, PullRequest, RuntimeError, RuntimeEvent,
    Signal, WallTime,
};

type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Longer than any case may take.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    AbsentImageIsPulled,
    AbsentImageIsUnavailable,
    AcceptsAnySignal,
    AcceptsBadSpecs,
    AnyPasswordWillDo,
    BadProgramIsUnknown,
    BrokenRegistryIsUnknown,
    CancelledPullKeepsALock,
    CancelledStopKills,
    CreateReplaces,
    CreateStarts,
    CreateWithoutImageIsInvalid,
    CursorsAreIgnored,
    DamageHangs,
    DeadlinesAreIgnored,
    DeleteLeavesTheRecord,
    DeleteOfNobodyWorks,
    DeletesWithForce,
    DigestsAreMadeUp,
    Every137IsMemory,
    EverySignalKills,
    ExecForgetsTheCode,
    ExecIgnoresItsTimeout,
    ExitCodesAreZero,
    ExitTimesDrift,
    ExitedUsesNothing,
    ExitsComeFirst,
    FailedDeleteStops,
    FetchesAgain,
    FirstOfSeveralIsMeant,
    FollowNeverEnds,
    ForgetsLabels,
    ForgetsTheStopSignal,
    HalfACreateIsLeft,
    ImagesAreRenamed,
    ImagesOutOfOrder,
    InspectHangs,
    KillOfDeadIsUnknown,
    KillOfDeadWorks,
    LabelFilterIsIgnored,
    LateWaitersHang,
    LeavesSomethingBehind,
    LinesGetAnEnd,
    ListFailsWhenOneVanishes,
    LogsAreMixedUp,
    LongLinesAreCut,
    MissingIsUnknown,
    NamesAreNotCompleted,
    NeverAsksTheRegistryAgain,
    NoExitTimes,
    NoStartTime,
    NobodyThereIsNothingThere,
    NothingIsMemory,
    OldExitsAreKept,
    OneEventIsLost,
    OneExitIsSaidTwice,
    OneNamespace,
    OutputsAreMixed,
    Panics,
    PausedIsRunning,
    PidChangesWhenTheDaemonRestarts,
    PiecesOfLogsGetLost,
    PullIgnoresItsDeadline,
    RemovesUsedImages,
    RestartsWhatFailed,
    SaysNotApplicable,
    SecondRemoveOfAnImageFails,
    StartTwiceWorks,
    StatusFilterIsIgnored,
    StopKillsAtOnce,
    StopNeverKills,
    StopOfExitedFails,
    TailIsIgnored,
    TimesAreIgnored,
    UnknownIsZero,
    UpdateDoesNothing,
    VolumesAreForgotten,
    WaitForNobodyHangs,
}

/// The runtime with the flaw.
pub struct Flawed {
    inner: Arc<dyn ContainerRuntime>,
    flaw: Flaw,
    restarts: AtomicU64,
    damaged: AtomicBool,
    readings: AtomicU64,
    exits: Mutex<BTreeMap<ContainerId, ExitStatus>>,
}

impl Flawed {
    pub fn new(inner: Arc<dyn ContainerRuntime>, flaw: Flaw) -> Self {
        Flawed {
            inner,
            flaw,
            restarts: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
            readings: AtomicU64::new(0),
            exits: Mutex::default(),
        }
    }

    /// The daemon is about to be started again.
    pub fn note_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// What is stored of an image is about to be damaged.
    pub fn note_damage(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn within(&self, within: Duration) -> Duration {
        match self.flaw {
            Flaw::DeadlinesAreIgnored => FOR_EVER,
            _ => within,
        }
    }

    fn exit(&self, mut exit: ExitStatus) -> ExitStatus {
        match self.flaw {
            Flaw::ExitCodesAreZero => exit.code = ExitCode::Known(0),
            Flaw::UnknownIsZero if exit.code == ExitCode::Unknown => exit.code = ExitCode::Known(0),
            Flaw::Every137IsMemory => exit.oom_killed |= exit.code == ExitCode::Known(137),
            Flaw::NothingIsMemory => exit.oom_killed = false,
            Flaw::NoExitTimes => exit.exited_at = None,
            Flaw::ExitTimesDrift => {
                let readings = self.readings.fetch_add(1, Ordering::Relaxed);
                exit.exited_at = exit.exited_at.map(|at| WallTime(at.0 + readings));
            }
            _ => {}
        }
        exit
    }

    fn state(&self, mut state: ContainerState) -> ContainerState {
        state.exit = state.exit.map(|exit| self.exit(exit));
        match self.flaw {
            Flaw::NoStartTime => state.started_at = None,
            Flaw::ImagesAreRenamed => state.image.0.push_str("-renamed"),
            Flaw::PausedIsRunning if state.status == ContainerStatus::Paused => {
                state.status = ContainerStatus::Running;
            }
            Flaw::OldExitsAreKept => {
                let mut exits = self.exits.lock().expect("nobody panics with it");
                match state.exit {
                    Some(exit) => drop(exits.insert(state.id.clone(), exit)),
                    None => state.exit = exits.remove(&state.id),
                }
            }
            Flaw::PidChangesWhenTheDaemonRestarts => {
                let restarts = self.restarts.load(Ordering::Relaxed);
                let restarts = u32::try_from(restarts).unwrap_or(0);
                state.pid = state.pid.map(|pid| pid + restarts);
            }
            _ => {}
        }
        state
    }

    /// Another class in place of `class`, while the flaw is there.
    fn instead<T>(
        &self,
        flaw: Flaw,
        class: ErrorClass,
        other: ErrorClass,
        answer: Result<T>,
    ) -> Result<T> {
        answer.map_err(|mut error| {
            if self.flaw == flaw && error.class == class {
                error.class = other;
            }
            error
        })
    }

    /// Success in place of `class`, while the flaw is there.
    fn forgiven<T: Default>(&self, flaw: Flaw, class: ErrorClass, answer: Result<T>) -> Result<T> {
        match answer {
            Err(error) if self.flaw == flaw && error.class == class => Ok(T::default()),
            answer => answer,
        }
    }
}

#[async_trait]
impl ContainerRuntime for Flawed {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn version(&self, within: Duration) -> Result<String> {
        self.inner.version(within).await
    }

    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image> {
        use ErrorClass::{NotFound, Unavailable, Unknown};
        let mut request = request.clone();
        let mut within = within;
        match self.flaw {
            Flaw::FetchesAgain => {
                self.inner.remove_image(&request.image, within).await.ok();
            }
            Flaw::AnyPasswordWillDo if request.credentials.is_some() => {
                let (user, password) = ("wavetank".to_owned(), "wavetank".to_owned());
                request.credentials = Some(Credentials { user, password });
            }
            Flaw::NeverAsksTheRegistryAgain => request.policy = PullPolicy::IfMissing,
            Flaw::PullIgnoresItsDeadline => within = FOR_EVER,
            Flaw::CancelledPullKeepsALock => {
                if self.readings.load(Ordering::Relaxed) > 0 {
                    return pending().await;
                }
                self.readings.fetch_add(1, Ordering::Relaxed);
                let pulled = self.inner.pull(&request, within).await;
                self.readings.fetch_sub(1, Ordering::Relaxed);
                return pulled;
            }
            _ => {}
        }
        let mut pulled = self.inner.pull(&request, within).await;
        pulled = self.instead(
            Flaw::AbsentImageIsUnavailable,
            NotFound,
            Unavailable,
            pulled,
        );
        pulled = self.instead(Flaw::BrokenRegistryIsUnknown, Unavailable, Unknown, pulled);
        if self.has(Flaw::NamesAreNotCompleted) {
            pulled = pulled.map(|image| Image {
                reference: request.image.clone(),
                ..image
            });
        }
        if let (Ok(image), Flaw::DigestsAreMadeUp) = (&mut pulled, self.flaw) {
            image.digest = format!("sha256:{:064}", 0);
        }
        match pulled {
            Err(error) if self.has(Flaw::AbsentImageIsPulled) && error.class == NotFound => {
                Ok(Image {
                    reference: request.image,
                    digest: "sha256:".to_owned(),
                })
            }
            pulled => pulled,
        }
    }

    async fn images(&self, within: Duration) -> Result<Vec<Image>> {
        let mut images = self.inner.images(within).await?;
        if self.has(Flaw::ImagesOutOfOrder) {
            // One image is always in order: a second entry of the same shows the disorder.
            images.extend(images.first().cloned().map(|image| Image {
                reference: ImageReference("a".to_owned()),
                ..image
            }));
        }
        Ok(images)
    }

    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()> {
        let known = self.inner.images(within).await?;
        let is_known = known.iter().any(|it| it.reference == *image);
        if self.has(Flaw::SecondRemoveOfAnImageFails) && !is_known {
            return Err(RuntimeError::new(ErrorClass::NotFound, "no such image"));
        }
        let removed = self.inner.remove_image(image, within).await;
        let class = ErrorClass::FailedPrecondition;
        self.forgiven(Flaw::RemovesUsedImages, class, removed)
    }

    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()> {
        use ErrorClass::{AlreadyExists, InvalidArgument, NotFound};
        let mut spec = spec.clone();
        match self.flaw {
            Flaw::ForgetsLabels => spec.labels.clear(),
            Flaw::ForgetsTheStopSignal => spec.stop_signal = None,
            Flaw::VolumesAreForgotten => spec.volumes.clear(),
            Flaw::DamageHangs if self.damaged.load(Ordering::Relaxed) => return pending().await,
            Flaw::LeavesSomethingBehind => {
                let number = self.readings.fetch_add(1, Ordering::Relaxed);
                let mut extra = spec.clone();
                extra.id = ContainerId(format!("extra-{number}"));
                self.inner.create(&extra, within).await?;
            }
            _ => {}
        }
        let mut created = self.inner.create(&spec, within).await;
        match (&created, self.flaw) {
            (Ok(()), Flaw::CreateStarts) => {
                self.inner.start(&spec.id, within).await?;
            }
            (Err(error), Flaw::CreateReplaces) if error.class == AlreadyExists => {
                self.inner.delete(&spec.id, true, within).await?;
                created = self.inner.create(&spec, within).await;
            }
            (Err(error), Flaw::HalfACreateIsLeft) if error.class == ErrorClass::Unknown => {
                self.inner.create(&spec, within).await?;
            }
            _ => {}
        }
        let flaw = Flaw::CreateWithoutImageIsInvalid;
        created = self.instead(flaw, NotFound, InvalidArgument, created);
        self.forgiven(Flaw::AcceptsBadSpecs, InvalidArgument, created)
    }

    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        use ErrorClass::{FailedPrecondition, InvalidArgument, NotFound, Unknown};
        if self.has(Flaw::Panics) {
            panic!("a flaw on purpose");
        }
        let mut started = self.inner.start(id, within).await;
        started = self.instead(Flaw::MissingIsUnknown, NotFound, Unknown, started);
        started = self.instead(Flaw::BadProgramIsUnknown, InvalidArgument, Unknown, started);
        match started {
            Err(error) if self.has(Flaw::StartTwiceWorks) && error.class == FailedPrecondition => {
                self.inner.inspect(id, within).await
            }
            started => started.map(|state| self.state(state)),
        }
    }

    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus> {
        let before = self.inner.inspect(id, within).await;
        match (&before, self.flaw) {
            (Ok(state), Flaw::LateWaitersHang) if state.exit.is_some() => return pending().await,
            (Err(_), Flaw::WaitForNobodyHangs) => return pending().await,
            _ => {}
        }
        let exit = self.inner.wait(id, within).await?;
        if self.has(Flaw::RestartsWhatFailed) && exit.code == ExitCode::Known(1) {
            let state = before?;
            self.inner.delete(id, true, within).await?;
            self.inner.create(&plain(state), within).await?;
            self.inner.start(id, within).await?;
        }
        if self.has(Flaw::OldExitsAreKept) {
            self.inspect(id, within).await?;
        }
        Ok(self.exit(exit))
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        let within = self.within(within);
        let grace = match self.flaw {
            Flaw::StopKillsAtOnce => Duration::ZERO,
            Flaw::StopNeverKills => FOR_EVER,
            _ => grace,
        };
        if self.has(Flaw::StopOfExitedFails) {
            let state = self.inner.inspect(id, within).await?;
            if state.exit.is_some() {
                return Err(RuntimeError::new(ErrorClass::FailedPrecondition, "exited"));
            }
        }
        if self.has(Flaw::CancelledStopKills) {
            let (inner, id) = (Arc::clone(&self.inner), id.clone());
            let stop = tokio::spawn(async move { inner.stop(&id, grace, within).await });
            return stop.await.expect("the stop does not panic");
        }
        let stopped = self.inner.stop(id, grace, within).await?;
        Ok(stopped.map(|exit| self.exit(exit)))
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()> {
        use ErrorClass::{FailedPrecondition, InvalidArgument, NotFound, Unknown};
        let signal = match self.flaw {
            Flaw::EverySignalKills => Signal::Kill,
            _ => signal,
        };
        let mut killed = self.inner.kill(id, signal, within).await;
        killed = self.instead(Flaw::KillOfDeadIsUnknown, NotFound, Unknown, killed);
        killed = self.forgiven(Flaw::KillOfDeadWorks, NotFound, killed);
        killed = self.forgiven(Flaw::KillOfDeadWorks, FailedPrecondition, killed);
        self.forgiven(Flaw::AcceptsAnySignal, InvalidArgument, killed)
    }

    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()> {
        self.inner.pause(id, within).await
    }

    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()> {
        self.inner.resume(id, within).await
    }

    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()> {
        let within = self.within(within);
        if self.has(Flaw::DeleteLeavesTheRecord) {
            let stop = self.inner.stop(id, Duration::ZERO, within).await;
            return stop.map(|_| ());
        }
        let force = force || self.has(Flaw::DeletesWithForce);
        let deleted = self.inner.delete(id, force, within).await;
        if self.has(Flaw::FailedDeleteStops) && deleted.is_err() {
            self.inner.stop(id, Duration::ZERO, within).await.ok();
        }
        self.forgiven(Flaw::DeleteOfNobodyWorks, ErrorClass::NotFound, deleted)
    }

    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        if self.has(Flaw::InspectHangs) {
            return pending().await;
        }
        let state = self.inner.inspect(id, self.within(within)).await?;
        Ok(self.state(state))
    }

    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>> {
        let mut filter = filter.clone();
        match self.flaw {
            Flaw::LabelFilterIsIgnored => filter.labels.clear(),
            Flaw::StatusFilterIsIgnored => filter.status = None,
            _ => {}
        }
        let listed = self.inner.list(&filter, within).await;
        let mut listed = self.forgiven(
            Flaw::NobodyThereIsNothingThere,
            ErrorClass::Unavailable,
            listed,
        )?;
        if self.has(Flaw::ListFailsWhenOneVanishes) {
            for state in &listed {
                self.inner.inspect(&state.id, within).await?;
            }
        }
        for state in &mut listed {
            *state = self.state(state.clone());
        }
        Ok(listed)
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        let since = since.filter(|_| !self.has(Flaw::CursorsAreIgnored));
        let inner = self.inner.events(since, within).await?;
        Ok(Box::new(FlawedEvents {
            inner,
            flaw: self.flaw,
            held: None,
            late: BTreeMap::new(),
            exits: 0,
        }))
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>> {
        let mut options = options.clone();
        match self.flaw {
            Flaw::TailIsIgnored => options.tail_lines = None,
            Flaw::TimesAreIgnored => (options.since, options.until) = (None, None),
            _ => {}
        }
        let mut id = id.clone();
        if self.has(Flaw::LogsAreMixedUp) {
            let all = self.inner.list(&ListFilter::default(), within).await?;
            id = all.last().map_or(id, |last| last.id.clone());
        }
        let inner = self.inner.logs(&id, &options, within).await?;
        Ok(Box::new(FlawedLog {
            inner,
            flaw: self.flaw,
            follows: options.follow,
        }))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        let mut request = request.clone();
        if self.has(Flaw::ExecIgnoresItsTimeout) {
            request.timeout = FOR_EVER;
        }
        let mut result = self.inner.exec(id, &request, within).await?;
        if self.has(Flaw::ExecForgetsTheCode) {
            result.code = ExitCode::Known(0);
        }
        Ok(result)
    }

    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats> {
        let stats = self.inner.stats(id, within).await;
        let class = ErrorClass::FailedPrecondition;
        self.forgiven(Flaw::ExitedUsesNothing, class, stats)
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()> {
        if self.has(Flaw::UpdateDoesNothing) {
            return self.inner.stats(id, within).await.map(|_| ());
        }
        self.inner.update(id, limits, within).await
    }

    async fn resolve(&self, prefix: &str, within: Duration) -> Result<ContainerState> {
        if !self.has(Flaw::FirstOfSeveralIsMeant) {
            return self.inner.resolve(prefix, within).await;
        }
        let filter = ListFilter {
            id_prefix: Some(prefix.to_owned()),
            ..ListFilter::default()
        };
        let mut found = self.inner.list(&filter, within).await?;
        match found.is_empty() {
            true => Err(RuntimeError::new(ErrorClass::NotFound, "nobody")),
            false => Ok(found.remove(0)),
        }
    }
}

/// A spec that makes much the same container again.
fn plain(state: ContainerState) -> ContainerSpec {
    ContainerSpec {
        labels: state.labels,
        network: wavetank_port::Network::None,
        ..ContainerSpec::of(state.id, state.image)
    }
}

struct FlawedEvents {
    inner: Box<dyn EventStream>,
    flaw: Flaw,
    /// What is said next, before anything new.
    held: Option<EventRecord>,
    /// Starts that are said only after the exit.
    late: BTreeMap<ContainerId, EventRecord>,
    exits: u64,
}

#[async_trait]
impl EventStream for FlawedEvents {
    async fn next(&mut self) -> Result<EventRecord> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let record = self.inner.next().await?;
        let is_exit = matches!(record.event, RuntimeEvent::Exited { .. });
        self.exits += u64::from(is_exit);
        match self.flaw {
            Flaw::OneEventIsLost if is_exit && self.exits == 60 => self.inner.next().await,
            Flaw::OneExitIsSaidTwice if is_exit && self.exits == 60 => {
                self.held = Some(record.clone());
                Ok(record)
            }
            Flaw::ExitsComeFirst => self.exit_first(record).await,
            _ => Ok(record),
        }
    }
}

impl FlawedEvents {
    async fn exit_first(&mut self, mut record: EventRecord) -> Result<EventRecord> {
        while let RuntimeEvent::Started { id, .. } = &record.event {
            self.late.insert(id.clone(), record);
            record = self.inner.next().await?;
        }
        if let RuntimeEvent::Exited { id, .. } = &record.event {
            self.held = self.late.remove(id);
        }
        Ok(record)
    }
}

struct FlawedLog {
    inner: Box<dyn LogStream>,
    flaw: Flaw,
    follows: bool,
}

#[async_trait]
impl LogStream for FlawedLog {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        let Some(mut chunk) = self.inner.next().await? else {
            if self.flaw == Flaw::FollowNeverEnds && self.follows {
                return pending().await;
            }
            return Ok(None);
        };
        match self.flaw {
            Flaw::OutputsAreMixed => chunk.stream = OutputStream::Stdout,
            Flaw::LinesGetAnEnd if !chunk.bytes.ends_with(b"\n") => chunk.bytes.push(b'\n'),
            Flaw::PiecesOfLogsGetLost if chunk.bytes.len() > 1_000 => drop(chunk.bytes.pop()),
            Flaw::LongLinesAreCut => chunk.bytes.truncate(16 << 10),
            _ => {}
        }
        Ok(Some(chunk))
    }
}
