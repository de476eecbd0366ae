//! Clients of the managers, in this process: each asks one thing after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wavetank_model::{NodeId, Operation, Timers};
use wavetank_node::driver::Submitter;
use wavetank_node::serve::{self, ServeError, StateFolder};
use wavetank_world::Stream;

use super::history::{History, Witness};

/// Longest that a request may take, whatever is killed meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Keys that all clients write and read.
const HOT_KEYS: u64 = 16;
const HOT_READS_PERCENT: u64 = 25;
const HOT_WRITES_PERCENT: u64 = 25;

/// What one client asks: reads and writes of keys that all share, and writes of keys that nobody
/// writes again, each of which has to be there in the end. Every value is written once only.
pub struct Load {
    node: NodeId,
    draws: Stream,
    writes: u64,
}

impl Load {
    /// Of this client.
    pub fn new(node: NodeId, seed: u64) -> Self {
        Load {
            node,
            draws: Stream::new(seed, &node.to_string(), "load"),
            writes: 0,
        }
    }

    fn next(&mut self) -> Operation {
        let percent = self.draws.below(100);
        let hot = format!("hot/{}", self.draws.below(HOT_KEYS));
        if percent < HOT_READS_PERCENT {
            return Operation::Get { key: hot };
        }
        self.writes += 1;
        let value = format!("{}/{}", self.node, self.writes);
        let key = match percent < HOT_READS_PERCENT + HOT_WRITES_PERCENT {
            true => hot,
            false => format!("own/{value}"),
        };
        Operation::Put {
            key,
            value,
            claim: None,
        }
    }
}

/// A client. It ends with this.
pub struct Client {
    node: NodeId,
    submitter: Submitter,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Client {
    /// Starts the client that has joined in this folder.
    pub fn start(node: NodeId, dir: PathBuf, history: &Arc<History>) -> Self {
        let managers = StateFolder::at(&dir).managers().unwrap();
        assert_eq!(managers.iter().count(), 3, "it knows all managers");
        let (submitter, submissions) = Submitter::channel(1);
        let witness = Arc::new(Witness::new(node, history));
        let running = tokio::spawn(async move {
            let end = std::future::pending();
            serve::client(&dir, Timers::SHIPPED, witness, submissions, end).await
        });
        Client {
            node,
            submitter,
            running,
        }
    }

    /// Who it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Asks and waits for the answer, which the history has before this comes back.
    pub async fn ask(&self, operation: Operation) {
        let what = format!("{} asks {operation:?}", self.node);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.submitter.submit(operation)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer in {ANSWER_TIMEOUT:?}"));
        let answer = answer.unwrap_or_else(|gone| panic!("{what}: {gone}"));
        answer.unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// Asks until it is over.
    pub async fn work(self: Arc<Self>, mut load: Load, over: watch::Receiver<bool>) {
        while !*over.borrow() {
            self.ask(load.next()).await;
        }
    }
}
