//! The runtime port over an OCI runtime binary, with a monitor of our own per container.
