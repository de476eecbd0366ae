//! What a container wrote: two files that its shim appends to.
//!
//! The shim is given their paths where it expects named pipes, and opens what it finds: that way
//! no byte depends on us being there. (With a `file://` address it would write both outputs to the
//! first.) The price is that nobody notes the times and nobody limits the size. All output is in
//! them once the task is deleted: that is what is waited for before the end of an ended container's
//! log is told.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use wavetank_port::{
    ContainerId, ErrorClass, LogChunk, LogOptions, LogStream, OutputStream, runtime::Result,
};

use crate::daemon::Daemon;
use crate::error::error;
use crate::lifecycle::local;
use crate::observe::Phase;

/// The longest piece, in bytes.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Between two looks at files that somebody else writes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Makes the files for the shim to append to, and says where they are: stdout, stderr. They are
/// empty: what a start wrote that was cut off is not the container's.
pub(crate) async fn make_files(dir: &Path) -> std::io::Result<(PathBuf, PathBuf)> {
    tokio::fs::create_dir_all(dir).await?;
    let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
    for path in [&stdout, &stderr] {
        let mut options = tokio::fs::OpenOptions::new();
        options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .await?;
    }
    Ok((stdout, stderr))
}

/// One output's file, read from front to back.
struct Tail {
    stream: OutputStream,
    /// Absent until there is something in it.
    file: Option<File>,
    offset: u64,
    /// Nothing is read from here on: what was there when a log without follow was asked for.
    end: Option<u64>,
}

/// A log being read.
struct FileLog {
    id: ContainerId,
    dir: PathBuf,
    /// The one that was read least recently is first.
    tails: [Tail; 2],
    /// Waits for the process to end; empty once it has.
    ending: JoinSet<()>,
}

impl Daemon {
    pub(crate) async fn logs(
        self: Arc<Self>,
        id: ContainerId,
        options: LogOptions,
    ) -> Result<Box<dyn LogStream>> {
        if options.since.is_some() || options.until.is_some() {
            let message = format!("container {id}: its log has no times to select by");
            return Err(error(ErrorClass::InvalidArgument, message));
        }
        let observed = self.observe(&id).await?;
        let mut ending = JoinSet::new();
        match observed.phase {
            Phase::Exited(_) => self.delete_task(&id).await?,
            Phase::Running { .. } | Phase::Paused { .. } if options.follow => {
                let (daemon, id) = (self.clone(), id.clone());
                ending.spawn(async move { daemon.wait_until_written(&id).await });
            }
            _ => {}
        }
        let dir = observed.record.log_dir;
        let open = |stream| Tail::open(&dir, stream, &options, !ending.is_empty());
        let tails = [open(OutputStream::Stdout), open(OutputStream::Stderr)];
        let [stdout, stderr] = tails.map(|it| it.map_err(|cause| local(&id, &cause)));
        Ok(Box::new(FileLog {
            tails: [stdout?, stderr?],
            id,
            dir,
            ending,
        }))
    }

    /// Answers when the process has ended and its output is in the files.
    async fn wait_until_written(&self, id: &ContainerId) {
        // Deleted meanwhile, or out of reach for good: there is nothing to come either way.
        if self.wait(id).await.is_ok() {
            let _ = self.delete_task(id).await;
        }
    }
}

#[async_trait]
impl LogStream for FileLog {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            // Asked before reading: what comes between the two is read in the next round.
            let ended = self.ending.is_empty();
            if let Some(chunk) = self.read().map_err(|cause| local(&self.id, &cause))? {
                return Ok(Some(chunk));
            }
            if ended {
                return Ok(None);
            }
            tokio::select! {
                _ = self.ending.join_next() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

impl FileLog {
    fn read(&mut self) -> std::io::Result<Option<LogChunk>> {
        for _ in 0..2 {
            // Takes turns, so that a flood on one output does not hide the other.
            self.tails.swap(0, 1);
            if let Some(chunk) = self.tails[1].read(&self.dir)? {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }
}

impl Tail {
    fn open(
        dir: &Path,
        stream: OutputStream,
        options: &LogOptions,
        follow: bool,
    ) -> std::io::Result<Self> {
        let mut tail = Tail {
            stream,
            file: None,
            offset: 0,
            end: None,
        };
        tail.open_file(dir)?;
        let size = tail
            .file
            .as_ref()
            .map_or(Ok(0), |it| it.metadata().map(|it| it.len()))?;
        if let (Some(file), Some(lines)) = (&tail.file, options.tail_lines) {
            tail.offset = start_of_last_lines(file, size, lines)?;
        }
        if !follow {
            tail.end = Some(size);
        }
        Ok(tail)
    }

    fn open_file(&mut self, dir: &Path) -> std::io::Result<()> {
        let name = match self.stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        match File::open(dir.join(name)) {
            Ok(file) => self.file = Some(file),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    fn read(&mut self, dir: &Path) -> std::io::Result<Option<LogChunk>> {
        if self.file.is_none() {
            self.open_file(dir)?;
        }
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let left = self.end.map_or(u64::MAX, |end| end - self.offset);
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES_MAX);
        let mut bytes = vec![0; room];
        let length = file.read_at(&mut bytes, self.offset)?;
        bytes.truncate(length);
        self.offset += length as u64;
        Ok((length > 0).then_some(LogChunk {
            stream: self.stream,
            at: None,
            bytes,
        }))
    }
}

/// Where the last `lines` lines of a file of `size` bytes begin. A last line without its end is a
/// line.
fn start_of_last_lines(file: &File, size: u64, lines: usize) -> std::io::Result<u64> {
    if lines == 0 {
        return Ok(size);
    }
    let mut ends = 0;
    let mut block_end = size;
    let mut block = vec![0; CHUNK_BYTES_MAX];
    while block_end > 0 {
        let block_start = block_end.saturating_sub(CHUNK_BYTES_MAX as u64);
        let length = usize::try_from(block_end - block_start).unwrap_or(CHUNK_BYTES_MAX);
        file.read_exact_at(&mut block[..length], block_start)?;
        for index in (0..length).rev() {
            let place = block_start + index as u64;
            // The end of the last line is not between two lines.
            if block[index] == b'\n' && place + 1 < size {
                ends += 1;
                if ends == lines {
                    return Ok(place + 1);
                }
            }
        }
        block_end = block_start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::start_of_last_lines;

    fn last_lines(text: &[u8], lines: usize) -> Vec<u8> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text).expect("room");
        let start = start_of_last_lines(&file, text.len() as u64, lines).expect("readable");
        text[usize::try_from(start).expect("within the text")..].to_vec()
    }

    #[test]
    fn last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(last_lines(b"a\n", 5), b"a\n");
        assert_eq!(last_lines(b"a\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
        assert_eq!(last_lines(b"\n\n\n", 2), b"\n\n");
        let long = [vec![b'x'; 200_000], b"\nend".to_vec()].concat();
        assert_eq!(last_lines(&long, 1), b"end");
        assert_eq!(last_lines(&long, 2), long);
    }

    proptest! {
        #[test]
        fn as_many_lines_as_asked_for(text in "[a\n]{0,200}", lines in 0usize..9) {
            let found = last_lines(text.as_bytes(), lines);
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let expected = all[all.len().saturating_sub(lines)..].concat();
            prop_assert_eq!(found, expected.into_bytes());
        }
    }
}
