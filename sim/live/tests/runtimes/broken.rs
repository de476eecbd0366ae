//! Nodes that were broken on purpose. What is broken stands between the shipped node and its
//! runtime, where a bug of an adapter or a cache would show; all else is what ships. This test
//! program is such a node when its first argument is `node`; its name says which.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode as ProcessCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::signal::unix::{SignalKind, signal};
use wavetank_node::config::{AgentFlags, File, Flags, ManagerFlags};
use wavetank_node::serve;
use wavetank_port::runtime::{LogStream, Result};
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    ErrorClass, EventCursor, EventStream, ExecRequest, ExecResult, ExitCode, ExitStatus, Image,
    ImageReference, Limits, ListFilter, LogOptions, PullRequest, RuntimeError, Signal,
};

/// What a node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    None,
    /// It takes what the last listing did not show, or could not, for gone.
    TrustsListings,
    /// It does not know the ends that it was not there to see.
    LosesExits,
}

impl Habit {
    const ALL: [Habit; 3] = [Habit::None, Habit::TrustsListings, Habit::LosesExits];

    /// What the program is called that has it.
    pub fn name(self) -> &'static str {
        match self {
            Habit::None => "honest",
            Habit::TrustsListings => "trusts-listings",
            Habit::LosesExits => "loses-exits",
        }
    }
}

/// Runs the node, if this program was asked to be one: `node agent|manager --config FILE`.
pub fn main_if_asked() -> Option<ProcessCode> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let [program, node, role, _, config] = arguments.as_slice() else {
        return None;
    };
    (node == "node").then(|| {
        let name = Path::new(program).file_name();
        let habit = Habit::ALL
            .into_iter()
            .find(|habit| name == Some(habit.name().as_ref()))
            .expect("the name of a habit");
        let runtime = tokio::runtime::Runtime::new().expect("a tokio runtime");
        runtime.block_on(run(habit, role == "agent", config.into()));
        runtime.shutdown_background();
        ProcessCode::SUCCESS
    })
}

async fn run(habit: Habit, is_agent: bool, config: PathBuf) {
    let flags = Flags {
        config: Some(config),
        ..Flags::default()
    };
    let file = File::load(&flags).expect("a configuration");
    let mut terminated = signal(SignalKind::terminate()).expect("signals");
    let stop = async move { _ = terminated.recv().await };
    if !is_agent {
        let settings = file.manager(&flags, &ManagerFlags::default());
        let ended = serve::manager(settings.expect("a manager"), stop).await;
        return ended.expect("a manager ends when it is asked to");
    }
    let settings = file.agent(&flags, &AgentFlags::default());
    let settings = settings.expect("an agent");
    let inner = serve::open_runtime(&settings).await.expect("a runtime");
    let runtime: Arc<dyn ContainerRuntime> = match habit {
        Habit::None => inner,
        Habit::TrustsListings | Habit::LosesExits => Arc::new(Broken {
            inner,
            habit,
            memory: Mutex::default(),
        }),
    };
    let ended = serve::agent(settings, runtime, stop).await;
    ended.expect("an agent ends when it is asked to");
}

/// A runtime as a broken node sees it.
struct Broken {
    inner: Arc<dyn ContainerRuntime>,
    habit: Habit,
    memory: Mutex<Memory>,
}

/// What it remembers, for as long as its process lives.
#[derive(Default)]
struct Memory {
    /// What the last listing showed; `None` before the first.
    listed: Option<BTreeSet<ContainerId>>,
    /// When it made what it has made.
    made: BTreeMap<ContainerId, Instant>,
    /// What it has seen before its end.
    alive: BTreeSet<ContainerId>,
}

impl Broken {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it believes that there is no such container.
    fn misses(&self, id: &ContainerId) -> bool {
        let memory = self.memory();
        let is_missing = |listed: &BTreeSet<ContainerId>| !listed.contains(id);
        self.habit == Habit::TrustsListings && memory.listed.as_ref().is_some_and(is_missing)
    }

    fn note(&self, asked: Instant, states: &[ContainerState]) {
        let mut memory = self.memory();
        let shown = states.iter().map(|state| state.id.clone());
        let younger = memory.made.iter().filter(|(_, made)| **made >= asked);
        let listed = shown.chain(younger.map(|(id, _)| id.clone())).collect();
        memory.listed = Some(listed);
    }

    /// What it makes of a container's state.
    fn seen(&self, mut state: ContainerState) -> ContainerState {
        let mut memory = self.memory();
        match &mut state.exit {
            Some(exit) if self.habit == Habit::LosesExits && !memory.alive.contains(&state.id) => {
                exit.code = ExitCode::Unknown;
            }
            Some(_) => {}
            None => _ = memory.alive.insert(state.id.clone()),
        }
        state
    }
}

fn not_found(id: &ContainerId) -> RuntimeError {
    RuntimeError::new(ErrorClass::NotFound, format!("no container {id}"))
}

#[async_trait]
impl ContainerRuntime for Broken {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn version(&self, within: Duration) -> Result<String> {
        self.inner.version(within).await
    }

    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image> {
        self.inner.pull(request, within).await
    }

    async fn images(&self, within: Duration) -> Result<Vec<Image>> {
        self.inner.images(within).await
    }

    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()> {
        self.inner.remove_image(image, within).await
    }

    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()> {
        self.inner.create(spec, within).await?;
        let mut memory = self.memory();
        memory.made.insert(spec.id.clone(), Instant::now());
        memory.alive.insert(spec.id.clone());
        if let Some(listed) = &mut memory.listed {
            listed.insert(spec.id.clone());
        }
        Ok(())
    }

    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        self.inner.start(id, within).await
    }

    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus> {
        self.inner.wait(id, within).await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        self.inner.stop(id, grace, within).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()> {
        self.inner.kill(id, signal, within).await
    }

    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()> {
        self.inner.pause(id, within).await
    }

    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()> {
        self.inner.resume(id, within).await
    }

    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()> {
        if self.misses(id) {
            return Err(not_found(id));
        }
        self.inner.delete(id, force, within).await
    }

    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        if self.misses(id) {
            return Err(not_found(id));
        }
        self.inner
            .inspect(id, within)
            .await
            .map(|state| self.seen(state))
    }

    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>> {
        let asked = Instant::now();
        let states = match (self.habit, self.inner.list(filter, within).await) {
            (Habit::TrustsListings, listed) => listed.unwrap_or_default(),
            (_, listed) => listed?,
        };
        self.note(asked, &states);
        Ok(states.into_iter().map(|state| self.seen(state)).collect())
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        self.inner.events(since, within).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>> {
        self.inner.logs(id, options, within).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        self.inner.exec(id, request, within).await
    }

    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats> {
        self.inner.stats(id, within).await
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()> {
        self.inner.update(id, limits, within).await
    }
}
