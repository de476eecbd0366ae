//! Leases: what is in the making belongs to one, until something else refers to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use wavetank_distribution::Digest;
use wavetank_port::runtime::Result;

use crate::api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, Resource,
};
use crate::connection::Connection;
use crate::daemon::Daemon;
use crate::error::{broken, failed, found};

/// After this time garbage collection may take what a lease holds, in case we died. Longer than
/// the longest pull that anybody waits for.
const LEASE_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A lease. Dropped before [`Lease::end`], it takes what it held with it, in the background.
pub(crate) struct Lease {
    daemon: Arc<Daemon>,
    /// Unique on this daemon for all time, and so good for naming what it holds.
    pub(crate) id: String,
    /// The connection whose calls it holds the results of.
    pub(crate) connection: Connection,
    ended: bool,
}

impl Lease {
    pub(crate) async fn begin(daemon: &Arc<Daemon>) -> Result<Self> {
        let expires = Timestamp::from(SystemTime::now() + LEASE_AGE_MAX).to_string();
        let request = CreateRequest {
            id: String::new(),
            labels: [("containerd.io/gc.expire".to_owned(), expires)].into(),
        };
        let answer = daemon.connection.leases().create(request).await;
        let lease = answer.map_err(failed("lease"))?.into_inner().lease;
        let id = lease.ok_or_else(|| broken("lease"))?.id;
        Ok(Lease {
            connection: daemon.connection.with_lease(&id)?,
            daemon: daemon.clone(),
            id,
            ended: false,
        })
    }

    /// Holds a blob that may be here already, or may come. Held first and looked for then, it
    /// cannot go in between.
    pub(crate) async fn hold_content(&self, digest: &Digest) -> Result<()> {
        self.hold("content".to_owned(), digest.to_string()).await
    }

    /// The same for a snapshot.
    pub(crate) async fn hold_snapshot(&self, key: &str) -> Result<()> {
        let kind = format!("snapshots/{}", self.daemon.config.snapshotter);
        self.hold(kind, key.to_owned()).await
    }

    async fn hold(&self, kind: String, id: String) -> Result<()> {
        let request = AddResourceRequest {
            id: self.id.clone(),
            resource: Some(Resource { id, r#type: kind }),
        };
        let answer = self.daemon.connection.leases().add_resource(request).await;
        answer.map(drop).map_err(failed("lease"))
    }

    /// Everything it held is referred to by something else now.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.ended = true;
        delete(&self.daemon, &self.id, false).await
    }

    /// Takes everything it held with it, and all other garbage.
    pub(crate) async fn discard(mut self) -> Result<()> {
        self.ended = true;
        delete(&self.daemon, &self.id, true).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (daemon, id) = (self.daemon.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move { delete(&daemon, &id, true).await });
        }
    }
}

/// With `collect`, answers after a garbage collection.
async fn delete(daemon: &Daemon, id: &str, collect: bool) -> Result<()> {
    let request = DeleteRequest {
        id: id.to_owned(),
        sync: collect,
    };
    let answer = daemon.connection.leases().delete(request).await;
    found(answer.map_err(failed("lease"))).map(drop)
}
