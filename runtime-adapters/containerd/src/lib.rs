//! The runtime port over containerd's gRPC API.
