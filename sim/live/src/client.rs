//! A plan's clients: the operator and those that put load on the store. Each is the client process
//! that managers' APIs use, on a thread of its own that stands in its host's network namespace.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use wavetank_fixtures::daemon::network_namespace;
use wavetank_model::{
    Incarnation, NodeId, Notice, Operation, OperationError, Outcome, RequestId, Timers,
};
use wavetank_node::driver::Submitter;
use wavetank_node::identity::Identity;
use wavetank_node::node::{Seat, run_client};
use wavetank_node::observer::Observer;
use wavetank_node::transport::{AddressBook, Limits, TransportConfig};
use wavetank_node::{Os, Platform as _};
use wavetank_trace::Payload;

use crate::log::{Log, Said};
use crate::translation::Translation;

/// What a client is made of.
pub struct ClientParts {
    /// Who it is in the plan.
    pub node: NodeId,
    /// Who it is to the managers.
    pub identity: Identity,
    /// Where the managers are.
    pub book: AddressBook,
    /// The cluster's timers.
    pub timers: Timers,
    /// The plan's words and the nodes'.
    pub translation: Arc<Translation>,
    /// Who is told.
    pub log: Log,
}

/// A client that can be asked; it ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    asker: UnboundedSender<Operation>,
    stopping: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Client {
    /// Starts it in a network namespace.
    ///
    /// # Errors
    /// If there is no thread or runtime for it, or the namespace cannot be entered.
    pub fn start(parts: ClientParts, namespace: &Path) -> io::Result<Self> {
        let namespace = namespace.to_owned();
        let (asker, questions) = unbounded_channel();
        let (stopping, stopped) = watch::channel(false);
        let (entered, is_in) = std::sync::mpsc::channel();
        let builder = thread::Builder::new().name(parts.node.to_string());
        let thread = builder.spawn(move || {
            let ready = network_namespace::enter(&namespace).and_then(|()| {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build()
            });
            match ready {
                Ok(runtime) => {
                    let _ = entered.send(Ok(()));
                    runtime.block_on(live(parts, questions, stopped));
                }
                Err(error) => {
                    let _ = entered.send(Err(error));
                }
            }
        })?;
        is_in
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the client's thread is gone")))?;
        Ok(Client {
            asker,
            stopping,
            thread: Some(thread),
        })
    }

    /// Asks for something, when everything before it was answered.
    pub fn ask(&self, operation: Operation) {
        // It ends only with this value.
        let _ = self.asker.send(operation);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed there.
            let _ = thread.join();
        }
    }
}

async fn live(
    parts: ClientParts,
    mut questions: UnboundedReceiver<Operation>,
    mut stopped: watch::Receiver<bool>,
) {
    let os = Os::new();
    let (submitter, submissions) = Submitter::channel(1);
    let ended = parts.log.clone();
    let (node, translation) = (parts.node, Arc::clone(&parts.translation));
    let seat = seat(parts, os);
    let asking = async {
        while let Some(operation) = questions.recv().await {
            let Ok(operation) = translation.operation(&operation) else {
                continue;
            };
            // Who asks learns the answer from the observer.
            let _ = submitter.submit(operation).await;
        }
    };
    let stop = async { _ = stopped.wait_for(|stopped| *stopped).await };
    let running = tokio::select! {
        biased;
        running = run_client(seat, submissions, stop) => running,
        () = asking => Ok(()),
    };
    if let Err(error) = running {
        let why = wavetank_node::serve::chain(&error);
        ended.say(os.wall(), Some(node), Said::Ended { life: 0, why });
    }
}

fn seat(parts: ClientParts, os: Os) -> Seat<Os> {
    Seat {
        platform: os,
        timers: parts.timers,
        network: TransportConfig {
            identity: Arc::new(parts.identity),
            incarnation: Incarnation(os.wall().0),
            listen: None,
            advertise: None,
            addresses: parts.book,
            limits: Limits::usual(),
            jitter: os.rng(),
        },
        observer: Arc::new(Witness {
            node: parts.node,
            translation: parts.translation,
            os,
            log: parts.log,
        }),
    }
}

/// Puts what a client asks and is answered into the run's log.
struct Witness {
    node: NodeId,
    translation: Arc<Translation>,
    os: Os,
    log: Log,
}

impl Witness {
    /// In the plan's words, the client by its planned number.
    fn say(&self, payload: &Payload) {
        let planned = serde_json::to_value(payload).and_then(|mut value| {
            self.translation.planned(&mut value);
            serde_json::from_value(value)
        });
        match planned {
            Ok(planned) => self
                .log
                .say(self.os.wall(), Some(self.node), Said::Event(planned)),
            Err(error) => tracing::warn!(%error, "a client said what no trace can hold"),
        }
    }

    fn planned(&self, request: RequestId) -> RequestId {
        RequestId {
            client: self.node,
            ..request
        }
    }
}

impl Observer for Witness {
    fn notice(&self, notice: Notice) {
        self.say(&Payload::Notice { notice });
    }

    fn invoked(&self, request: RequestId, operation: &Operation) {
        self.say(&Payload::ClientInvoked {
            request: self.planned(request),
            operation: operation.clone(),
        });
    }

    fn returned(&self, request: RequestId, result: &Result<Outcome, OperationError>) {
        self.say(&Payload::ClientReturned {
            request: self.planned(request),
            result: result.clone(),
        });
    }
}
