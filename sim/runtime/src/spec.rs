//! What the simulated runtime refuses to create, and how it completes the names of images.

use wavetank_port::{ContainerSpec, ErrorClass, ImageReference, RuntimeError};

/// The longest id or volume name, in bytes: the shortest limit among the real runtimes, which is
/// containerd's (its package `identifiers`).
const NAME_BYTES_MAX: usize = 76;

/// Refuses ids, volumes and signals that a real runtime would refuse.
pub fn check(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    if !is_name(&spec.id.0) {
        return Err(invalid(format!("`{}` cannot be an id", spec.id)));
    }
    if let Some(volume) = spec.volumes.iter().find(|volume| !is_name(volume)) {
        return Err(invalid(format!("`{volume}` cannot be a volume")));
    }
    match spec.stop_signal {
        Some(signal) if !signal.is_valid() => {
            Err(invalid(format!("{} is no signal", signal.number())))
        }
        _ => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && letters
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || b"_.-".contains(&letter))
}

fn invalid(message: String) -> RuntimeError {
    RuntimeError::new(ErrorClass::InvalidArgument, message)
}

/// The name with its tag; without tag and digest, the tag is `latest`.
pub fn complete(image: &ImageReference) -> ImageReference {
    let last = image.0.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        return image.clone();
    }
    ImageReference(format!("{image}:latest"))
}
