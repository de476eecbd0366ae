//! Connections to managers: made when there is something to say and nothing to say it over, and
//! made again, after growing pauses, for as long as that is so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use wavetank_model::NodeId;

use super::connection::{self, Framed};
use super::link::{Direction, Link};
use super::meter::Metered;
use super::{Context, Counters, Limits};
use crate::identity;
use crate::platform::Platform;
use crate::wire::{Frame, Hello};

/// Serves one peer for ever.
pub(super) async fn run<P: Platform>(context: Context<P>, link: Arc<Link>) {
    let mut pauses = Pauses::new(&context, link.peer);
    loop {
        let address = wanted(&context, &link).await;
        let began = context.platform.now();
        if let Err(error) = serve(&context, &link, &address).await {
            failed(&context, &link, &error).await;
        }
        let lasted = context.platform.now().since(began);
        context.platform.sleep(pauses.after(lasted)).await;
    }
}

/// One connection from its beginning to its end; fails if it did not come to be.
async fn serve<P: Platform>(context: &Context<P>, link: &Arc<Link>, at: &str) -> io::Result<()> {
    let (hello, framed) = dial(context, link, at).await?;
    let (dialled, first) = (Direction::Dialled, BytesMut::new());
    connection::run(context, link, dialled, hello, framed, first).await?;
    Ok(())
}

/// Waits until a connection is needed and can be made; answers where to.
async fn wanted<P: Platform>(context: &Context<P>, link: &Link) -> String {
    let mut book = context.shared.book.subscribe();
    loop {
        let address = book.look().get(link.peer).map(str::to_owned);
        if let Some(address) = address
            && link.needs_connection()
        {
            return address;
        }
        tokio::select! {
            biased;
            () = link.wanted.notified() => {}
            () = book.changed() => {}
        }
    }
}

async fn failed<P: Platform>(context: &Context<P>, link: &Link, error: &io::Error) {
    context.shared.counters.dials_failed.add(1);
    context.complain(&link.peer, error);
    // Its machine answers, and its process does not: that is what a dead process looks like.
    // Anything else may be the network.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    ) {
        context.lost(link).await;
    }
}

async fn dial<P: Platform>(
    context: &Context<P>,
    link: &Link,
    address: &str,
) -> io::Result<(Hello, Framed<P>)> {
    let (shared, peer) = (&context.shared, link.peer);
    shared.counters.dials.add(1);
    let platform = &context.platform;
    let name = ServerName::try_from(identity::name_of(peer)).map_err(io::Error::other)?;
    let hello = Frame::Hello(shared.hello(link));
    let answer = ask(
        platform,
        shared.tls().client,
        name,
        address,
        &hello,
        &shared.limits,
        &shared.counters,
    );
    let answer = platform.within(shared.limits.handshake_timeout, answer);
    match answer
        .await
        .unwrap_or(Err(io::ErrorKind::TimedOut.into()))?
    {
        (Frame::Hello(hello), framed) if hello.node == peer => Ok((hello, framed)),
        (Frame::Refused { why }, _) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
        (other, _) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected hello of {peer}, got {other:?}"),
        )),
    }
}

/// TCP, TLS, the first frame, and the one that answers it. May take for ever: callers bound it.
pub(crate) async fn ask<P: Platform>(
    platform: &P,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
    address: &str,
    first: &Frame,
    limits: &Limits,
    counters: &Arc<Counters>,
) -> io::Result<(Frame, Framed<P>)> {
    let stream = platform.connect(address).await?;
    let metered = Metered::new(stream, counters.clone());
    let stream = TlsConnector::from(tls).connect(name, metered).await?;
    let mut framed = Framed::new(stream.into(), limits.first_frame_bytes_max);
    framed.send(first).await?;
    let answer = framed.receive().await?;
    Ok((answer, framed))
}

/// Growing pauses between attempts, each with a random part, so that nodes that lost somebody
/// together do not come back together.
struct Pauses {
    min: Duration,
    max: Duration,
    next: Duration,
    jitter: ChaCha8Rng,
}

impl Pauses {
    fn new<P: Platform>(context: &Context<P>, peer: NodeId) -> Self {
        let limits = &context.shared.limits;
        let mut jitter = context.shared.jitter.clone();
        jitter.set_stream((u64::from(peer.number) << 8) | peer.role as u64);
        Pauses {
            min: limits.reconnect_min,
            max: limits.reconnect_max,
            next: limits.reconnect_min,
            jitter,
        }
    }

    /// After an attempt or a connection that lasted so long: between half of what it is time for
    /// and all of it. Only a connection that lasted makes it short again.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted > self.max {
            self.next = self.min;
        }
        let base = self.next;
        self.next = (base * 2).min(self.max);
        let half = u64::try_from((base / 2).as_nanos()).unwrap_or(u64::MAX);
        base / 2 + Duration::from_nanos(self.jitter.next_u64() % half.max(1))
    }
}
