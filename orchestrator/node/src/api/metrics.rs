//! What a node counts, for Prometheus, and what it logs.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text::encode,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use wavetank_model::{ConsensusRole, NodeId, Notice};
use wavetank_port::RuntimeCommand;

use super::status::Readiness;
use crate::observer::{Answered, Log, Observer};
use crate::transport::Transport;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
    result: &'static str,
}

/// Everything that one node counts, and the connections that it has.
pub struct Metrics {
    registry: Registry,
    notices: Family<Decision, Counter>,
    calls: Family<Call, Counter>,
    calls_under_way: Gauge,
    transport: watch::Sender<Option<Transport>>,
    /// An agent: it is in a session with the managers' leader.
    in_session: AtomicBool,
    /// A manager: what it is in its group.
    role: Mutex<Option<ConsensusRole>>,
    leads: Gauge,
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new(node: NodeId) -> Self {
        let label = ("node".into(), node.to_string().into());
        let mut registry = Registry::with_prefix_and_labels("wavetank", [label].into_iter());
        let notices = Family::default();
        registry.register("notices", "Decisions that took effect", notices.clone());
        let calls = Family::default();
        let help = "Calls of the container runtime that were answered";
        registry.register("runtime_calls", help, calls.clone());
        let calls_under_way = Gauge::default();
        let help = "Calls of the container runtime without an answer yet";
        registry.register("runtime_calls_under_way", help, calls_under_way.clone());
        let leads = Gauge::default();
        registry.register("leads", "1 while it leads the managers", leads.clone());
        let transport = watch::Sender::new(None);
        registry.register_collector(Box::new(Connections(transport.subscribe())));
        Metrics {
            registry,
            notices,
            calls,
            calls_under_way,
            transport,
            in_session: AtomicBool::new(false),
            role: Mutex::default(),
            leads,
        }
    }

    /// The node's connections, once it has them.
    pub async fn transport(&self) -> Transport {
        let mut connected = self.transport.subscribe();
        let found = connected.wait_for(Option::is_some).await;
        match found.ok().and_then(|transport| transport.clone()) {
            Some(transport) => transport,
            // Cannot be: this holds the sender.
            None => std::future::pending().await,
        }
    }

    /// The node's connections, if it has them already.
    pub fn connections(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    /// A manager: what it is in its group, once it has said so.
    pub fn role(&self) -> Option<ConsensusRole> {
        *self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything in Prometheus's text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// An agent can do its work while it is in a session.
#[async_trait]
impl Readiness for Metrics {
    async fn ready(&self) -> Result<(), String> {
        match self.in_session.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("not in a session with the managers".to_owned()),
        }
    }
}

impl Observer for Metrics {
    fn connected(&self, transport: &Transport) {
        self.transport.send_replace(Some(transport.clone()));
    }

    fn notice(&self, notice: Notice) {
        match &notice {
            Notice::SessionOpened { .. } => self.in_session.store(true, Ordering::Relaxed),
            Notice::SessionLost { .. } => self.in_session.store(false, Ordering::Relaxed),
            Notice::RoleChanged { role, .. } => {
                *self.role.lock().unwrap_or_else(PoisonError::into_inner) = Some(*role);
                self.leads.set(i64::from(*role == ConsensusRole::Leader));
            }
            _ => {}
        }
        let kind = notice.name();
        self.notices.get_or_create(&Decision { kind }).inc();
        Log.notice(notice);
    }

    fn called(&self, command: &RuntimeCommand) {
        self.calls_under_way.inc();
        Log.called(command);
    }

    fn answered(&self, call: &Answered) {
        self.calls_under_way.dec();
        let label = Call {
            call: call.call,
            result: call.error.map_or("ok", |error| error.name()),
        };
        self.calls.get_or_create(&label).inc();
        Log.answered(call);
    }
}

/// What is counted on a node's connections.
struct Connections(watch::Receiver<Option<Transport>>);

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connections")
    }
}

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(transport) = self.0.borrow().clone() else {
            return Ok(());
        };
        for (name, value) in transport.counters().all() {
            let counter = ConstCounter::new(value);
            let help = "Of connections between nodes";
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
