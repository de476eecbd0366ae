//! The adapter against a service that answers as it is told to (`liar`): nonsense (`hostile`) or
//! what Podman says while something changes (`races`); and against a real one that is broken
//! (`events`, `kills`) or ended (`ends`).

mod ends;
mod events;
mod hostile;
mod kills;
mod liar;
mod races;

use std::time::Duration;

use tempfile::TempDir;
use wavetank_fixtures::daemon::podman::{PodmanDaemon, PodmanSettings};
use wavetank_fixtures::{Program, Registry, TestImage};
use wavetank_podman::{Endpoint, Podman, PodmanConfig};
use wavetank_port::{ContainerId, ContainerRuntime as _, ContainerSpec, Network, PullRequest};

/// Long, because a loaded machine is no finding.
const CALL: Duration = Duration::from_secs(30);

/// The namespace of every test.
const NAMESPACE: &str = "test";

/// A client of the service on this socket.
fn client(socket: std::path::PathBuf) -> Podman {
    Podman::new(PodmanConfig {
        endpoint: Endpoint::Unix(socket),
        namespace: NAMESPACE.parse().expect("a namespace"),
    })
}

/// A private service with the test images at hand.
struct Real {
    podman: Podman,
    // Dropped before the folder that it lives in.
    daemon: PodmanDaemon,
    registry: Registry,
    _folder: TempDir,
}

impl Real {
    /// `None` where it cannot be had; says so, or fails where skipping is forbidden.
    async fn start(settings: &PodmanSettings) -> Option<Self> {
        let found = ["podman", "conmon", "runc"].map(is_installed);
        if found.contains(&false) || !rustix::process::geteuid().is_root() {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            let why = "needs root, podman, conmon and runc; run ci/setup-runtimes";
            assert!(required.is_none_or(|it| it.is_empty()), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("wt-podman-").tempdir();
        let folder = folder.expect("a folder");
        let daemon = PodmanDaemon::start(folder.path(), settings).await;
        let daemon = daemon.expect("a service");
        let registry = Registry::start_with_test_images().await;
        let real = Real {
            podman: client(daemon.socket()),
            daemon,
            registry: registry.expect("a registry"),
            _folder: folder,
        };
        let pull = PullRequest::of(real.registry.test_image(TestImage::Tool));
        real.podman.pull(&pull, CALL * 2).await.expect("an image");
        Some(real)
    }

    /// A container that runs `program`.
    fn spec(&self, id: &str, program: &Program) -> ContainerSpec {
        ContainerSpec {
            command: program.command(),
            network: Network::None,
            ..ContainerSpec::of(
                ContainerId(id.to_owned()),
                self.registry.test_image(TestImage::Tool),
            )
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(usual);
    folders.any(|folder| folder.join(program).is_file())
}
