//! Runs for machines: JSON Lines, one object per run.

use serde::Serialize;

/// One value, one line, with its newline.
///
/// # Errors
/// Only if the value's own serialisation fails, which no type of this crate does.
pub fn line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    Ok(line)
}
