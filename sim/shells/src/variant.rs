//! The shell that runs: the one that ships, or one that was broken on purpose by somebody who wants
//! to see it caught. Only what the shell reaches through a port can be replaced; the shell itself
//! cannot.

use redb::StorageBackend;
use wavetank_node::Platform;

use crate::platter::Platter;

/// What stands between the shell and its machine.
pub trait Variant: Clone + Send + Sync + 'static {
    /// A machine as the shell sees it.
    type Platform<P: Platform>: Platform;
    /// A disk as the shell sees it.
    type Storage: StorageBackend;

    /// Puts itself around a machine.
    fn platform<P: Platform>(&self, platform: P) -> Self::Platform<P>;

    /// Puts itself around a disk.
    fn storage(&self, disk: Platter) -> Self::Storage;
}

/// Nothing stands between.
#[derive(Clone, Copy, Debug)]
pub struct Shipped;

impl Variant for Shipped {
    type Platform<P: Platform> = P;
    type Storage = Platter;

    fn platform<P: Platform>(&self, platform: P) -> P {
        platform
    }

    fn storage(&self, disk: Platter) -> Platter {
        disk
    }
}
