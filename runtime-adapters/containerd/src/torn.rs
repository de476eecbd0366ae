//! Starts that were cut off: whether a process that ended was the container's, or still runc's.
//!
//! `runc create` leaves a process of runc's own, which waits at a named pipe, `exec.fifo`. It
//! becomes the container's after `runc start` has opened the other end; `runc start` reads from it
//! and removes it, last of all. When the daemon dies, the shim kills the `runc start` that is
//! under way, because the call that it does it for has lost its caller. If that meets it between
//! opening and reading, runc's process finds the pipe broken, says so on what is already the
//! container's stderr, and ends with 1: a code that looks like the container's.
//!
//! So a pipe that is gone proves that the start was finished. The shim tells of no end before the
//! `runc start` is over (`Init.mu`), so that the pipe is looked at late enough. If the pipe is
//! still there, runc's words prove that the process was not the container's. Without them it may
//! have been: nobody can know. (Read in containerd 1.6.20 and runc 1.1.5.)

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wavetank_port::ContainerId;

/// Where the shim lets runc keep its state, by namespace (containerd: `process.RuncRoot`).
const RUNC_ROOT: &str = "/run/containerd/runc";
/// How runc's own process ends when it fails.
const RUNC_FAILED: u32 = 1;
/// The beginning of what it says.
const BROKEN_PIPE: &[u8] = b"write exec fifo /proc/self/fd/";
/// More bytes than it says.
const WORDS_BYTES_MAX: u64 = 256;
/// How often its words are looked for, and how long it takes them to get through the shim: together
/// as long as the shim itself waits for output.
const READS_MAX: usize = 40;
const READ_AGAIN: Duration = Duration::from_millis(50);

/// Whose process it was that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Containers,
    Runcs,
    Unknown,
}

/// Whose process ended with `code`. Asked while there still is a task: with it, the pipe goes.
pub(crate) async fn whose(namespace: &str, id: &ContainerId, code: u32, log_dir: &Path) -> Whose {
    let pipe: PathBuf = [RUNC_ROOT, namespace, &id.0, "exec.fifo"].iter().collect();
    judge(code, &pipe, &log_dir.join("stderr")).await
}

async fn judge(code: u32, pipe: &Path, stderr: &Path) -> Whose {
    if code != RUNC_FAILED || !pipe.exists() {
        return Whose::Containers;
    }
    for _ in 0..READS_MAX {
        if begin_of(stderr).is_ok_and(|text| is_runcs(&text)) {
            return Whose::Runcs;
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
    Whose::Unknown
}

fn begin_of(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = std::fs::File::open(file)?;
    file.take(WORDS_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Its words and nothing else: a container that writes anything is one that has run.
fn is_runcs(text: &[u8]) -> bool {
    let line = text.strip_suffix(b"\n").unwrap_or_default();
    line.starts_with(BROKEN_PIPE) && !line.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::{Whose, judge};

    const WORDS: &str = "write exec fifo /proc/self/fd/6: broken pipe\n";

    /// Whose end `code` is, with this on stderr.
    async fn whose(code: u32, has_pipe: bool, stderr: &str) -> Whose {
        let directory = tempfile::tempdir().expect("a folder");
        let (pipe, log) = (directory.path().join("pipe"), directory.path().join("log"));
        std::fs::write(&log, stderr).expect("a log");
        if has_pipe {
            std::fs::write(&pipe, "").expect("a pipe");
        }
        judge(code, &pipe, &log).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_start_or_another_code_is_the_containers() {
        assert_eq!(whose(1, false, WORDS).await, Whose::Containers);
        for code in [0, 2, 137] {
            assert_eq!(whose(code, true, WORDS).await, Whose::Containers, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_runcs_whole_words_prove_that_it_was_runcs() {
        assert_eq!(whose(1, true, WORDS).await, Whose::Runcs);
        let others = [
            String::new(),
            WORDS.trim_end().to_owned(),
            format!("hello\n{WORDS}"),
            format!("{WORDS}hello\n"),
            "open exec fifo /proc/self/fd/6: no such device or address\n".to_owned(),
        ];
        for text in others {
            assert_eq!(whose(1, true, &text).await, Whose::Unknown, "{text:?}");
        }
    }
}
