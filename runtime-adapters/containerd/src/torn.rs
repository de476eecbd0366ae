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
    if code != RUNC_FAILED || !pipe(namespace, id).exists() {
        return Whose::Containers;
    }
    let stderr = log_dir.join("stderr");
    for _ in 0..READS_MAX {
        if begin_of(&stderr).is_ok_and(|text| is_runcs(&text)) {
            return Whose::Runcs;
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
    Whose::Unknown
}

fn pipe(namespace: &str, id: &ContainerId) -> PathBuf {
    [RUNC_ROOT, namespace, &id.0, "exec.fifo"].iter().collect()
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
    use wavetank_port::ContainerId;

    use super::{Whose, is_runcs, whose};

    #[test]
    fn only_runcs_whole_words_are_runcs() {
        let words = "write exec fifo /proc/self/fd/6: broken pipe\n";
        assert!(is_runcs(words.as_bytes()));
        let others = [
            String::new(),
            words.trim_end().to_owned(),
            format!("hello\n{words}"),
            format!("{words}hello\n"),
            "open exec fifo /proc/self/fd/6: no such device or address\n".to_owned(),
        ];
        for text in others {
            assert!(!is_runcs(text.as_bytes()), "{text:?}");
        }
    }

    #[tokio::test]
    async fn without_a_pipe_every_end_is_the_containers() {
        let directory = tempfile::tempdir().expect("a folder");
        let words = "write exec fifo /proc/self/fd/6: broken pipe\n";
        std::fs::write(directory.path().join("stderr"), words).expect("a log");
        let id = ContainerId("nobody".to_owned());
        for code in [0, 1, 137] {
            let whose = whose("wavetank-no-such-namespace", &id, code, directory.path()).await;
            assert_eq!(whose, Whose::Containers, "{code}");
        }
    }
}
