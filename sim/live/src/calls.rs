//! A plan's faults of the runtime, as rules of what stands between a node and its runtime: a proxy
//! that knows the daemon's requests, or an OCI runtime that does wrong.
//!
//! Faults that strike processes rather than calls (a monitor that is killed, a daemon that is down)
//! are not done here. What cannot be done for real says why: a fault that only looks like the
//! planned one would have checkers find what is not there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use wavetank_fixtures::call_proxy::VERBS;
use wavetank_fixtures::{CallRule, Effect};
use wavetank_node::config::RuntimeKind;
use wavetank_port::ErrorClass;
use wavetank_scenario::plan::{Action, Range};

/// Why a fault of the runtime cannot be done for real.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action} is not done to {runtime}: {reason}")]
pub struct NotApplied {
    /// Its action.
    pub action: &'static str,
    /// Which runtime.
    pub runtime: &'static str,
    /// Why.
    pub reason: String,
}

/// What does a fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Means {
    /// This rule of the proxy before the daemon.
    Proxy(CallRule),
    /// These rules of the chaos runtime that the daemon or the adapter runs.
    Chaos(Vec<ChaosRule>),
}

/// A rule of the chaos runtime, see `wavetank_oci::chaos`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChaosRule {
    /// The verb of an OCI runtime's command line.
    pub verb: &'static str,
    /// How many calls meet it; `None` is all.
    pub count: Option<u32>,
    /// What happens, as the file of rules has it.
    pub fault: Value,
}

/// How a runtime fault is done to a runtime when all times are divided by `speed`.
pub fn means(action: &Action, runtime: RuntimeKind, speed: u32) -> Result<Means, NotApplied> {
    let done = match action {
        // Whatever the runtime, it runs the same OCI runtime in the end.
        Action::ExitBeforeStart { count, code } => exit_before_start(*count, *code),
        Action::ExitLate { by, count } => {
            let fault = json!({ "late-exit": { "millis": middle_ms(*by, speed) } });
            Ok(next("create", *count, fault))
        }
        Action::ExitCodeWrong { count, code } => exit_code(*code).map(|code| {
            next(
                "create",
                *count,
                json!({ "wrong-exit-code": { "code": code } }),
            )
        }),
        _ if runtime == RuntimeKind::Oci => by_chaos(action, speed),
        _ => by_proxy(action, runtime, speed),
    };
    done.map_err(|reason| NotApplied {
        action: action.name(),
        runtime: runtime.name(),
        reason,
    })
}

fn by_proxy(action: &Action, runtime: RuntimeKind, speed: u32) -> Result<Means, String> {
    let (verb, effect, count) = match action {
        Action::RuntimeError { call, class, count } => {
            if *class == ErrorClass::DeadlineExceeded && runtime == RuntimeKind::Podman {
                return Err("Podman has no such answer; let the call hang instead".to_owned());
            }
            (call.clone(), Effect::Error(*class), *count)
        }
        Action::RuntimeDelay { call, by } => {
            let Range { min, max } = scaled(*by, speed);
            (call.clone(), Effect::Delay { min, max }, None)
        }
        Action::RuntimeHang { call } => (call.clone(), Effect::Hang, None),
        Action::RuntimeLostReply { call, count } => {
            (Some(call.clone()), Effect::LoseReply, Some(*count))
        }
        Action::EmptyListing { count } => (None, Effect::EmptyListing, *count),
        other => return Err(impossible(other)),
    };
    if let Some(verb) = &verb
        && !VERBS.contains(&verb.as_str())
    {
        return Err(format!("no request of its clients is a `{verb}`"));
    }
    Ok(Means::Proxy(CallRule {
        verb,
        effect,
        count,
    }))
}

/// What the oci adapter has its runtime do: all else it does by itself, with files.
const CHAOS_VERBS: [&str; 5] = ["create", "start", "kill", "delete", "exec"];

fn by_chaos(action: &Action, speed: u32) -> Result<Means, String> {
    let message = "an injected fault";
    let (call, count, fault) = match action {
        Action::RuntimeError { call, class, count } => {
            if *class != ErrorClass::Unknown {
                let said = "a runtime's command line has no classes; only `unknown` can be said";
                return Err(said.to_owned());
            }
            (
                call.as_deref(),
                *count,
                json!({ "fail": { "message": message } }),
            )
        }
        Action::RuntimeDelay { call, by } => {
            let millis = middle_ms(*by, speed);
            (
                call.as_deref(),
                None,
                json!({ "slow": { "millis": millis } }),
            )
        }
        Action::RuntimeLostReply { call, count } => {
            let fault = json!({ "lost-reply": { "message": message } });
            (Some(call.as_str()), Some(*count), fault)
        }
        Action::RuntimeHang { .. } => {
            return Err("what hangs there is never carried out, also when healed".to_owned());
        }
        Action::EmptyListing { .. } => {
            return Err("it has no daemon that could list; its adapter reads files".to_owned());
        }
        other => return Err(impossible(other)),
    };
    let rule = |verb| ChaosRule {
        verb,
        count,
        fault: fault.clone(),
    };
    let Some(call) = call else {
        return Ok(Means::Chaos(CHAOS_VERBS.map(rule).to_vec()));
    };
    let verb = match call {
        "stop" => "kill",
        "probe" => "exec",
        other => other,
    };
    let known = CHAOS_VERBS.into_iter().find(|it| *it == verb);
    let verb = known.ok_or_else(|| format!("its adapter does `{call}` without the runtime"))?;
    Ok(Means::Chaos(vec![rule(verb)]))
}

/// The process is killed before its start is answered. Another code than that of SIGKILL is what
/// containers that are created from now on are said to exit with.
fn exit_before_start(count: u32, code: i32) -> Result<Means, String> {
    const KILLED: u8 = 137;
    Ok(match exit_code(code)? {
        KILLED => next("start", count, json!({ "exit-before-start": {} })),
        code => next(
            "create",
            count,
            json!({ "exit-before-start": { "code": code } }),
        ),
    })
}

/// What befalls the next so many calls of a verb.
fn next(verb: &'static str, count: u32, fault: Value) -> Means {
    Means::Chaos(vec![ChaosRule {
        verb,
        count: Some(count),
        fault,
    }])
}

fn exit_code(code: i32) -> Result<u8, String> {
    u8::try_from(code).map_err(|_| format!("{code} is no exit code of a process"))
}

/// The chaos runtime knows one delay, not a range.
fn middle_ms(by: Range, speed: u32) -> u64 {
    let Range { min, max } = scaled(by, speed);
    u64::try_from(((min + max) / 2).as_millis()).unwrap_or(u64::MAX)
}

fn impossible(action: &Action) -> String {
    let reason = match action {
        Action::RuntimeEventDrop { .. }
        | Action::RuntimeEventDuplicate { .. }
        | Action::RuntimeEventDelay { .. } => "its events are passed on as they come",
        Action::ExitCodeLost { .. } => {
            "an OCI runtime can hide an exit for ever, but not its code alone"
        }
        Action::ExitTimeMissing { .. } => "it always knows when a process ended",
        Action::KillDeadErrors => "its own answer to the kill of a dead process is passed on",
        _ => "it is no fault of calls",
    };
    reason.to_owned()
}

fn scaled(range: Range, speed: u32) -> Range {
    let speed = speed.max(1);
    let by = |time: Duration| time / speed;
    Range {
        min: by(range.min),
        max: by(range.max),
    }
}

/// The file of rules beside one chaos runtime, and the faults that are in it.
#[derive(Debug)]
pub struct ChaosRules {
    path: PathBuf,
    runtime: PathBuf,
    rules: BTreeMap<String, Vec<Value>>,
    made: u64,
}

impl ChaosRules {
    /// For the chaos runtime at `program`, which passes calls on to `runtime`. Without faults, and
    /// without a file, until one is added.
    pub fn beside(program: &Path, runtime: &Path) -> Self {
        let mut path = program.as_os_str().to_owned();
        path.push(".json");
        ChaosRules {
            path: path.into(),
            runtime: runtime.to_owned(),
            rules: BTreeMap::new(),
            made: 0,
        }
    }

    /// Puts a fault's rules into force; the answer names them.
    pub fn add(&mut self, rules: &[ChaosRule]) -> io::Result<String> {
        self.made += 1;
        // Counters go by the name, so none is used twice.
        let name = format!("fault-{}", self.made);
        let numbered = rules.iter().enumerate();
        let values = numbered.map(|(number, rule)| value(&format!("{name}.{number}"), rule));
        self.rules.insert(name.clone(), values.collect());
        self.write()?;
        Ok(name)
    }

    /// Takes a fault's rules back.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        self.rules.remove(name);
        self.write()
    }

    /// How many calls have met a fault's rules, also after they were taken back.
    pub fn hits(&self, name: &str) -> io::Result<u64> {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".fired");
        let fired = match fs::read_to_string(path) {
            Ok(fired) => fired,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let is_its = |line: &&str| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let rule = line["rule"].as_str().and_then(|it| it.rsplit_once('.'));
            rule.is_some_and(|(fault, _)| fault == name)
        };
        Ok(fired.lines().filter(is_its).count() as u64)
    }

    /// As a whole, so that no call reads half of it.
    fn write(&self) -> io::Result<()> {
        let rules: Vec<&Value> = self.rules.values().flatten().collect();
        let content = json!({ "version": 1, "runtime": self.runtime, "rules": rules });
        let new = self.path.with_extension("new");
        fs::write(&new, content.to_string())?;
        fs::rename(&new, &self.path)
    }
}

fn value(name: &str, rule: &ChaosRule) -> Value {
    json!({
        "name": name,
        "verb": rule.verb,
        "calls": { "first": 1, "count": rule.count },
        "fault": rule.fault,
    })
}

#[cfg(test)]
mod tests {
    use wavetank_oci::chaos::Rules;

    use super::*;

    const ALL: [RuntimeKind; 3] = [
        RuntimeKind::Containerd,
        RuntimeKind::Podman,
        RuntimeKind::Oci,
    ];

    fn delay(call: Option<&str>) -> Action {
        Action::RuntimeDelay {
            call: call.map(str::to_owned),
            by: Range {
                min: Duration::from_secs(1),
                max: Duration::from_secs(3),
            },
        }
    }

    #[test]
    fn daemons_are_struck_by_the_proxy_and_times_are_scaled() {
        for runtime in [RuntimeKind::Containerd, RuntimeKind::Podman] {
            let expected = CallRule {
                verb: Some("start".to_owned()),
                effect: Effect::Delay {
                    min: Duration::from_millis(100),
                    max: Duration::from_millis(300),
                },
                count: None,
            };
            let found = means(&delay(Some("start")), runtime, 10);
            assert_eq!(found, Ok(Means::Proxy(expected)));
            let empty = means(&Action::EmptyListing { count: Some(2) }, runtime, 1);
            let Ok(Means::Proxy(rule)) = empty else {
                panic!("{empty:?}");
            };
            assert_eq!((rule.effect, rule.count), (Effect::EmptyListing, Some(2)));
        }
    }

    #[test]
    fn the_oci_adapter_is_struck_by_its_runtime() {
        let found = means(&delay(Some("stop")), RuntimeKind::Oci, 10).unwrap();
        let expected = ChaosRule {
            verb: "kill",
            count: None,
            fault: json!({ "slow": { "millis": 200 } }),
        };
        assert_eq!(found, Means::Chaos(vec![expected]));
        let Ok(Means::Chaos(all)) = means(&delay(None), RuntimeKind::Oci, 10) else {
            panic!("no rules");
        };
        assert_eq!(all.len(), CHAOS_VERBS.len());
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        let error = |class| Action::RuntimeError {
            call: Some("start".to_owned()),
            class,
            count: None,
        };
        let lists = Action::RuntimeError {
            call: Some("list".to_owned()),
            class: ErrorClass::Unknown,
            count: None,
        };
        let hang = Action::RuntimeHang { call: None };
        let code = Action::ExitBeforeStart {
            count: 1,
            code: 256,
        };
        let oci = RuntimeKind::Oci;
        let cases = [
            (&error(ErrorClass::NotFound), oci, "classes"),
            (
                &error(ErrorClass::DeadlineExceeded),
                RuntimeKind::Podman,
                "hang instead",
            ),
            (&lists, oci, "without the runtime"),
            (&hang, oci, "never carried out"),
            (&Action::EmptyListing { count: None }, oci, "reads files"),
            (&code, RuntimeKind::Podman, "256"),
            (&delay(Some("dance")), RuntimeKind::Containerd, "dance"),
        ];
        for (action, runtime, words) in cases {
            let reason = means(action, runtime, 1).unwrap_err().to_string();
            assert!(
                reason.contains(words) && reason.contains(action.name()),
                "{reason}"
            );
        }
        for runtime in ALL {
            for action in [
                Action::ExitCodeLost { count: 1 },
                Action::ExitTimeMissing { count: 1 },
                Action::KillDeadErrors,
                Action::MonitorKill,
            ] {
                assert!(means(&action, runtime, 1).is_err(), "{action:?}");
            }
        }
    }

    #[test]
    fn rules_of_the_chaos_runtime_are_understood_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("chaos");
        let mut file = ChaosRules::beside(&program, Path::new("runc"));
        let read = || Rules::read(&folder.path().join("chaos.json")).unwrap();
        assert!(read().is_none());
        let early = Action::ExitBeforeStart { count: 2, code: 3 };
        let lost = Action::RuntimeLostReply {
            call: "delete".to_owned(),
            count: 1,
        };
        let failing = Action::RuntimeError {
            call: None,
            class: ErrorClass::Unknown,
            count: Some(1),
        };
        let mut names = Vec::new();
        for action in [early, lost, failing, delay(None)] {
            let Means::Chaos(rules) = means(&action, RuntimeKind::Oci, 1).unwrap() else {
                panic!("{action:?}");
            };
            names.push(file.add(&rules).unwrap());
        }
        assert_eq!(read().unwrap().rules.len(), 1 + 1 + 5 + 5);
        let fired =
            "{\"rule\":\"fault-1.0\"}\n{\"rule\":\"fault-1.1\"}\n{\"rule\":\"fault-10.0\"}\n";
        fs::write(folder.path().join("chaos.json.fired"), fired).unwrap();
        assert_eq!(file.hits(&names[0]).unwrap(), 2);
        assert_eq!(file.hits(&names[1]).unwrap(), 0);
        for name in &names {
            file.remove(name).unwrap();
        }
        assert!(read().unwrap().rules.is_empty());
    }
}
