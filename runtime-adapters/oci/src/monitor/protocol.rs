//! What an adapter and a monitor say to each other: one request and one reply per connection, each
//! one line of JSON that begins with the protocol's version.

use serde::{Deserialize, Serialize};
use wavetank_port::RuntimeError;

/// A monitor refuses other versions than its own. Both sides are the same program, so this only
/// meets containers that outlived an upgrade of the protocol.
pub const VERSION: u32 = 1;

/// No line is longer, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What a monitor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Have the OCI runtime create the container. First command to a new container's monitor.
    Create,
    /// Take over a container whose monitor died. First command to such a container's monitor.
    Adopt,
    /// Have the OCI runtime start the process.
    Start,
}

/// A command to a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    pub verb: Verb,
}

/// A monitor's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// `None`: done.
    pub error: Option<RuntimeError>,
}

impl Reply {
    /// The answer that carries `result`.
    pub fn of(result: Result<(), RuntimeError>) -> Self {
        Reply {
            version: VERSION,
            error: result.err(),
        }
    }
}
