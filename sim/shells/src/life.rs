//! One boot of a machine's process: the node as it ships, on whatever platform, from the disk that
//! the machine has.

use std::sync::Arc;

use wavetank_engine::boot;
use wavetank_model::{Incarnation, NodeRole};
use wavetank_node::driver::Submitter;
use wavetank_node::node::{self, AgentParts, NodeError, Seat};
use wavetank_node::serve::chain;
use wavetank_node::transport::{Limits, TransportConfig};
use wavetank_node::{Journal, JournalError, Platform};
use wavetank_trace::{HostState, Payload};

use crate::log::{Ending, Said};
use crate::machine::{Machine, PORT};
use crate::variant::Variant;
use crate::witness::Witness;

/// Runs the machine's process until it gives up; a simulator may end it any time before.
pub async fn live<V: Variant>(variant: V, platform: impl Platform, machine: Arc<Machine>) {
    let platform = variant.platform(platform);
    let ended = match machine.id.role {
        NodeRole::Manager => manager(&variant, platform, &machine).await,
        NodeRole::Agent => agent(&variant, platform, &machine).await,
        NodeRole::Client => client(platform, &machine).await,
    };
    if let Err(error) = ended {
        machine.say(Said::Ended(ending(&error)));
    }
}

async fn manager<V: Variant, P: Platform>(
    variant: &V,
    platform: P,
    machine: &Arc<Machine>,
) -> Result<(), NodeError> {
    let (journal, incarnation) = open(variant, machine).map_err(NodeError::Journal)?;
    let seasoned = machine.season();
    let boot = boot::manager(&machine.common.plan, machine.id, incarnation, seasoned).boot;
    let seat = seat(platform, machine, incarnation);
    node::run_manager(seat, journal, boot, std::future::pending()).await
}

async fn agent<V: Variant, P: Platform>(
    variant: &V,
    platform: P,
    machine: &Arc<Machine>,
) -> Result<(), NodeError> {
    let (journal, incarnation) = open(variant, machine).map_err(NodeError::Journal)?;
    let Some(runtime) = machine.runtime.clone() else {
        return Ok(());
    };
    let config = boot::agent(&machine.common.plan, machine.id, incarnation);
    let parts = AgentParts {
        resources: config.resources,
        labels: config.labels,
        runtime,
    };
    let seat = seat(platform, machine, incarnation);
    node::run_agent(seat, journal, parts, std::future::pending()).await
}

async fn client<P: Platform>(platform: P, machine: &Arc<Machine>) -> Result<(), NodeError> {
    let incarnation = Incarnation(machine.wall().0);
    let seat = seat(platform.clone(), machine, incarnation);
    let (submitter, submissions) = Submitter::channel(1);
    let asker = Arc::clone(machine);
    let _asking = platform.spawn(async move {
        let mut questions = asker.questions.lock().await;
        while let Some(operation) = questions.recv().await {
            // Who asks learns the answer from the observer.
            let _ = submitter.submit(operation).await;
        }
    });
    node::run_client(seat, submissions, std::future::pending()).await
}

/// The machine's journal, and the number of the boot that begins.
fn open(variant: &impl Variant, machine: &Machine) -> Result<(Journal, Incarnation), JournalError> {
    let mut journal = Journal::on(variant.storage(machine.disk.clone()))?;
    let incarnation = journal.begin_boot(machine.wall())?;
    Ok((journal, incarnation))
}

fn seat<P: Platform>(platform: P, machine: &Arc<Machine>, incarnation: Incarnation) -> Seat<P> {
    machine.begin_boot(incarnation);
    let state = HostState::Started;
    machine.say(Said::Event(Payload::Host { state, incarnation }));
    let listens = machine.id.role == NodeRole::Manager;
    let network = TransportConfig {
        identity: Arc::clone(&machine.identity),
        incarnation,
        listen: listens.then(|| format!("0.0.0.0:{PORT}")),
        advertise: listens.then(|| format!("{}:{PORT}", machine.id)),
        addresses: machine.common.addresses.clone(),
        limits: Limits::usual(),
        jitter: platform.rng(),
    };
    Seat {
        platform,
        timers: machine.common.plan.cluster.timers.clone(),
        network,
        observer: Arc::new(Witness::new(Arc::clone(machine))),
    }
}

fn ending(error: &NodeError) -> Ending {
    let distrusts_disk = matches!(error, NodeError::Disk(_) | NodeError::Journal(_));
    Ending {
        why: chain(error),
        distrusts_disk,
    }
}
