//! `wavetank-chaos-runtime`: see `wavetank_oci::chaos`.

fn main() {}
