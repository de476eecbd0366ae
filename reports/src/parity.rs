//! A simulated run and a real one of the same plan, side by side: what became of services, nodes,
//! requests and faults, without times, ids and whatever else differs between two real runs.
//!
//! # What is left out
//! Times; ids of tasks, sessions, requests; digests; which node a task was placed on; the states
//! that a task passes on its way to running; restarts on the way to the same end; who leads, and
//! how often that changed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use wavetank_model::{Change, Notice, Revision, ServiceName, TaskState};
use wavetank_port::ExitCode;
use wavetank_trace::{Event, FaultState, Payload};

/// Something that was one way in the simulation and another in reality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is about, as in `service web, slot 2`.
    pub what: String,
    /// How it went in the simulation.
    pub simulated: String,
    /// How it went in reality.
    pub real: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            what,
            simulated,
            real,
        } = self;
        write!(f, "{what}: simulated {simulated}; real {real}")
    }
}

/// How two runs of one plan differ, in order of what it is about.
pub fn differences(simulated: &[Event], real: &[Event]) -> Vec<Difference> {
    let (simulated, real) = (History::of(simulated), History::of(real));
    let mut about: Vec<&String> = simulated.0.keys().chain(real.0.keys()).collect();
    about.sort();
    about.dedup();
    let differing = about.into_iter().filter_map(|what| {
        let (one, other) = (simulated.told(what), real.told(what));
        (one != other).then(|| Difference {
            what: what.clone(),
            simulated: one,
            real: other,
        })
    });
    differing.collect()
}

/// What became of each thing, in order, without repetition.
#[derive(Default)]
struct History(BTreeMap<String, Vec<String>>);

impl History {
    fn of(events: &[Event]) -> Self {
        let mut history = History::default();
        let mut applied = Revision(0);
        let mut exits: BTreeMap<(String, String), u32> = BTreeMap::new();
        for event in events {
            match &event.payload {
                Payload::Fault { name, state, .. } if *state != FaultState::Hit => {
                    history.add(format!("fault {name}"), kebab(state));
                }
                Payload::ClientReturned { request, result } if request.client.number == 1 => {
                    let ending = match result {
                        Ok(_) => "done".to_owned(),
                        Err(error) => format!("refused ({error})"),
                    };
                    history.push("the operator's requests".to_owned(), ending);
                }
                Payload::Notice {
                    notice:
                        Notice::Applied {
                            revision, changes, ..
                        },
                } if *revision > applied => {
                    applied = *revision;
                    for change in changes {
                        history.change(change, &mut exits);
                    }
                }
                _ => {}
            }
        }
        for ((service, code), count) in exits {
            history.push(
                format!("service {service}, ends with {code}"),
                count.to_string(),
            );
        }
        history
    }

    fn change(&mut self, change: &Change, exits: &mut BTreeMap<(String, String), u32>) {
        match change {
            Change::Node { node, status, .. } => self.add(node.to_string(), kebab(status)),
            Change::Service { spec, rollout, .. } => {
                self.add(
                    format!("service {}, rollout", name(&spec.name)),
                    kebab(rollout),
                );
            }
            Change::ServiceRemoved { service } => {
                self.add(
                    format!("service {}, rollout", name(service)),
                    "removed".to_owned(),
                );
            }
            Change::Task {
                service,
                slot,
                generation,
                status,
                ..
            } => {
                let state = status.state;
                let settles = state.is_terminal() || state == TaskState::Running;
                if settles {
                    let what = format!("service {}, slot {slot}", name(service));
                    self.add(what, format!("{} ({generation})", kebab(&state)));
                }
                if let (true, Some(exit)) = (state.is_terminal(), status.exit) {
                    let code = match exit.code {
                        ExitCode::Known(code) => code.to_string(),
                        ExitCode::Unknown => "an unknown code".to_owned(),
                    };
                    *exits.entry((name(service), code)).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    /// Adds what is not the same as before.
    fn add(&mut self, what: String, state: String) {
        let states = self.0.entry(what).or_default();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }

    fn push(&mut self, what: String, state: String) {
        self.0.entry(what).or_default().push(state);
    }

    fn told(&self, what: &str) -> String {
        self.0
            .get(what)
            .map_or_else(|| "never".to_owned(), |states| states.join(", "))
    }
}

fn name(service: &ServiceName) -> String {
    service.to_string()
}

/// As traces spell it.
fn kebab(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use wavetank_trace::{EventId, VirtualTime};

    use super::*;

    fn fault(at: u64, state: FaultState) -> Event {
        Event {
            id: EventId(at),
            at: VirtualTime(at),
            host: None,
            cause: None,
            payload: Payload::Fault {
                fault: 0,
                name: "kill".to_owned(),
                action: "process-kill".to_owned(),
                state,
                disturbs: Vec::new(),
                detail: String::new(),
            },
        }
    }

    #[test]
    fn times_do_not_differ_and_deeds_do() {
        let simulated = [fault(1, FaultState::Armed), fault(5, FaultState::Fired)];
        let later = [fault(2, FaultState::Armed), fault(9, FaultState::Fired)];
        assert_eq!(differences(&simulated, &later), []);
        let found = differences(&simulated, &later[..1]);
        let lines: Vec<String> = found.iter().map(Difference::to_string).collect();
        assert_eq!(lines, ["fault kill: simulated armed, fired; real armed"]);
    }
}
