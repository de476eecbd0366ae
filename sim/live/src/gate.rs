//! A way from a host's loopback to the registry of the run. Every host finds the registry at the
//! same address on its own loopback, to which runtimes speak plain HTTP without being told.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wavetank_fixtures::daemon::network_namespace;

/// A gate is open until it is dropped; connections end with it.
#[derive(Debug)]
pub struct Gate {
    // Dropping a set of tasks aborts them.
    _accepting: JoinSet<()>,
}

impl Gate {
    /// Listens at `address` in a network namespace, and connects whoever comes to the same address
    /// here.
    ///
    /// # Errors
    /// If the address cannot be had there.
    pub async fn open(namespace: &Path, address: SocketAddr) -> io::Result<Self> {
        let namespace: PathBuf = namespace.to_owned();
        let bound = tokio::task::spawn_blocking(move || {
            network_namespace::within(&namespace, || std::net::TcpListener::bind(address))
        });
        let listener = bound.await.map_err(io::Error::other)??;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, address));
        Ok(Gate {
            _accepting: accepting,
        })
    }
}

async fn accept(listener: TcpListener, address: SocketAddr) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.spawn(pass(stream, address));
                }
                // Out of descriptors: others will close some.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
        }
    }
}

async fn pass(mut inner: TcpStream, address: SocketAddr) {
    if let Ok(mut outer) = TcpStream::connect(address).await {
        // Either side may go at any time.
        let _ = copy_bidirectional(&mut inner, &mut outer).await;
    }
}
