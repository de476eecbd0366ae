//! The file of rules: JSON, versioned, and refused as a whole if any of it is not understood.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The version that this program reads.
const VERSION: u32 = 1;

/// No file of rules is larger, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file of rules cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be; the reason names line and column.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The counters beside it cannot be kept.
    #[error("the counters beside {}: {source}", path.display())]
    Counters {
        /// Which file of rules.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to do wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Of this format.
    pub version: u32,
    /// The real runtime.
    pub runtime: PathBuf,
    /// In order; of several that are due, the first one's fault happens.
    pub rules: Vec<Rule>,
}

/// One fault with its occasion.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique within the file; counters and the record of what fired go by it.
    pub name: String,
    /// The verb of the command line: `create`, `start`, `kill`, `delete`, `exec`, ...
    pub verb: String,
    /// Which containers: an id, in which each `*` stands for any characters.
    #[serde(default = "any")]
    pub container: String,
    /// Which of the calls that match.
    pub calls: Calls,
    /// What happens.
    pub fault: Fault,
}

fn any() -> String {
    "*".to_owned()
}

/// Which of the calls that match a rule, counted from 1 over all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// The first one that is met.
    pub first: u64,
    /// How many from there on; absent means all.
    pub count: Option<u64>,
}

impl Calls {
    /// True if the call of this number is one of them.
    pub fn contains(self, number: u64) -> bool {
        let before_end = |count: u64| number - self.first < count;
        number >= self.first && self.count.is_none_or(before_end)
    }
}

/// What can be done wrong.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The call is made after this time.
    Slow {
        /// The delay.
        millis: u64,
    },
    /// The call is not made, and fails.
    Fail {
        /// What the caller is told.
        message: String,
    },
    /// The call is made, and said to have failed.
    LostReply {
        /// What the caller is told.
        message: String,
    },
    /// The call is not made, and never comes back.
    Hang {},
    /// The process has been killed and is gone when its start says that it runs. Without a code
    /// it is only for `start`. With one it is only for `create`: a container that is created so
    /// is seen to exit with that code at its start.
    ExitBeforeStart {
        /// The code, if it is not that of SIGKILL.
        code: Option<u8>,
    },
    /// Only for `create`: the process's end is seen this much later.
    LateExit {
        /// The delay.
        millis: u64,
    },
    /// Only for `create`: the process's end is never seen.
    LostExit {},
    /// Only for `create`: the process is seen to exit with this code, however it ended.
    WrongExitCode {
        /// The code.
        code: u8,
    },
}

impl Fault {
    /// It strikes with the call at which it is due; others wait for the container's start or end.
    pub fn strikes_at_once(&self) -> bool {
        match self {
            Fault::Slow { .. }
            | Fault::Fail { .. }
            | Fault::LostReply { .. }
            | Fault::Hang {}
            | Fault::ExitBeforeStart { code: None } => true,
            Fault::ExitBeforeStart { code: Some(_) }
            | Fault::LateExit { .. }
            | Fault::LostExit {}
            | Fault::WrongExitCode { .. } => false,
        }
    }

    /// The only verb that it makes sense for, if it is one.
    fn verb(&self) -> Option<&'static str> {
        match self {
            Fault::Slow { .. } | Fault::Fail { .. } | Fault::LostReply { .. } | Fault::Hang {} => {
                None
            }
            Fault::ExitBeforeStart { code: None } => Some("start"),
            Fault::ExitBeforeStart { code: Some(_) }
            | Fault::LateExit { .. }
            | Fault::LostExit {}
            | Fault::WrongExitCode { .. } => Some("create"),
        }
    }
}

impl Rules {
    /// Reads the file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RulesError> {
        let read = |source| RulesError::Read {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() > BYTES_MAX => {
                return Err(read(io::Error::other("too large")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let rules = Self::parse(&text);
        rules.map(Some).map_err(|reason| RulesError::Content {
            path: path.to_owned(),
            reason,
        })
    }

    /// Parses and checks; the error says where and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: Rules = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if rules.version != VERSION {
            return Err(format!("version {} is not {VERSION}", rules.version));
        }
        for (index, rule) in rules.rules.iter().enumerate() {
            let wrong = |what: String| Err(format!("rules[{index}] `{}`: {what}", rule.name));
            let earlier = &rules.rules[..index];
            if rule.name.is_empty() || earlier.iter().any(|it| it.name == rule.name) {
                return wrong("its name is not its own".to_owned());
            }
            if rule.calls.first == 0 {
                return wrong("calls.first counts from 1".to_owned());
            }
            if let Some(verb) = rule.fault.verb()
                && verb != rule.verb
            {
                return wrong(format!("this fault is only for `{verb}`"));
            }
        }
        Ok(rules)
    }
}

impl Rule {
    /// True if calls like this one count.
    pub fn matches(&self, verb: &str, container: &str) -> bool {
        self.verb == verb && is_like(container, &self.container)
    }
}

/// True if `text` is `pattern`, in which each `*` stands for any characters.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return text == pattern;
    };
    let Some(rest) = text.strip_prefix(before) else {
        return false;
    };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.into_iter().any(|at| is_like(&rest[at..], after))
}

#[cfg(test)]
mod tests {
    use super::{Calls, Fault, Rules, is_like};

    fn rule(text: &str) -> String {
        format!("{{\"version\": 1, \"runtime\": \"runc\", \"rules\": [\n{text}\n]}}")
    }

    #[test]
    fn a_rule_says_when_and_what() {
        let rules = Rules::parse(&rule(
            r#"{"name": "a", "verb": "kill", "container": "web-*", "calls": {"first": 3},
                "fault": {"hang": {}}}"#,
        ));
        let rules = rules.expect("valid");
        assert_eq!(rules.rules[0].fault, Fault::Hang {});
        assert!(rules.rules[0].matches("kill", "web-1"));
        assert!(!rules.rules[0].matches("start", "web-1"));
        assert!(!rules.rules[0].matches("kill", "db"));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_place() {
        let table = [
            (
                r#"{"name": "a", "verb": "kill", "calls": {"first": 1},
                    "fault": {"hang": {"for": 3}}}"#,
                "unknown field `for`",
            ),
            (
                r#"{"name": "a", "verb": "kill", "calls": {"first": 1, "last": 2},
                    "fault": {"hang": {}}}"#,
                "unknown field `last`",
            ),
            (
                r#"{"name": "a", "verb": "kill", "calls": {"first": 1}, "fault": {"burn": {}}}"#,
                "unknown variant `burn`",
            ),
        ];
        for (text, reason) in table {
            let error = Rules::parse(&rule(text)).expect_err(text);
            assert!(error.contains(reason) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let table = [
            (
                r#"{"name": "a", "verb": "kill", "calls": {"first": 1},
                    "fault": {"lost-exit": {}}}"#,
                "only for `create`",
            ),
            (
                r#"{"name": "a", "verb": "start", "calls": {"first": 1},
                    "fault": {"exit-before-start": {"code": 3}}}"#,
                "only for `create`",
            ),
            (
                r#"{"name": "a", "verb": "kill", "calls": {"first": 0}, "fault": {"hang": {}}}"#,
                "counts from 1",
            ),
            (
                r#"{"name": "", "verb": "kill", "calls": {"first": 1}, "fault": {"hang": {}}}"#,
                "not its own",
            ),
        ];
        for (text, reason) in table {
            let error = Rules::parse(&rule(text)).expect_err(text);
            assert!(
                error.contains(reason) && error.contains("rules[0]"),
                "{error}"
            );
        }
        let later = r#"{"version": 2, "runtime": "runc", "rules": []}"#;
        Rules::parse(later).expect_err("another version");
    }

    #[test]
    fn calls_are_counted_from_the_first() {
        let some = Calls {
            first: 3,
            count: Some(2),
        };
        let met: Vec<u64> = (0..9).filter(|number| some.contains(*number)).collect();
        assert_eq!(met, [3, 4]);
        let all = Calls {
            first: 3,
            count: None,
        };
        assert!(!all.contains(2) && all.contains(u64::MAX));
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (text, pattern) in [("", "*"), ("abc", "a*c"), ("ac", "a*c"), ("aXbXc", "a*b*c")] {
            assert!(is_like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("a", ""), ("ab", "a"), ("abd", "a*c"), ("b", "a*")] {
            assert!(!is_like(text, pattern), "{text} {pattern}");
        }
    }
}
