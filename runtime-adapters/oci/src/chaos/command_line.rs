//! What a call of an OCI runtime is about, by its command line as runc has it. Only what rules
//! need is read; a call that is not understood is about no container.

use std::ffi::OsString;
use std::path::PathBuf;

/// Options whose value is the next argument. All others stand alone or carry theirs after `=`.
const WITH_VALUE: &[&str] = &[
    "--root",
    "--log",
    "--log-format",
    "--criu",
    "--rootless",
    "--bundle",
    "-b",
    "--console-socket",
    "--pid-file",
    "--preserve-fds",
    "--process",
    "-p",
    "--cwd",
    "--env",
    "-e",
    "--user",
    "-u",
    "--additional-gids",
    "-g",
    "--cap",
    "-c",
    "--apparmor",
    "--process-label",
    "--cgroup",
    "--resources",
    "-r",
    "--format",
    "-f",
    "--interval",
];

/// Verbs of which `-f` has no value.
const FORCE: &str = "delete";

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// `create`, `start`, ...; empty if there is none.
    pub verb: String,
    /// The container's id; empty if there is none.
    pub container: String,
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--log`.
    pub log: Option<PathBuf>,
    /// `--log-format json`.
    pub log_is_json: bool,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// Where the value of `--pid-file` is among the arguments, and what stands before it there.
    pub pid_file_at: Option<(usize, &'static str)>,
}

impl Call {
    /// Reads the arguments behind the program's name.
    pub fn parse(arguments: &[OsString]) -> Self {
        let mut call = Call::default();
        let mut at = 0;
        while at < arguments.len() {
            let argument = arguments[at].to_string_lossy();
            let is_option = argument.starts_with('-') && argument.len() > 1;
            if !is_option {
                if call.verb.is_empty() {
                    call.verb = argument.into_owned();
                } else {
                    // What follows may be the command of an exec.
                    call.container = argument.into_owned();
                    break;
                }
            } else if let Some((name, value)) = argument.split_once('=') {
                call.take(name, value, (at, "--pid-file="));
            } else if call.has_value(&argument) {
                at += 1;
                if let Some(value) = arguments.get(at) {
                    call.take(&argument, &value.to_string_lossy(), (at, ""));
                }
            }
            at += 1;
        }
        call
    }

    fn has_value(&self, option: &str) -> bool {
        let is_force = option == "-f" && self.verb == FORCE;
        WITH_VALUE.contains(&option) && !is_force
    }

    fn take(&mut self, option: &str, value: &str, at: (usize, &'static str)) {
        match option {
            "--root" => self.root = Some(PathBuf::from(value)),
            "--log" => self.log = Some(PathBuf::from(value)),
            "--log-format" => self.log_is_json = value == "json",
            "--pid-file" => {
                self.pid_file = Some(PathBuf::from(value));
                self.pid_file_at = Some(at);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::Call;

    fn parse(line: &str) -> Call {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Call::parse(&arguments)
    }

    #[test]
    fn calls_of_containerd_podman_and_ours_are_understood() {
        let create = parse(
            "--root /run/runc/ns --log /b/log.json --log-format json create --bundle /b \
             --pid-file /b/init.pid web-1",
        );
        assert_eq!(
            (create.verb.as_str(), create.container.as_str()),
            ("create", "web-1")
        );
        assert!(create.log_is_json);
        assert_eq!(create.root.as_deref(), Some(Path::new("/run/runc/ns")));
        assert_eq!(create.pid_file_at, Some((10, "")));
        let equals = parse("--systemd-cgroup create --pid-file=/p web-1");
        assert_eq!(equals.pid_file.as_deref(), Some(Path::new("/p")));
        assert_eq!(equals.pid_file_at, Some((2, "--pid-file=")));
        let exec = parse("exec -d --process /p.json web-1 sh -c kill");
        assert_eq!(
            (exec.verb.as_str(), exec.container.as_str()),
            ("exec", "web-1")
        );
        let kill = parse("--root /r kill --all web-1 9");
        assert_eq!(
            (kill.verb.as_str(), kill.container.as_str()),
            ("kill", "web-1")
        );
        let delete = parse("delete -f web-1");
        assert_eq!(delete.container, "web-1");
        let version = parse("--version");
        assert_eq!(version, Call::default());
    }
}
