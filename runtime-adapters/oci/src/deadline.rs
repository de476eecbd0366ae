//! How calls end in time: the one place where a deadline is kept, and the one where work leaves
//! the async world.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use wavetank_port::{ErrorClass, RuntimeError};

/// What a call answers.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Runs `call` for at most `within`.
pub async fn within<T>(
    within: Duration,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(within, call)
        .await
        .unwrap_or_else(|_| {
            Err(RuntimeError::new(
                ErrorClass::DeadlineExceeded,
                format!("{what} took longer than {within:?}"),
            ))
        })
}

/// Runs `call` to its end even if its caller goes away: what changes several things at once must
/// not stop half-way.
pub async fn to_its_end<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(call)
        .await
        .unwrap_or_else(|error| Err(unknown(&io::Error::other(error))))
}

/// Runs what blocks on a thread of its own, to its end.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(unknown(&io::Error::other(error))))
}

/// Trouble of this machine as an error of the port.
pub fn unknown(error: &io::Error) -> RuntimeError {
    let class = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
            ErrorClass::ResourceExhausted
        }
        _ => ErrorClass::Unknown,
    };
    RuntimeError::new(class, error.to_string())
}

/// A lock between tasks and between programs. The kernel takes it back when its holder dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing the file would not do: a child that another thread has forked and that has not
    /// executed its program yet has it open too, and would hold the lock with us.
    fn drop(&mut self) {
        // The kernel refuses this for no file that was locked.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Who else may hold the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Others in common too.
    Common,
    /// Nobody.
    Alone,
}

impl Lock {
    /// Takes the lock on `path`, a folder or a file that is made if it is absent; waits for it as
    /// long as the caller does. `None`: the folder is gone.
    pub async fn acquire(path: &Path, sharing: Sharing) -> Result<Option<Self>> {
        let mut pause = Duration::from_millis(1);
        loop {
            let file = match open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(unknown(&error)),
            };
            if let Some(lock) = Self::take(file, path, sharing)? {
                return Ok(Some(lock));
            }
            // Held by another program perhaps, so there is nothing to be woken by.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Takes the lock if it is free now.
    pub fn try_acquire(path: &Path, sharing: Sharing) -> Result<Option<Self>> {
        match open(path) {
            Ok(file) => Self::take(file, path, sharing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unknown(&error)),
        }
    }

    /// Takes the lock on an open file; the thread waits for it.
    pub fn wait(file: File) -> io::Result<Self> {
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Lock { file })
    }

    /// The file that is locked.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    fn take(file: File, path: &Path, sharing: Sharing) -> Result<Option<Self>> {
        let operation = match sharing {
            Sharing::Common => FlockOperation::NonBlockingLockShared,
            Sharing::Alone => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(unknown(&error.into())),
        }
        let lock = Lock { file };
        // Whoever held it may have replaced what is locked.
        let held = lock.file.metadata().map_err(|error| unknown(&error))?;
        let there = std::fs::symlink_metadata(path);
        let same = there.is_ok_and(|it| (it.dev(), it.ino()) == (held.dev(), held.ino()));
        Ok(same.then_some(lock))
    }
}

fn open(path: &Path) -> io::Result<File> {
    if path
        .extension()
        .is_some_and(|extension| extension == "lock")
    {
        let mut options = OpenOptions::new();
        return options.create(true).truncate(false).write(true).open(path);
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wavetank_port::ErrorClass;

    use super::{Lock, Sharing, within};

    #[tokio::test]
    async fn what_takes_too_long_exceeds_its_deadline() {
        let call = within(Duration::from_millis(1), "it", std::future::pending::<_>());
        let error = call.await.map(|(): ()| ()).expect_err("never");
        assert_eq!(error.class, ErrorClass::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_lock_is_held_alone_and_goes_with_its_folder() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("a");
        std::fs::create_dir(&path).expect("folder");
        let held = Lock::acquire(&path, Sharing::Alone).await.expect("lock");
        assert!(held.is_some());
        assert!(
            Lock::try_acquire(&path, Sharing::Common)
                .expect("try")
                .is_none()
        );
        drop(held);
        assert!(
            Lock::try_acquire(&path, Sharing::Common)
                .expect("try")
                .is_some()
        );
        std::fs::remove_dir(&path).expect("removed");
        assert!(
            Lock::acquire(&path, Sharing::Alone)
                .await
                .expect("gone")
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_lock_that_is_given_back_is_free_even_where_a_child_has_inherited_its_file() {
        let root = tempfile::tempdir().expect("folder");
        let held = Lock::try_acquire(root.path(), Sharing::Alone).expect("lock");
        let held = held.expect("free");
        let inherited = held.file.try_clone().expect("the same open file");
        drop(held);
        let again = Lock::try_acquire(root.path(), Sharing::Alone).expect("try");
        assert!(again.is_some());
        drop(inherited);
    }
}
