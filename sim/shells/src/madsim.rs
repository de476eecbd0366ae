//! The shells' machines in madsim: one node each, all on one executor that draws the next task at
//! random. Built only with `--cfg madsim` (`cargo madsim`), which is a property of a whole build.
//!
//! What madsim has no word for is made of what it has:
//! - a connection across a cut waits instead of being refused at once;
//! - a stream that ends while its link is cut, or with the power of its machine, is kept in a
//!   [`Limbo`] until the link is there again: otherwise the other side would see its end at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use madsim::net::{NetSim, TcpListener, TcpStream};
use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wavetank_engine::{Keep, RunOptions, RunResult};
use wavetank_model::Instant;
use wavetank_node::{Platform, Task};
use wavetank_port::WallTime;
use wavetank_scenario::plan::{Action, Plan, Range};
use wavetank_sim_runtime::Pace;
use wavetank_trace::{Event, VirtualTime};

use crate::life::live;
use crate::links::Links;
use crate::machine::Machine;
use crate::simulator::Simulator;
use crate::stage::Stage;
use crate::variant::Shipped;
use crate::{RunError, peer_of, port_of};

/// Runs a plan, on a thread of its own: madsim seeds what the standard library draws once per
/// thread.
///
/// # Errors
/// If the machines' certificates cannot be made.
///
/// # Panics
/// If the shell or madsim does.
pub fn run(
    plan: &Plan,
    options: &RunOptions,
    sink: &mut dyn FnMut(&Event),
) -> Result<RunResult, RunError> {
    let mut events = Vec::new();
    let keep = options.keep;
    let ended = std::thread::scope(|scope| {
        let events = &mut events;
        let run = scope.spawn(move || {
            let mut sink = |event: &Event| events.push(event.clone());
            simulate(plan, keep, &mut sink)
        });
        run.join()
    });
    events.iter().for_each(sink);
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn simulate(plan: &Plan, keep: Keep, sink: &mut dyn FnMut(&Event)) -> Result<RunResult, RunError> {
    let Range { min, max } = plan.cluster.latency;
    let mut config = madsim::Config::default();
    config.net.send_latency = min..max + Duration::from_nanos(1);
    let runtime = Runtime::with_seed_and_config(plan.seed, config);
    runtime.block_on(async {
        let mut stage = Stage::new(plan, keep, sink, Arc::new(MadsimPace))?;
        let mut madsim = Madsim {
            handle: Handle::current(),
            net: NetSim::current(),
            machines: stage.machines().to_vec(),
            nodes: BTreeMap::new(),
            clogged: BTreeSet::new(),
            limbo: Limbo::default(),
        };
        stage.begin(&mut madsim);
        play(&mut stage, &mut madsim).await;
        Ok(stage.finish())
    })
}

async fn play(stage: &mut Stage<'_>, madsim: &mut Madsim) {
    let log = stage.log();
    loop {
        let now = MadsimPace.now().min(stage.end());
        stage.turn(now, madsim);
        if now >= stage.end() {
            return;
        }
        let wait = stage.next_deadline().since(now);
        tokio::select! {
            biased;
            () = log.news() => {}
            () = madsim::time::sleep(wait) => {}
        }
    }
}

/// madsim's one clock.
struct MadsimPace;

impl Pace for MadsimPace {
    fn now(&self) -> VirtualTime {
        VirtualTime::from_duration(TimeHandle::current().elapsed())
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(madsim::time::sleep(duration))
    }
}

fn ip_of(place: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(10, 0, 0, 1));
    IpAddr::V4(Ipv4Addr::from(base + place))
}

fn place_of(ip: IpAddr) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_sub(u32::from(Ipv4Addr::new(10, 0, 0, 1))),
        IpAddr::V6(_) => None,
    }
}

/// Streams whose end nobody may see yet, by the places of their ends.
#[derive(Clone, Default)]
struct Limbo {
    streams: Arc<Mutex<Vec<(u32, u32, TcpStream)>>>,
}

impl Limbo {
    fn keep(&self, here: u32, there: u32, stream: TcpStream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push((here, there, stream));
    }

    /// Lets those go whose link is there again.
    fn release(&self, is_cut: impl Fn(u32, u32) -> bool) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *streams);
        let (kept, gone): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(here, there, _)| is_cut(*here, *there));
        *streams = kept;
        drop(streams);
        drop(gone);
    }
}

/// A stream that ends on the other side only if its end gets there.
struct Wire {
    stream: Option<TcpStream>,
    machine: Arc<Machine>,
    peer: u32,
    limbo: Limbo,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let (here, there) = (self.machine.place, self.peer);
        if let Some(stream) = self.stream.take()
            && self.machine.common.cuts.is_cut(here, there)
        {
            self.limbo.keep(here, there, stream);
        }
    }
}

impl Wire {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// One machine of madsim, as the shell sees it.
#[derive(Clone)]
struct MadsimPlatform {
    machine: Arc<Machine>,
    limbo: Limbo,
}

impl MadsimPlatform {
    fn wire(&self, stream: TcpStream, peer: u32) -> Wire {
        Wire {
            stream: Some(stream),
            machine: Arc::clone(&self.machine),
            peer,
            limbo: self.limbo.clone(),
        }
    }
}

impl Platform for MadsimPlatform {
    type Stream = Wire;
    type Listener = TcpListener;

    async fn listen(&self, address: &str) -> io::Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port_of(address)?)).await
    }

    fn local_address(&self, listener: &TcpListener) -> io::Result<SocketAddr> {
        listener.local_addr()
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(Wire, SocketAddr)> {
        let (stream, address) = listener.accept().await?;
        let peer = place_of(address.ip()).unwrap_or(u32::MAX);
        Ok((self.wire(stream, peer), address))
    }

    async fn connect(&self, address: &str) -> io::Result<Wire> {
        let common = &self.machine.common;
        let peer = peer_of(address, common.roster)?;
        common.cuts.passable(self.machine.place, peer).await;
        let address = SocketAddr::new(ip_of(peer), port_of(address)?);
        let stream = TcpStream::connect(address).await?;
        Ok(self.wire(stream, peer))
    }

    fn now(&self) -> Instant {
        self.machine.now()
    }

    fn wall(&self) -> WallTime {
        self.machine.wall()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.machine.sleep_until(at)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        let task = madsim::task::spawn(future).abort_handle();
        Task::new(move || task.abort())
    }

    fn entropy(&self, bytes: &mut [u8]) {
        self.machine.entropy(bytes);
    }
}

struct Madsim {
    handle: Handle,
    net: Arc<NetSim>,
    machines: Vec<Arc<Machine>>,
    nodes: BTreeMap<u32, NodeId>,
    clogged: BTreeSet<(u32, u32)>,
    limbo: Limbo,
}

impl Simulator for Madsim {
    fn unable(&self, action: &Action) -> Option<&'static str> {
        Some(match action {
            Action::LinkDelay { .. } => "madsim has one latency for all links",
            Action::LinkLoss { .. } => "madsim has one loss rate for all links",
            Action::LinkBandwidth { .. } => "madsim has no bandwidth",
            _ => return None,
        })
    }

    fn start(&mut self, place: u32) {
        if let Some(node) = self.nodes.get(&place) {
            self.handle.restart(*node);
            return;
        }
        let machine = Arc::clone(&self.machines[place as usize]);
        let limbo = self.limbo.clone();
        let name = machine.id.to_string();
        let boot = move || {
            let (machine, limbo) = (Arc::clone(&machine), limbo.clone());
            async move {
                let platform = MadsimPlatform {
                    machine: Arc::clone(&machine),
                    limbo,
                };
                live(Shipped, platform, machine).await;
                // The stage ends this node when it has read why.
                std::future::pending::<()>().await;
            }
        };
        let builder = self.handle.create_node().name(name).ip(ip_of(place));
        let node = builder.init(boot).build();
        self.nodes.insert(place, node.id());
    }

    fn stop(&mut self, place: u32) {
        if let Some(node) = self.nodes.get(&place) {
            self.handle.kill(*node);
        }
    }

    fn pause(&mut self, place: u32) {
        if let Some(node) = self.nodes.get(&place) {
            self.handle.pause(*node);
        }
    }

    fn resume(&mut self, place: u32) {
        if let Some(node) = self.nodes.get(&place) {
            self.handle.resume(*node);
        }
    }

    fn set_links(&mut self, links: &Links) {
        let node = |place: &u32| self.nodes.get(place).copied();
        for pair in self.clogged.symmetric_difference(&links.cut) {
            let (Some(from), Some(to)) = (node(&pair.0), node(&pair.1)) else {
                continue;
            };
            if links.cut.contains(pair) {
                self.net.clog_link(from, to);
            } else {
                self.net.unclog_link(from, to);
            }
        }
        self.clogged = links.cut.clone();
        let is_cut = |here, there| links.cut.contains(&(here, there));
        self.limbo.release(is_cut);
    }
}
