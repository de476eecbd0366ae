//! A link that holds packets back, for kernels that cannot. The host's port is taken off the
//! switch and put on a bridge of its own; what arrives there leaves for the switch through this
//! program, and the other way round, each packet that much later and all in their order. The two
//! devices through which it passes are this program's and go with it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tun::Tun;
use wavetank_fixtures::daemon::network_namespace;

use super::error::RoomError;
use super::layout::{Host, Layout, namespace_path};
use super::switch::BRIDGE;
use super::tool;

/// The largest frame: an Ethernet header with a tag, and what these devices carry.
const FRAME_BYTES_MAX: usize = 18 + 1_500;
/// Frames under way each way; what is more is lost, as in any queue.
const FRAMES_MAX: usize = 100_000;

/// Such a link, in place of a host's own. Must be taken out again with [`Wire::remove`]; one that
/// is dropped leaves the host without a link.
#[derive(Debug)]
pub(crate) struct Wire {
    delay_ns: Arc<AtomicU64>,
    carriers: JoinSet<()>,
}

impl Wire {
    /// Whether this machine can do it. Blocks; must be called in a runtime.
    pub(crate) fn is_possible(layout: &Layout) -> bool {
        device(layout, "probe").is_ok()
    }

    /// Puts it between a host's port and the switch. Blocks; must be called in a runtime.
    pub(crate) fn insert(layout: &Layout, host: &Host, delay: Duration) -> Result<Self, RoomError> {
        let names = Names::of(host);
        let [near, far] = [&names.near, &names.far].map(|name| device(layout, name));
        let (near, far) = (Arc::new(near?), Arc::new(far?));
        let mut wire = Wire {
            delay_ns: Arc::default(),
            carriers: JoinSet::new(),
        };
        wire.set(delay);
        let runtime = Handle::current();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let carry = carry(from.clone(), to.clone(), wire.delay_ns.clone());
            wire.carriers.spawn_on(carry, &runtime);
        }
        let Names { bridge, near, far } = names;
        let commands = format!(
            "link add name {bridge} type bridge\n\
             link set dev {bridge} up\n\
             link set dev {near} master {bridge}\n\
             link set dev {far} master {BRIDGE}\n\
             link set dev {} master {bridge}\n",
            host.port()
        );
        if let Err(error) = run(layout, &commands) {
            // However far it came.
            let _ = wire.remove(layout, host);
            return Err(error);
        }
        Ok(wire)
    }

    /// From now on packets are held back for so long.
    pub(crate) fn set(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.delay_ns.store(delay, Ordering::Relaxed);
    }

    /// Puts the host's port back on the switch; what was under way is lost. Blocks; must be called
    /// in a runtime.
    pub(crate) fn remove(&mut self, layout: &Layout, host: &Host) -> Result<(), RoomError> {
        let bridge = Names::of(host).bridge;
        let commands = format!(
            "link set dev {} master {BRIDGE}\n\
             link delete {bridge}\n",
            host.port()
        );
        run(layout, &commands)?;
        // With the last of them the devices are gone.
        Handle::current().block_on(self.carriers.shutdown());
        Ok(())
    }
}

/// What it is made of, in the switch's namespace.
struct Names {
    bridge: String,
    /// The device on the host's side.
    near: String,
    /// The device on the switch.
    far: String,
}

impl Names {
    fn of(host: &Host) -> Self {
        let number = host.number;
        Names {
            bridge: format!("wire-{number}"),
            near: format!("near-{number}"),
            far: format!("far-{number}"),
        }
    }
}

fn run(layout: &Layout, commands: &str) -> Result<(), RoomError> {
    let line = format!("ip -netns {} -batch -", layout.switch());
    tool::run_with_input(&line, commands).map(drop)
}

/// Makes a network device whose other end is this program.
fn device(layout: &Layout, name: &str) -> Result<Tun, RoomError> {
    let runtime = Handle::current();
    let switch = namespace_path(&layout.switch());
    let made = network_namespace::within(&switch, || {
        let _entered = runtime.enter();
        let built = Tun::builder().name(name).tap().up().build();
        let built = built.map_err(io::Error::other)?;
        let device = built.into_iter().next();
        device.ok_or_else(|| io::Error::other("no device was made"))
    });
    made.map_err(RoomError::file("make a device in", &switch))
}

/// Carries frames one way for ever.
async fn carry(from: Arc<Tun>, to: Arc<Tun>, delay_ns: Arc<AtomicU64>) {
    let (entrance, exit) = mpsc::channel(FRAMES_MAX);
    let ended = tokio::select! {
        ended = take(&from, entrance, &delay_ns) => ended,
        ended = give(&to, exit) => ended,
    };
    if let Err(error) = ended {
        tracing::warn!(device = from.name(), %error, "a delayed link carries nothing any more");
    }
}

async fn take(
    from: &Tun,
    entrance: mpsc::Sender<(Instant, Box<[u8]>)>,
    delay_ns: &AtomicU64,
) -> io::Result<()> {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    loop {
        let length = from.recv(&mut frame).await?;
        let delay = Duration::from_nanos(delay_ns.load(Ordering::Relaxed));
        let due = Instant::now() + delay;
        // A full queue loses what comes.
        let _ = entrance.try_send((due, frame[..length].into()));
    }
}

async fn give(to: &Tun, mut exit: mpsc::Receiver<(Instant, Box<[u8]>)>) -> io::Result<()> {
    while let Some((due, frame)) = exit.recv().await {
        tokio::time::sleep_until(due).await;
        if let Err(error) = to.send(&frame).await {
            tracing::warn!(device = to.name(), %error, "a frame is lost on a delayed link");
        }
    }
    Ok(())
}
