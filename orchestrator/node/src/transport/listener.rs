//! Connections that others make: who they are, and how many of them there may be.
//!
//! Whoever has not said who he is holds a place only until too many do; then the one that has
//! waited longest goes. A flood of silent connections therefore costs a bounded amount, and a
//! peer that knows what to say gets in all the same.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use wavetank_model::NodeId;

use super::Context;
use super::connection::{self, End, Framed};
use super::link::{ConnectionId, Direction};
use super::meter::Metered;
use crate::admission::Admission;
use crate::identity;
use crate::platform::{Platform, Task};
use crate::wire::{self, Frame, Hello, Join};

/// The pause after a failure to accept: the machine is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What guessing at tokens costs.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// What a connection tells the listener of itself.
enum Progress {
    /// It has said who it is.
    Known(ConnectionId),
    /// It is over.
    Over(ConnectionId),
}

/// A connection's line to the listener.
struct Ticket {
    id: ConnectionId,
    progress: mpsc::UnboundedSender<Progress>,
}

impl Ticket {
    fn known(&self) {
        // The listener ends this connection when it ends, so that nobody is left to be told.
        let _ = self.progress.send(Progress::Known(self.id));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.progress.send(Progress::Over(self.id));
    }
}

/// The connections that others made. Dropping one ends it.
#[derive(Default)]
struct Guests {
    unknown: BTreeMap<ConnectionId, Task>,
    known: BTreeMap<ConnectionId, Task>,
}

impl Guests {
    fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Known(id) => {
                if let Some(task) = self.unknown.remove(id) {
                    self.known.insert(*id, task);
                }
            }
            Progress::Over(id) => {
                self.unknown.remove(id);
                self.known.remove(id);
            }
        }
    }
}

/// Accepts connections for ever.
pub(super) async fn run<P: Platform>(context: Context<P>, mut listener: P::Listener) {
    let (progress, mut told) = mpsc::unbounded_channel();
    let mut guests = Guests::default();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(progress) = told.recv() => {
                guests.note(&progress);
                continue;
            }
            accepted = context.platform.accept(&mut listener) => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let ticket = Ticket {
                    id: context.next_id(),
                    progress: progress.clone(),
                };
                seat(&context, &mut guests, ticket, stream, from);
            }
            Err(error) => {
                context.complain(&"the listening socket", &error);
                context.platform.sleep(PAUSE).await;
            }
        }
    }
}

fn seat<P: Platform>(
    context: &Context<P>,
    guests: &mut Guests,
    ticket: Ticket,
    stream: P::Stream,
    from: SocketAddr,
) {
    let shared = &context.shared;
    shared.counters.connections_accepted.add(1);
    let limits = &shared.limits;
    if guests.known.len() >= limits.connections_max {
        shared.counters.connections_refused.add(1);
        return context.complain(&from, &"too many connections");
    }
    while guests.unknown.len() >= limits.handshakes_max {
        guests.unknown.pop_first();
        shared.counters.connections_refused.add(1);
        context.complain(
            &from,
            &"too many unknown connections: the oldest is dropped",
        );
    }
    let id = ticket.id;
    let task = context.platform.spawn({
        let context = context.clone();
        async move {
            if let Err(error) = serve(&context, &ticket, stream).await {
                context.complain(&from, &error);
            }
        }
    });
    guests.unknown.insert(id, task);
}

/// What a new connection turned out to be for.
enum Wish {
    Talk(Hello),
    Certificate(Plea),
}

/// What a certificate is asked for with.
enum Plea {
    Token(Join),
    OlderCertificate(NodeId, Bytes),
}

async fn serve<P: Platform>(
    context: &Context<P>,
    ticket: &Ticket,
    stream: P::Stream,
) -> io::Result<()> {
    let shared = &context.shared;
    let timeout = shared.limits.handshake_timeout;
    let greeted = context
        .platform
        .within(timeout, greet(context, stream))
        .await;
    let greeted = greeted.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
    let (wish, mut framed) = greeted.inspect_err(|_| shared.counters.handshakes_failed.add(1))?;
    let hello = match wish {
        Wish::Talk(hello) => hello,
        Wish::Certificate(plea) => return admit(context, ticket, plea, &mut framed).await,
    };
    ticket.known();
    let link = shared.link(hello.node);
    let mut first = BytesMut::new();
    wire::encode(&Frame::Hello(shared.hello(&link)), &mut first);
    let accepted = Direction::Accepted;
    match connection::run(context, &link, accepted, hello, framed, first).await? {
        End::Broken(error) => Err(error),
        End::Stuck | End::Superseded | End::Stopped => Ok(()),
    }
}

/// TLS, then the first frame.
async fn greet<P: Platform>(
    context: &Context<P>,
    stream: P::Stream,
) -> io::Result<(Wish, Framed<P>)> {
    let acceptor = TlsAcceptor::from(context.shared.tls().server);
    let metered = Metered::new(stream, context.shared.counters.clone());
    let stream = acceptor.accept(metered).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let node = certificates
        .and_then(<[_]>::first)
        .map(identity::node_of)
        .transpose()
        .map_err(io::Error::other)?;
    let limits = &context.shared.limits;
    let mut framed = Framed::new(stream.into(), limits.first_frame_bytes_max);
    let first = framed.receive().await?;
    match sort(context.shared.node, node, first) {
        Ok(wish) => Ok((wish, framed)),
        Err(why) => Err(connection::refuse(context, &mut framed, why).await),
    }
}

/// What somebody who proved to be `node` may begin with, if `own` is asked.
fn sort(own: NodeId, node: Option<NodeId>, first: Frame) -> Result<Wish, String> {
    match (node, first) {
        (Some(node), Frame::Hello(hello)) if hello.node != node => Err(format!(
            "the certificate is for {node}, not for {}",
            hello.node
        )),
        (Some(node), Frame::Hello(_)) if node == own => Err(format!("only one node is {own}")),
        (Some(_), Frame::Hello(hello)) => Ok(Wish::Talk(hello)),
        (Some(node), Frame::Renew { request }) => {
            Ok(Wish::Certificate(Plea::OlderCertificate(node, request)))
        }
        (None, Frame::Join(join)) => Ok(Wish::Certificate(Plea::Token(join))),
        (None, _) => Err("only a node with a certificate may do that".to_owned()),
        (Some(_), _) => Err("a connection does not begin like that".to_owned()),
    }
}

/// Answers somebody who wants a certificate.
async fn admit<P: Platform>(
    context: &Context<P>,
    ticket: &Ticket,
    plea: Plea,
    framed: &mut Framed<P>,
) -> io::Result<()> {
    let shared = &context.shared;
    let refuse = async |framed: &mut Framed<P>, why: String| {
        shared.counters.admissions_refused.add(1);
        Err(connection::refuse(context, framed, why).await)
    };
    let Some(admission) = shared.admission.get() else {
        return refuse(framed, "this node admits nobody".to_owned()).await;
    };
    // Held for the pause after a refusal as well: guessing goes no faster for guessing at once.
    let Ok(_permit) = shared.admissions.try_acquire() else {
        return refuse(framed, "too many nodes are joining: try again".to_owned()).await;
    };
    ticket.known();
    let granted = decide(context, admission, plea);
    let granted = context
        .platform
        .within(shared.limits.admission_timeout, granted)
        .await;
    match granted.unwrap_or(Err(
        "the managers do not agree in time: try again".to_owned()
    )) {
        Ok(granted) => {
            shared.counters.admissions_granted.add(1);
            let timeout = shared.limits.handshake_timeout;
            let sent = context
                .platform
                .within(timeout, framed.send(&granted))
                .await;
            sent.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
        }
        Err(why) => {
            context.platform.sleep(PAUSE_AFTER_REFUSAL).await;
            refuse(framed, why).await
        }
    }
}

async fn decide<P: Platform>(
    context: &Context<P>,
    admission: &Admission,
    plea: Plea,
) -> Result<Frame, String> {
    let now = context.platform.wall();
    match plea {
        Plea::Token(join) => {
            let shared = &context.shared;
            let managers = (shared.node, shared.book.get());
            admission.join(&join, now, managers).await
        }
        Plea::OlderCertificate(node, request) => admission.renew(node, &request, now),
    }
}
