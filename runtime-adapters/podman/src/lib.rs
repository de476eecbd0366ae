//! The runtime port over Podman's REST API.
