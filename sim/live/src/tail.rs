//! Reads a node's event log while it is written.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The end of a file, line by line. A line is given once it is whole.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    begun: Vec<u8>,
}

impl Tail {
    /// Of a file that may not exist yet.
    pub fn of(path: &Path) -> Self {
        Tail {
            path: path.to_owned(),
            file: None,
            begun: Vec::new(),
        }
    }

    /// What was written since the last time. Lines that are no JSON were cut off by a kill.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<Value>> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.begun)?;
        }
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = whole else {
            return Ok(Vec::new());
        };
        let lines: Vec<u8> = self.begun.drain(..=end).collect();
        let lines = lines.split(|byte| *byte == b'\n');
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn lines_come_whole_and_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log");
        let mut tail = Tail::of(&path);
        assert!(tail.read()?.is_empty());
        let mut file = File::create(&path)?;
        file.write_all(b"{\"a\":1}\n{\"a\":")?;
        assert_eq!(tail.read()?, [json!({ "a": 1 })]);
        file.write_all(b"2}\n{\"cut\n{\"a\":3}\n")?;
        assert_eq!(tail.read()?, [json!({ "a": 2 }), json!({ "a": 3 })]);
        assert!(tail.read()?.is_empty());
        Ok(())
    }
}
