//! What we keep about a container, in containerd: it outlives us, the daemon and the machine.
//!
//! What was asked for is an extension, written once. What happened since are two labels, each
//! written once: when the process was started, and how it ended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost_types::{Any, Timestamp};
use serde::{Deserialize, Serialize};
use wavetank_port::{ExitCode, ExitStatus, ImageReference, WallTime};

use crate::api::containerd::services::containers::v1::Container;

/// The extension's name; a change of its format changes the number.
pub(crate) const EXTENSION: &str = "io.wavetank.container.v1";
/// `<nanoseconds> <pid>`: written before the process runs.
pub(crate) const STARTED: &str = "io.wavetank.started";
/// `<code or -> <nanoseconds or -> <oom 0 or 1>`: written when its end is first seen.
pub(crate) const ENDED: &str = "io.wavetank.ended";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// As the caller wrote it, not normalised.
    pub image: ImageReference,
    /// Kept here and not as containerd's labels, which lose empty values and have a limit.
    pub labels: BTreeMap<String, String>,
    /// What a stop sends first.
    pub stop_signal: u8,
    /// Where the logs are.
    pub log_dir: PathBuf,
    /// The container's place below each cgroup hierarchy.
    pub cgroup: String,
}

/// When a process was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub at: WallTime,
    pub pid: u32,
}

impl Record {
    /// The record of `container`. One that is not ours is described by what containerd knows.
    pub(crate) fn of(container: &Container) -> Self {
        let extension = container.extensions.get(EXTENSION);
        let ours = extension.and_then(|any| serde_json::from_slice(&any.value).ok());
        ours.unwrap_or_else(|| Record {
            image: ImageReference(container.image.clone()),
            labels: container.labels.clone(),
            stop_signal: 15,
            log_dir: PathBuf::new(),
            cgroup: String::new(),
        })
    }

    pub(crate) fn to_extension(&self) -> Any {
        Any {
            type_url: EXTENSION.to_owned(),
            value: serde_json::to_vec(self).expect("a record has only text keys"),
        }
    }
}

impl Started {
    pub(crate) fn of(container: &Container) -> Option<Self> {
        let (at, pid) = container.labels.get(STARTED)?.split_once(' ')?;
        Some(Started {
            at: WallTime(at.parse().ok()?),
            pid: pid.parse().ok()?,
        })
    }

    pub(crate) fn to_label(self) -> String {
        format!("{} {}", self.at.0, self.pid)
    }
}

/// How the container's process ended, if that was recorded.
pub(crate) fn ended(container: &Container) -> Option<ExitStatus> {
    let mut words = container.labels.get(ENDED)?.split(' ');
    let code = match words.next()? {
        "-" => ExitCode::Unknown,
        code => ExitCode::Known(code.parse().ok()?),
    };
    let at = words.next()?;
    Some(ExitStatus {
        code,
        exited_at: at.parse().ok().map(WallTime),
        oom_killed: words.next()? == "1",
    })
}

pub(crate) fn ended_label(exit: &ExitStatus) -> String {
    let code = match exit.code {
        ExitCode::Known(code) => code.to_string(),
        ExitCode::Unknown => "-".to_owned(),
    };
    let at = exit.exited_at.map_or("-".to_owned(), |at| at.0.to_string());
    format!("{code} {at} {}", u8::from(exit.oom_killed))
}

/// containerd's time as the port's; `None` for times before 1970 and for none at all.
pub(crate) fn wall_time(timestamp: Option<&Timestamp>) -> Option<WallTime> {
    let timestamp = timestamp?;
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u64::try_from(timestamp.nanos).ok()?;
    let total = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    (total > 0).then_some(WallTime(total))
}

/// The time now.
pub(crate) fn now() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallTime(since.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use prost_types::Timestamp;
    use wavetank_port::{ExitCode, ExitStatus, ImageReference, WallTime};

    use super::{ENDED, EXTENSION, Record, STARTED, Started, ended, ended_label, wall_time};
    use crate::api::containerd::services::containers::v1::Container;

    #[test]
    fn a_record_survives_the_daemon() {
        let record = Record {
            image: ImageReference("localhost:5000/a:1".to_owned()),
            labels: [("empty".to_owned(), String::new())].into(),
            stop_signal: 10,
            log_dir: PathBuf::from("/var/lib/x"),
            cgroup: "/n/a".to_owned(),
        };
        let container = Container {
            extensions: [(EXTENSION.to_owned(), record.to_extension())].into(),
            ..Container::default()
        };
        assert_eq!(Record::of(&container), record);
    }

    #[test]
    fn another_clients_container_is_described_by_what_is_known() {
        let container = Container {
            image: "docker.io/library/a:1".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Container::default()
        };
        let record = Record::of(&container);
        assert_eq!(record.image.0, "docker.io/library/a:1");
        assert_eq!(record.labels["a"], "b");
        assert_eq!(record.stop_signal, 15);
    }

    proptest! {
        #[test]
        fn an_end_is_read_as_it_was_written(
            code: Option<u8>,
            at: Option<u64>,
            oom_killed: bool,
        ) {
            let exit = ExitStatus {
                code: code.map_or(ExitCode::Unknown, |it| ExitCode::Known(it.into())),
                exited_at: at.map(WallTime),
                oom_killed,
            };
            let container = Container {
                labels: [(ENDED.to_owned(), ended_label(&exit))].into(),
                ..Container::default()
            };
            prop_assert_eq!(ended(&container), Some(exit));
        }

        #[test]
        fn any_label_is_read_or_ignored(text in "[ -~]{0,40}") {
            let container = Container {
                labels: [(ENDED.to_owned(), text.clone()), (STARTED.to_owned(), text)].into(),
                ..Container::default()
            };
            let _ = (ended(&container), Started::of(&container));
        }

        #[test]
        fn any_time_is_read_or_ignored(seconds: i64, nanos: i32) {
            let _ = wall_time(Some(&Timestamp { seconds, nanos }));
        }
    }
}
