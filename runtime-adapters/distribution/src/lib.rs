//! A client of registries: the pull side of the OCI distribution specification.
