//! One connection to the daemon. It is made at the first call and made again after it broke, by
//! tonic; a call during which it breaks fails with `Unavailable`.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use wavetank_port::{ErrorClass, RuntimeError};

use crate::api::containerd::services;

/// The longest message that is taken. The daemon's own limit for what it sends
/// (`max_send_message_size`).
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What every client of a service is made of.
pub(crate) type Wire = InterceptedService<Channel, Headers>;

/// The connection, as one namespace and perhaps one lease. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    headers: Headers,
}

/// Says with each call in which namespace it is and which lease holds what it makes.
#[derive(Clone)]
pub(crate) struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// One function per service.
macro_rules! clients {
    ($($name:ident: $module:ident :: $client:ident,)*) => {$(
        pub(crate) fn $name(&self) -> services::$name::v1::$module::$client<Wire> {
            services::$name::v1::$module::$client::with_interceptor(
                self.channel.clone(),
                self.headers.clone(),
            )
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
        }
    )*};
}

impl Connection {
    /// Connects when first used.
    pub(crate) fn new(socket: PathBuf, namespace: &str) -> Result<Self, RuntimeError> {
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Ok(Connection {
            // The name is never looked up: the connector knows where to go.
            channel: Endpoint::from_static("http://containerd")
                .connect_with_connector_lazy(connector),
            headers: Headers {
                namespace: header(namespace)?,
                lease: None,
            },
        })
    }

    /// The same connection; what its calls make is held by the lease `id`.
    pub(crate) fn with_lease(&self, id: &str) -> Result<Self, RuntimeError> {
        let mut leased = self.clone();
        leased.headers.lease = Some(header(id)?);
        Ok(leased)
    }

    clients! {
        containers: containers_client::ContainersClient,
        content: content_client::ContentClient,
        diff: diff_client::DiffClient,
        events: events_client::EventsClient,
        images: images_client::ImagesClient,
        leases: leases_client::LeasesClient,
        namespaces: namespaces_client::NamespacesClient,
        snapshots: snapshots_client::SnapshotsClient,
        tasks: tasks_client::TasksClient,
        transfer: transfer_client::TransferClient,
        version: version_client::VersionClient,
    }
}

fn header(value: &str) -> Result<MetadataValue<Ascii>, RuntimeError> {
    value.parse().map_err(|_| {
        RuntimeError::new(
            ErrorClass::InvalidArgument,
            format!("`{value}` cannot be sent as a name"),
        )
    })
}
