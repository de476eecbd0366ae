//! How an adapter is set up. Nothing has a default: whoever runs containers says where.

use std::path::{Path, PathBuf};

use wavetank_distribution::Registries;
use wavetank_port::{ErrorClass, RuntimeError};

use crate::deadline::Result;
use crate::monitor::MonitorProgram;
use crate::sealed::checksum;

/// How to reach and run an OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where images, containers and volumes are kept. One folder is one namespace: adapters with
    /// the same root see the same containers, others see none of them.
    pub root: PathBuf,
    /// Where the OCI runtime keeps its own state (`--root`). May be lost at a reboot.
    pub runtime_root: PathBuf,
    /// The OCI runtime's binary: runc, crun, youki. A name without a slash is looked up in `PATH`.
    pub runtime: PathBuf,
    /// What to run as the containers' monitors.
    pub monitor: MonitorProgram,
    /// How to reach registries.
    pub registries: Registries,
}

impl Config {
    /// The cgroup of all containers of this root, from the root of each hierarchy: two roots may
    /// have containers of the same id.
    pub fn cgroup(&self) -> String {
        let root = self.root.as_os_str().as_encoded_bytes();
        format!("wavetank-{}", checksum(root))
    }

    /// Both roots must be absolute, and the first can stand in the options of an overlay mount.
    pub fn check(&self) -> Result<()> {
        for root in [&self.root, &self.runtime_root] {
            if !root.is_absolute() {
                return Err(invalid(root, "is not absolute"));
            }
        }
        match self.root.to_str() {
            Some(text) if !text.contains([':', ',', '\\', '"']) => Ok(()),
            _ => Err(invalid(
                &self.root,
                "has a character that overlayfs cannot take",
            )),
        }
    }
}

fn invalid(path: &Path, problem: &str) -> RuntimeError {
    let message = format!("the folder {} {problem}", path.display());
    RuntimeError::new(ErrorClass::InvalidArgument, message)
}
