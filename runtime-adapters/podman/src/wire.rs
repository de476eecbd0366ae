//! What libpod's REST API says and takes, as far as it is used here. Names and types are those of
//! Podman 4.3's API; what it may leave out or answer as `null` is optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use wavetank_port::WallTime;

/// A Go slice or map that may be `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `GET /version`.
#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    #[serde(rename = "Version")]
    pub(crate) version: String,
}

/// Answer to what makes something: a container, an exec session.
#[derive(Debug, Deserialize)]
pub(crate) struct Made {
    #[serde(rename = "Id")]
    pub(crate) id: String,
}

/// `POST /containers/create`.
#[derive(Debug, Serialize)]
pub(crate) struct Create {
    pub(crate) name: String,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) netns: Mode,
    pub(crate) log_configuration: LogDriver,
    pub(crate) healthconfig: HealthCheck,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<i32>,
    pub(crate) resource_limits: Resources,
    pub(crate) volumes: Vec<Volume>,
}

/// A namespace of a container.
#[derive(Debug, Serialize)]
pub(crate) struct Mode {
    pub(crate) nsmode: &'static str,
}

/// Who keeps the log.
#[derive(Debug, Serialize)]
pub(crate) struct LogDriver {
    pub(crate) driver: &'static str,
}

/// Podman's own health check.
#[derive(Debug, Serialize)]
pub(crate) struct HealthCheck {
    #[serde(rename = "Test")]
    pub(crate) test: [&'static str; 1],
}

/// Limits, as the OCI runtime specification has them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Resources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
}

/// In bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) limit: i64,
    /// Memory and swap together.
    pub(crate) swap: i64,
}

/// In microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Cpu {
    pub(crate) quota: i64,
    pub(crate) period: u64,
}

/// A named volume.
#[derive(Debug, Serialize)]
pub(crate) struct Volume {
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "Dest")]
    pub(crate) dest: String,
}

/// `GET /containers/NAME/json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Inspect {
    #[serde(rename = "Id")]
    pub(crate) id: String,
    #[serde(rename = "ImageName")]
    pub(crate) image_name: String,
    #[serde(rename = "State")]
    pub(crate) state: State,
    #[serde(rename = "Config")]
    pub(crate) config: Config,
    #[serde(rename = "PidFile", default)]
    pub(crate) pid_file: String,
    #[serde(rename = "StaticDir", default)]
    pub(crate) static_dir: String,
}

/// The part of an inspection that changes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct State {
    #[serde(rename = "Status")]
    pub(crate) status: String,
    #[serde(rename = "OOMKilled", default)]
    pub(crate) oom_killed: bool,
    #[serde(rename = "Pid", default)]
    pub(crate) pid: i64,
    #[serde(rename = "ConmonPid", default)]
    pub(crate) conmon_pid: i64,
    #[serde(rename = "ExitCode", default)]
    pub(crate) exit_code: i64,
    #[serde(rename = "StartedAt", default)]
    pub(crate) started_at: String,
    #[serde(rename = "FinishedAt", default)]
    pub(crate) finished_at: String,
}

/// The part of an inspection that does not change.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(rename = "Labels", default, deserialize_with = "null_is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(rename = "StopSignal", default)]
    pub(crate) stop_signal: i32,
}

/// One row of `GET /containers/json`. Its times are whole seconds since 1970; of what was not yet
/// they are negative.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    #[serde(rename = "Id")]
    pub(crate) id: String,
    #[serde(rename = "Names", default, deserialize_with = "null_is_empty")]
    pub(crate) names: Vec<String>,
    #[serde(rename = "State", default)]
    pub(crate) state: String,
    #[serde(rename = "Pid", default)]
    pub(crate) pid: i64,
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default, deserialize_with = "null_is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(rename = "ExitCode", default)]
    exit_code: i64,
    #[serde(rename = "StartedAt", default)]
    started_at: i64,
    #[serde(rename = "ExitedAt", default)]
    exited_at: i64,
}

impl From<Row> for Inspect {
    /// What an inspection would say, as far as a row tells.
    fn from(row: Row) -> Self {
        let time = |seconds| {
            let at = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
            at.to_rfc3339()
        };
        Inspect {
            id: row.id,
            image_name: row.image,
            state: State {
                status: row.state,
                oom_killed: false,
                pid: row.pid,
                conmon_pid: 0,
                exit_code: row.exit_code,
                started_at: time(row.started_at),
                finished_at: time(row.exited_at),
            },
            config: Config {
                labels: row.labels,
                stop_signal: 0,
            },
            pid_file: String::new(),
            static_dir: String::new(),
        }
    }
}

/// One row of the answer to a delete.
#[derive(Debug, Deserialize)]
pub(crate) struct Removed {
    /// Text in Podman 4.3's own structure, an object where an error could not be written.
    #[serde(rename = "Err", default)]
    pub(crate) err: Option<serde_json::Value>,
}

/// `GET /images/json`, one row; and `GET /images/NAME/json`, which has no names.
#[derive(Debug, Deserialize)]
pub(crate) struct ImageRow {
    #[serde(rename = "Names", default, deserialize_with = "null_is_empty")]
    pub(crate) names: Vec<String>,
    #[serde(rename = "Digest")]
    pub(crate) digest: String,
}

/// Answer to the removal of an image.
#[derive(Debug, Deserialize)]
pub(crate) struct ImageRemoved {
    #[serde(rename = "Errors", default, deserialize_with = "null_is_empty")]
    pub(crate) errors: Vec<String>,
}

/// One line of the answer to a pull: progress, an error, or the end with an id.
#[derive(Debug, Deserialize)]
pub(crate) struct PullLine {
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) id: String,
}

/// One event.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    #[serde(rename = "timeNano")]
    pub(crate) time_nano: u64,
}

/// What an event is about.
#[derive(Debug, Deserialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "Attributes", default, deserialize_with = "null_is_empty")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// `POST /containers/NAME/exec`.
#[derive(Debug, Serialize)]
pub(crate) struct ExecCreate<'a> {
    #[serde(rename = "Cmd")]
    pub(crate) command: &'a [String],
    #[serde(rename = "AttachStdout")]
    pub(crate) stdout: bool,
    #[serde(rename = "AttachStderr")]
    pub(crate) stderr: bool,
}

/// `POST /exec/ID/start`.
#[derive(Debug, Serialize)]
pub(crate) struct ExecStart {
    #[serde(rename = "Detach")]
    pub(crate) detach: bool,
    #[serde(rename = "Tty")]
    pub(crate) tty: bool,
}

/// `GET /exec/ID/json`.
#[derive(Debug, Deserialize)]
pub(crate) struct ExecState {
    #[serde(rename = "Running")]
    pub(crate) running: bool,
    #[serde(rename = "ExitCode")]
    pub(crate) exit_code: i64,
    #[serde(rename = "Pid", default)]
    pub(crate) pid: i64,
    /// Whether it has ended.
    #[serde(rename = "CanRemove", default)]
    pub(crate) can_remove: bool,
}

/// `GET /containers/stats`.
#[derive(Debug, Deserialize)]
pub(crate) struct StatsAnswer {
    #[serde(rename = "Stats", default, deserialize_with = "null_is_empty")]
    pub(crate) stats: Vec<Stats>,
}

/// What one container uses.
#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    #[serde(rename = "CPUNano")]
    pub(crate) cpu_nano: u64,
    #[serde(rename = "MemUsage")]
    pub(crate) mem_usage: u64,
    #[serde(rename = "PIDs")]
    pub(crate) pids: u64,
}

/// A time as Go writes it. Its zero time, the year 1, and what is no time are `None`.
pub(crate) fn wall_time(text: &str) -> Option<WallTime> {
    let at = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let nanos = u64::try_from(at.timestamp_nanos_opt()?).ok()?;
    (nanos > 0).then_some(WallTime(nanos))
}

/// A process id, if it is one.
pub(crate) fn pid(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|it| *it > 0)
}

#[cfg(test)]
mod tests {
    use wavetank_port::WallTime;

    use super::{ImageRow, Removed, wall_time};

    #[test]
    fn times_are_exact_and_go_s_zero_is_none() {
        assert_eq!(wall_time("0001-01-01T00:00:00Z"), None);
        assert_eq!(wall_time(""), None);
        assert_eq!(wall_time("9999-12-31T00:00:00Z"), None);
        let nanos = 1_700_000_000_123_456_789;
        assert_eq!(
            wall_time("2023-11-14T22:13:20.123456789Z"),
            Some(WallTime(nanos))
        );
        assert_eq!(
            wall_time("2023-11-14T23:13:20.123456789+01:00"),
            Some(WallTime(nanos))
        );
    }

    #[test]
    fn null_and_absent_are_empty() {
        let row = r#"{"Names":null,"Digest":"sha256:00"}"#;
        let row: ImageRow = serde_json::from_str(row).expect("a row");
        assert!(row.names.is_empty());
        let removed: Removed = serde_json::from_str(r#"{"Id":"1","Err":null}"#).expect("a row");
        assert!(removed.err.is_none());
    }
}
