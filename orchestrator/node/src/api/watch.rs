//! Changes as they happen, as lines of JSON. Level-triggered: whoever falls behind or comes back
//! later misses steps in between and never the last one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;

use super::views::Change;
use super::{Api, ApiError, routes};

/// After so long without a change an empty line shows that the connection lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How everything is, then how it changes, line by line; empty lines in between mean nothing.
#[utoipa::path(get, path = "/watch",
    responses((status = 200, body = Change, content_type = "application/x-ndjson")))]
pub(super) async fn watch(State(api): State<Api>) -> Result<Response, ApiError> {
    let mut watcher = Watcher {
        api,
        seen: BTreeMap::new(),
    };
    // Whoever cannot be answered is told so before the stream begins.
    let first = watcher.look().await?;
    let rest = stream::unfold(watcher, async |mut watcher| {
        let lines = watcher.wait().await;
        Some((Ok::<_, Infallible>(lines), watcher))
    });
    let lines = stream::StreamExt::chain(stream::iter([Ok(first)]), rest);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

/// One caller's view of the cluster.
struct Watcher {
    api: Api,
    /// By what it is about: the newest change that was told.
    seen: BTreeMap<String, Change>,
}

impl Watcher {
    /// The next lines: changes, or an empty one if there is none for long.
    async fn wait(&mut self) -> Bytes {
        let mut waited = Duration::ZERO;
        while waited < KEEPALIVE {
            tokio::time::sleep(self.api.watch_every).await;
            waited += self.api.watch_every;
            // Managers that cannot be asked now can be asked later.
            match self.look().await {
                Ok(lines) if !lines.is_empty() => return lines,
                Ok(_) | Err(_) => {}
            }
        }
        Bytes::from_static(b"\n")
    }

    /// What is other than it was, as lines.
    async fn look(&mut self) -> Result<Bytes, ApiError> {
        let now = self.now().await?;
        let mut news: Vec<&Change> = Vec::new();
        let gone: Vec<Change> = self
            .seen
            .iter()
            .filter(|(key, _)| !now.contains_key(*key))
            .filter_map(|(_, change)| departure(change))
            .collect();
        news.extend(&gone);
        news.extend(
            now.iter()
                .filter(|(key, change)| self.seen.get(*key) != Some(change))
                .map(|(_, change)| change),
        );
        let mut lines = Vec::new();
        for change in news {
            if serde_json::to_writer(&mut lines, change).is_ok() {
                lines.push(b'\n');
            }
        }
        self.seen = now;
        Ok(lines.into())
    }

    async fn now(&self) -> Result<BTreeMap<String, Change>, ApiError> {
        let mut now = BTreeMap::new();
        for service in routes::services(&self.api).await? {
            let name = service.spec.name.clone();
            let service = Some(Box::new(service));
            now.insert(format!("service {name}"), Change::Service { name, service });
        }
        let nodes = routes::nodes(&self.api).await?;
        for agent in nodes.agents {
            now.insert(format!("node {}", agent.node), Change::Agent { agent });
        }
        let members = Change::Managers {
            managers: nodes.managers,
            leader: nodes.leader,
        };
        now.insert("managers".to_owned(), members);
        Ok(now)
    }
}

/// How it is told that something is gone. Nodes stay.
fn departure(change: &Change) -> Option<Change> {
    match change {
        Change::Service { name, .. } => Some(Change::Service {
            name: name.clone(),
            service: None,
        }),
        Change::Agent { .. } | Change::Managers { .. } => None,
    }
}
