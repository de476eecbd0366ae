//! Connections that others make: who they are, and how many of them there may be.
//!
//! Whoever has not said who he is holds a place only until too many do; then the one that has
//! waited longest goes. A flood of silent connections therefore costs a bounded amount, and a
//! peer that knows what to say gets in all the same.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use wavetank_model::NodeId;

use super::Context;
use super::connection::{self, Framed};
use super::link::{ConnectionId, Direction};
use super::meter::Metered;
use crate::identity;
use crate::platform::{Platform, Task};
use crate::wire::{self, Frame, Hello};

/// The pause after a failure to accept: the machine is out of something.
const PAUSE: Duration = Duration::from_millis(100);

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
                admit(&context, &mut guests, ticket, stream, from);
            }
            Err(error) => {
                context.complain(&"the listening socket", &error);
                context.platform.sleep(PAUSE).await;
            }
        }
    }
}

fn admit<P: Platform>(
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

/// What a new connection turned out to be.
enum Visitor<P: Platform> {
    Peer(Hello, Framed<P>),
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
    let visitor = greeted.inspect_err(|_| shared.counters.handshakes_failed.add(1))?;
    ticket.known();
    match visitor {
        Visitor::Peer(hello, framed) => {
            let link = shared.link(hello.node);
            let mut first = BytesMut::new();
            wire::encode(&Frame::Hello(shared.hello()), &mut first);
            connection::run(context, &link, Direction::Accepted, hello, framed, first).await
        }
    }
}

/// TLS, then the first frame.
async fn greet<P: Platform>(context: &Context<P>, stream: P::Stream) -> io::Result<Visitor<P>> {
    let acceptor = TlsAcceptor::from(context.shared.tls().server);
    let stream = acceptor.accept(Metered::new(stream)).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let node = match certificates.and_then(<[_]>::first) {
        Some(certificate) => Some(identity::node_of(certificate).map_err(io::Error::other)?),
        None => None,
    };
    let limits = &context.shared.limits;
    let mut framed = Framed::new(stream.into(), limits.first_frame_bytes_max);
    let first = framed.receive().await?;
    match sort(context, node, first) {
        Ok(hello) => Ok(Visitor::Peer(hello, framed)),
        Err(why) => {
            framed.send(&Frame::Refused { why: why.clone() }).await?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
    }
}

/// What somebody who proved to be `node` may begin with.
fn sort<P: Platform>(
    context: &Context<P>,
    node: Option<NodeId>,
    first: Frame,
) -> Result<Hello, String> {
    match (node, first) {
        (Some(node), Frame::Hello(hello)) if hello.node != node => Err(format!(
            "the certificate is for {node}, not for {}",
            hello.node
        )),
        (Some(node), Frame::Hello(_)) if node == context.shared.node => {
            Err("this node talks to itself".to_owned())
        }
        (Some(_), Frame::Hello(hello)) => Ok(hello),
        (None, _) => Err("only a node with a certificate may do that".to_owned()),
        (Some(_), _) => Err("a connection begins with hello".to_owned()),
    }
}
