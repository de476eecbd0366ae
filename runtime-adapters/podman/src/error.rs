//! What can go wrong between us and the Podman service, and the one table that gives the
//! service's words a class of the port.

use wavetank_port::{ErrorClass, RuntimeError};

/// What a call of this crate answers.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed exchange with the service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket cannot be reached.
    #[error("cannot reach the Podman service at {endpoint}")]
    Connect {
        endpoint: String,
        source: std::io::Error,
    },
    /// The connection broke, or what came over it is not HTTP.
    #[error("{call}: the connection to the Podman service broke")]
    Connection { call: String, source: hyper::Error },
    /// The service refused or failed.
    #[error("{call}: {message}")]
    Refused {
        call: String,
        status: u16,
        /// Podman's innermost error, without what it was about.
        cause: String,
        message: String,
    },
    /// An answer that is not what the API promises.
    #[error("{call}: {problem}")]
    Malformed { call: String, problem: String },
    /// An answer longer than we take.
    #[error("{call}: the answer is longer than {bytes_max} bytes")]
    TooLarge { call: String, bytes_max: usize },
    /// Decided here, without asking the service.
    #[error("{0}")]
    Ours(RuntimeError),
}

impl Error {
    /// A refusal of our own.
    pub(crate) fn ours(class: ErrorClass, message: impl Into<String>) -> Self {
        Error::Ours(RuntimeError::new(class, message))
    }

    /// The port's class.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Error::Connect { .. } | Error::Connection { .. } => ErrorClass::Unavailable,
            Error::Refused {
                status,
                cause,
                message,
                ..
            } => classify(*status, cause, message),
            Error::Malformed { .. } => ErrorClass::Unknown,
            Error::TooLarge { .. } => ErrorClass::ResourceExhausted,
            Error::Ours(error) => error.class,
        }
    }

    /// True if Podman stumbled over something that was just changing: the same question, asked
    /// again, has an answer.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Error::Refused { message, .. } => passes(message),
            _ => false,
        }
    }

    /// True if a signal met a process that had ended.
    pub(crate) fn came_too_late(&self) -> bool {
        self.says(SIGNALLED_TOO_LATE)
    }

    /// True if a signal was sent, and a note of the end it brings was then waited for in vain.
    pub(crate) fn was_sent(&self) -> bool {
        self.says(END_NOT_NOTED)
    }

    /// True if the service refuses in these words, in lower case.
    pub(crate) fn says(&self, words: &str) -> bool {
        match self {
            Error::Refused { message, .. } => message.to_lowercase().contains(words),
            _ => false,
        }
    }

    /// True if the service says that the object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.class() == ErrorClass::NotFound
    }
}

impl From<Error> for RuntimeError {
    fn from(error: Error) -> Self {
        let class = error.class();
        // The port's error has no chain: what is below is said in the same line.
        let message = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => match error {
                Error::Ours(error) => error.message,
                error => error.to_string(),
            },
        };
        RuntimeError::new(class, message)
    }
}

/// What a signal meets that had no process to go to although Podman's records know one
/// (`KillContainer`). Where they know none either, the words come in another order.
const SIGNALLED_TOO_LATE: &str = "container state improper: ";

/// What is said of a process whose monitor is slow (`waitForExitFileAndSync`).
const END_NOT_NOTED: &str = "timed out waiting for file";

/// What Podman says while something changes under its hands; all words of a row occur. Rows from
/// the sources of libpod 4.3, bbolt and, for Podman 5, SQLite.
const PASSING: &[&[&str]] = &[
    // An inspection and a look at usage read the control groups of a process that may have ended
    // since: within their open or their read, or with its groups left already (`cGroupPath`).
    &["/proc/", "no such process"],
    &["could not find any cgroup in", "/proc/"],
    // Another process removed the note of an end that was about to be read (`handleExitFile`).
    &["failed to read exit file", "no such file or directory"],
    // Another process writes the file that is read: a line of events is there by half.
    &["unexpected end of json input"],
    // What Podman ends before it removes it has ended and was not waited for yet, or its monitor
    // is slow to say so.
    &[SIGNALLED_TOO_LATE],
    &[END_NOT_NOTED],
    // Another create made the volume.
    &["volume already exists"],
    // An image went while it was listed or inspected.
    &["locating item named", "file does not exist"],
    &["nil pointer dereference"],
    // The database is another process's at the moment, for longer than Podman waits for it.
    &["database is locked"],
];

/// What Podman 4.3 says, and what it means; the first row whose words occur decides. Status codes
/// come last, because almost every failure has status 500. Words from libpod's `define/errors.go`,
/// runc, the registry client, and Linux; each seen with Podman 4.3.1 except those that a loopback
/// registry cannot say (`no such host`, `tls:`) and those of something that is just going away.
const WORDS: &[(&str, ErrorClass)] = &[
    ("no such container", ErrorClass::NotFound),
    ("container has already been removed", ErrorClass::NotFound),
    ("no such exec session", ErrorClass::NotFound),
    ("no such image", ErrorClass::NotFound),
    ("image not known", ErrorClass::NotFound),
    ("that name is already in use", ErrorClass::AlreadyExists),
    (
        "is in use: container already exists",
        ErrorClass::AlreadyExists,
    ),
    ("container state improper", ErrorClass::FailedPrecondition),
    // A service that died between runc's create and its own note of it; only a delete helps.
    ("given id already exists", ErrorClass::FailedPrecondition),
    // The same of the monitor: runc's create is left half done, or its process is gone. Why runc
    // refuses a start, it says to the service's log only.
    (".pidfile: file exists", ErrorClass::FailedPrecondition),
    ("` failed: exit status", ErrorClass::FailedPrecondition),
    (
        "image is in use by a container",
        ErrorClass::FailedPrecondition,
    ),
    ("image used by", ErrorClass::FailedPrecondition),
    ("command that was not found", ErrorClass::InvalidArgument),
    ("oci permission denied", ErrorClass::InvalidArgument),
    ("exec format error", ErrorClass::InvalidArgument),
    ("invalid reference format", ErrorClass::InvalidArgument),
    ("no space left on device", ErrorClass::ResourceExhausted),
    ("disk quota exceeded", ErrorClass::ResourceExhausted),
    ("cannot allocate memory", ErrorClass::ResourceExhausted),
    ("too many open files", ErrorClass::ResourceExhausted),
    (
        "resource temporarily unavailable",
        ErrorClass::ResourceExhausted,
    ),
    ("toomanyrequests", ErrorClass::ResourceExhausted),
    ("too many requests", ErrorClass::ResourceExhausted),
    ("unauthorized", ErrorClass::Unauthenticated),
    ("authentication required", ErrorClass::Unauthenticated),
    ("invalid username/password", ErrorClass::Unauthenticated),
    (
        "access to the resource is denied",
        ErrorClass::Unauthenticated,
    ),
    ("manifest unknown", ErrorClass::NotFound),
    ("name unknown", ErrorClass::NotFound),
    ("blob unknown", ErrorClass::NotFound),
    ("404 not found", ErrorClass::NotFound),
    ("404 (not found)", ErrorClass::NotFound),
    // Its monitor died within a start (`readConmonPipeData`, `createOCIContainer`).
    ("no logs from conmon", ErrorClass::Unavailable),
    ("write child: broken pipe", ErrorClass::Unavailable),
    ("signal: killed", ErrorClass::Unavailable),
    // A process that SIGKILL does not end at once (`waitContainerStop`).
    ("did not die within timeout", ErrorClass::Unavailable),
    // A service on its way out.
    ("runtime has already been stopped", ErrorClass::Unavailable),
    (
        "database connection already closed",
        ErrorClass::Unavailable,
    ),
    ("connection refused", ErrorClass::Unavailable),
    ("connection reset", ErrorClass::Unavailable),
    ("no such host", ErrorClass::Unavailable),
    ("network is unreachable", ErrorClass::Unavailable),
    ("i/o timeout", ErrorClass::Unavailable),
    ("unexpected eof", ErrorClass::Unavailable),
    ("unexpected http status", ErrorClass::Unavailable),
    ("invalid status code from registry", ErrorClass::Unavailable),
    ("digest did not match", ErrorClass::Unavailable),
    ("does not match manifest digest", ErrorClass::Unavailable),
    ("tls:", ErrorClass::Unavailable),
    ("pinging container registry", ErrorClass::Unavailable),
    ("invalid argument", ErrorClass::InvalidArgument),
];

fn passes(message: &str) -> bool {
    let message = message.to_lowercase();
    let says = |row: &&[&str]| row.iter().all(|words| message.contains(words));
    PASSING.iter().any(says)
}

/// The class of a refusal. `cause` is asked first: it does not quote what the caller sent.
pub(crate) fn classify(status: u16, cause: &str, message: &str) -> ErrorClass {
    if passes(message) {
        return ErrorClass::Unavailable;
    }
    let by_words = [cause, message].into_iter().find_map(|text| {
        let text = text.to_lowercase();
        WORDS.iter().find(|(words, _)| text.contains(words))
    });
    match (by_words, status) {
        (Some((_, class)), _) => *class,
        (None, 400) => ErrorClass::InvalidArgument,
        (None, 401 | 403) => ErrorClass::Unauthenticated,
        (None, 404) => ErrorClass::NotFound,
        (None, 409) => ErrorClass::FailedPrecondition,
        (None, 429) => ErrorClass::ResourceExhausted,
        (None, 502..=504) => ErrorClass::Unavailable,
        (None, _) => ErrorClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wavetank_port::ErrorClass;

    use super::{Error, PASSING, WORDS, classify};

    fn refused(message: &str) -> Error {
        Error::Refused {
            call: "GET /containers/n.a/json".to_owned(),
            status: 500,
            cause: String::new(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_passes_is_known_by_all_its_words() {
        let passing = [
            "read /proc/31177/cgroup: no such process",
            "could not find any cgroup in \"/proc/31177/cgroup\"",
            "failed to read exit file for container 9d0e: open /t/exits/9d0e: \
             no such file or directory",
            "unexpected end of JSON input",
            "cannot remove container 6205 as it could not be stopped: sending SIGKILL to container \
             6205: container state improper: stopped",
            "timed out waiting for file /t/exits/9d0e: internal libpod error",
            "adding volume to state: name n.v is in use: volume already exists",
            "retrieving label for image \"5d\": locating item named \"manifest\" for image with ID \
             \"5d\" (consider removing the image): file does not exist",
            "runtime error: invalid memory address or nil pointer dereference",
            "beginning transaction: database is locked",
        ];
        for (message, row) in passing.into_iter().zip(PASSING) {
            let lower = message.to_lowercase();
            assert!(row.iter().all(|it| lower.contains(it)), "{message}");
            assert!(refused(message).is_passing(), "{message}");
            assert_eq!(refused(message).class(), ErrorClass::Unavailable);
        }
        assert_eq!(passing.len(), PASSING.len());
        assert!(refused("open /proc/25921/cgroup: no such process").is_passing());
        for message in [
            "no such process",
            "read /proc/31177/cgroup: permission denied",
            "no such container",
            "can only kill running containers. 9d0e is in state exited: container state improper",
        ] {
            assert!(!refused(message).is_passing(), "{message}");
        }
    }

    /// Status, cause and message, and what they mean.
    const SAID: &[(u16, &str, &str, ErrorClass)] = &[
        (404, "no such container", "", ErrorClass::NotFound),
        (
            500,
            "image not known",
            "localhost/x:1: image not known",
            ErrorClass::NotFound,
        ),
        (
            500,
            "that name is already in use",
            "creating container storage: the container name \"a\" is already in use by 1d8b",
            ErrorClass::AlreadyExists,
        ),
        (
            500,
            "container already exists",
            "name \"n.a\" is in use: container already exists",
            ErrorClass::AlreadyExists,
        ),
        (
            500,
            "container state improper",
            "can only kill running containers. 9d0e is in state exited",
            ErrorClass::FailedPrecondition,
        ),
        (
            500,
            "OCI runtime error",
            "runc: container with given ID already exists: OCI runtime error",
            ErrorClass::FailedPrecondition,
        ),
        (
            500,
            "OCI runtime error",
            "runc: runc create failed: open /r/9d0e/userdata/.pidfile: file exists: OCI \
             runtime error",
            ErrorClass::FailedPrecondition,
        ),
        (
            500,
            "exit status 1",
            "`/usr/sbin/runc start 9d0e` failed: exit status 1",
            ErrorClass::FailedPrecondition,
        ),
        (
            500,
            "OCI runtime attempted to invoke a command that was not found",
            "runc: runc create failed: exec: \"/nope\": stat /nope: no such file or directory",
            ErrorClass::InvalidArgument,
        ),
        (
            500,
            "OCI permission denied",
            "",
            ErrorClass::InvalidArgument,
        ),
        (
            500,
            "invalid argument",
            "running container create option: names must match [a-zA-Z0-9]",
            ErrorClass::InvalidArgument,
        ),
        (
            500,
            "no space left on device",
            "mkdir /x: no space left on device",
            ErrorClass::ResourceExhausted,
        ),
        (
            500,
            "readObjectStart: expect { or n, but found \0",
            "container create failed (no logs from conmon): conmon bytes \"\"",
            ErrorClass::Unavailable,
        ),
        (
            500,
            "broken pipe",
            "write child: broken pipe",
            ErrorClass::Unavailable,
        ),
        (
            500,
            "signal: killed",
            "signal: killed",
            ErrorClass::Unavailable,
        ),
        (
            500,
            "container has already been removed",
            "container 9d0e is not valid: container has already been removed",
            ErrorClass::NotFound,
        ),
        (
            500,
            "runtime has already been stopped",
            "",
            ErrorClass::Unavailable,
        ),
        (
            500,
            "database connection already closed",
            "",
            ErrorClass::Unavailable,
        ),
        (404, "", "Not Found", ErrorClass::NotFound),
        (418, "", "tea", ErrorClass::Unknown),
        (500, "something new", "something new", ErrorClass::Unknown),
    ];

    #[test]
    fn what_podman_says_has_its_class() {
        for (status, cause, message, class) in SAID {
            assert_eq!(
                classify(*status, cause, message),
                *class,
                "{cause} / {message}"
            );
        }
    }

    #[test]
    fn the_cause_decides_before_the_message() {
        let message = "no such container: manifest unknown";
        assert_eq!(
            classify(500, "that name is already in use", message),
            ErrorClass::AlreadyExists
        );
    }

    #[test]
    fn the_table_is_in_lower_case_and_says_nothing_twice() {
        for (at, (words, _)) in WORDS.iter().enumerate() {
            assert_eq!(*words, words.to_lowercase());
            let hidden_by = WORDS[..at]
                .iter()
                .find(|(earlier, _)| words.contains(earlier));
            assert_eq!(hidden_by, None, "`{words}` can never be reached");
        }
    }

    proptest! {
        #[test]
        fn any_words_have_a_class(status: u16, cause: String, message: String) {
            prop_assert!(ErrorClass::ALL.contains(&classify(status, &cause, &message)));
        }
    }
}
