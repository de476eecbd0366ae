//! The rolling digest by which two runs are equal.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// Rolling digest over everything that happened, in order. xxh3-128: fast, and no defence against
/// forgery is needed.
#[derive(Clone)]
pub struct Digest {
    state: Xxh3,
}

impl Digest {
    /// The digest of nothing.
    pub fn new() -> Self {
        Digest { state: Xxh3::new() }
    }

    /// Adds one number.
    pub fn number(&mut self, number: u64) {
        self.state.update(&number.to_le_bytes());
    }

    /// Adds numbers, at one go.
    pub fn numbers<const N: usize>(&mut self, numbers: &[u64; N]) {
        let mut bytes = [[0; 8]; N];
        for (bytes, number) in bytes.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
        self.state.update(bytes.as_flattened());
    }

    /// Adds bytes, with their length, so that no two sequences look alike.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.state.update(bytes);
    }

    /// The digest so far.
    pub fn value(&self) -> u128 {
        self.state.digest128()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Digest::new()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.value())
    }
}
