//! Puts what a node writes into its event log into the run's log, in the words of a trace.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wavetank_model::NodeId;
use wavetank_node::events::{NodeEvent, Record};
use wavetank_trace::{HostState, Payload};

use crate::log::{Log, Said};
use crate::tail::Tail;
use crate::translation::Translation;

/// How often a log is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Follows a node's event log for as long as it is polled.
pub async fn follow(node: NodeId, path: &Path, translation: Arc<Translation>, log: Log) {
    let mut tail = Tail::of(path);
    let mut has_complained = false;
    loop {
        match tail.read() {
            Ok(lines) => lines.into_iter().for_each(|line| {
                if let Some(record) = record(line, &translation) {
                    log.say(record.at, Some(node), Said::Event(payload(record.event)));
                }
            }),
            Err(error) if !has_complained => {
                has_complained = true;
                tracing::warn!(%node, %error, "its event log cannot be read");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn record(mut line: Value, translation: &Translation) -> Option<Record> {
    translation.planned(&mut line);
    let read = serde_json::from_value(line);
    read.inspect_err(|error| tracing::warn!(%error, "an event that no trace can hold"))
        .ok()
}

fn payload(event: NodeEvent) -> Payload {
    match event {
        NodeEvent::Started { incarnation, .. } => Payload::Host {
            state: HostState::Started,
            incarnation,
        },
        NodeEvent::Notice { notice } => Payload::Notice { notice },
        NodeEvent::RuntimeCalled {
            call,
            container,
            image,
        } => Payload::RuntimeCalled {
            call,
            container,
            image,
        },
        NodeEvent::RuntimeAnswered {
            call,
            container,
            error,
            listed,
        } => Payload::RuntimeAnswered {
            call,
            container,
            error,
            listed,
        },
    }
}
