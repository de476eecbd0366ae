//! A client of a cluster, in this process: it asks the managers as a peer, over the same transport
//! as all nodes, and follows them when another one leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use wavetank_model::{NodeRole, Operation, Outcome, Timers};
use wavetank_node::driver::Submitter;
use wavetank_node::observer::{Log, Observer};
use wavetank_node::serve::{self, JoinRequest, ServeError};

use super::start::Started;

/// Several elections, and what a busy machine adds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The client. It ends when this is dropped.
pub struct Client {
    submitter: Submitter,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Client {
    /// Joins a cluster that runs; `name` is its folder there.
    pub async fn join(started: &Started, name: &str) -> anyhow::Result<Self> {
        let token = started.ctl().token("client").await?;
        let dir = started.dir().join(name);
        let request = JoinRequest {
            dir: dir.clone(),
            token: token.parse().context("the token is no token")?,
            role: NodeRole::Client,
            managers: started.managers.clone(),
            api: Vec::new(),
        };
        serve::join(&request).await?;
        let (submitter, submissions) = Submitter::channel(1);
        let running = tokio::spawn(async move {
            let log: Arc<dyn Observer> = Arc::new(Log);
            let end = std::future::pending();
            serve::client(&dir, Timers::SHIPPED, log, submissions, end).await
        });
        Ok(Client { submitter, running })
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub async fn ask(&self, operation: Operation) -> anyhow::Result<Outcome> {
        let name = operation.name();
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.submitter.submit(operation)).await;
        let answer = answer.with_context(|| format!("{name} was not answered in time"))?;
        let answer = answer.with_context(|| format!("cannot ask for {name}"))?;
        answer.map_err(|error| anyhow::anyhow!("{name} was refused: {error}"))
    }
}
