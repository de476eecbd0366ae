//! A simulated run and a real one of the same plan, side by side: what became of services, nodes,
//! requests and faults, without times, ids and whatever else differs between two real runs.
//!
//! # What is left out
//! Times; ids of tasks, sessions, requests; digests; which node a task was placed on, and which of
//! several alike was struck; the states that a task passes on its way to running; restarts on the
//! way to the same end; who leads, and how often that changed.
//!
//! Nodes of a role are alike, and so are the slots of a service: how many went which way is
//! compared, and what went the same way in both is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use wavetank_model::{Change, Notice, Revision, ServiceName, TaskState};
use wavetank_port::ExitCode;
use wavetank_trace::{Event, FaultState, Payload};

/// Something that was one way in the simulation and another in reality.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is about, as in `service web, slots`.
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
    let about: BTreeSet<&String> = simulated.0.keys().chain(real.0.keys()).collect();
    let differing = about.into_iter().filter_map(|what| {
        let (one, other) = (simulated.ways(what), real.ways(what));
        (one != other).then(|| Difference {
            what: what.clone(),
            simulated: beyond(&one, &other),
            real: beyond(&other, &one),
        })
    });
    differing.collect()
}

/// What became of how many.
type Ways = BTreeMap<String, usize>;

/// What one has more of than another.
fn beyond(one: &Ways, other: &Ways) -> String {
    let more = one.iter().filter_map(|(way, count)| {
        let more = count.saturating_sub(other.get(way).copied().unwrap_or(0));
        match more {
            0 => None,
            1 => Some(way.clone()),
            more => Some(format!("{more} x {way}")),
        }
    });
    let more: Vec<String> = more.collect();
    match more.is_empty() {
        true => "never".to_owned(),
        false => more.join(" | "),
    }
}

/// What became of each thing, in order, without repetition: by what it is, and which of those.
#[derive(Default)]
struct History(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl History {
    fn of(events: &[Event]) -> Self {
        let mut history = History::default();
        let mut applied = Revision(0);
        let mut exits: BTreeMap<(String, String), u32> = BTreeMap::new();
        for event in events {
            match &event.payload {
                Payload::Fault { name, state, .. } if *state != FaultState::Hit => {
                    history.add(format!("fault {name}"), "", kebab(state));
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
            Change::Node { node, status, .. } => {
                let role = format!("{}s", node.role.name());
                self.add(role, &node.to_string(), kebab(status));
            }
            Change::Service { spec, rollout, .. } => {
                self.add(
                    format!("service {}, rollout", name(&spec.name)),
                    "",
                    kebab(rollout),
                );
            }
            Change::ServiceRemoved { service } => {
                self.add(
                    format!("service {}, rollout", name(service)),
                    "",
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
                    let what = format!("service {}, slots", name(service));
                    let state = format!("{} ({generation})", kebab(&state));
                    self.add(what, &slot.to_string(), state);
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
    fn add(&mut self, what: String, which: &str, state: String) {
        let states = self.states(what, which);
        if states.last() != Some(&state) {
            states.push(state);
        }
    }

    fn push(&mut self, what: String, state: String) {
        self.states(what, "").push(state);
    }

    fn states(&mut self, what: String, which: &str) -> &mut Vec<String> {
        let all = self.0.entry(what).or_default();
        all.entry(which.to_owned()).or_default()
    }

    fn ways(&self, what: &str) -> Ways {
        let mut ways = Ways::new();
        for states in self.0.get(what).into_iter().flat_map(BTreeMap::values) {
            *ways.entry(states.join(", ")).or_default() += 1;
        }
        ways
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
    use wavetank_model::{Availability, Epoch, NodeId, NodeStatus};
    use wavetank_trace::{EventId, VirtualTime};

    use super::*;

    fn event(at: u64, payload: Payload) -> Event {
        Event {
            id: EventId(at),
            at: VirtualTime(at),
            host: None,
            cause: None,
            payload,
        }
    }

    fn fault(at: u64, state: FaultState) -> Event {
        let payload = Payload::Fault {
            fault: 0,
            name: "kill".to_owned(),
            action: "process-kill".to_owned(),
            state,
            disturbs: Vec::new(),
            detail: String::new(),
        };
        event(at, payload)
    }

    fn lines(simulated: &[Event], real: &[Event]) -> Vec<String> {
        let found = differences(simulated, real);
        found.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn times_do_not_differ_and_deeds_do() {
        let simulated = [fault(1, FaultState::Armed), fault(5, FaultState::Fired)];
        let later = [fault(2, FaultState::Armed), fault(9, FaultState::Fired)];
        assert_eq!(differences(&simulated, &later), []);
        assert_eq!(
            lines(&simulated, &later[..1]),
            ["fault kill: simulated armed, fired; real armed"]
        );
        assert_eq!(
            lines(&simulated, &[]),
            ["fault kill: simulated armed, fired; real never"]
        );
    }

    fn node(at: u64, number: u32, status: NodeStatus) -> Event {
        let change = Change::Node {
            node: NodeId::agent(number),
            status,
            availability: Availability::Active,
        };
        let notice = Notice::Applied {
            revision: Revision(at),
            epoch: Epoch(1),
            digest: 0,
            changes: vec![change],
        };
        event(at, Payload::Notice { notice })
    }

    #[test]
    fn which_of_several_alike_was_struck_is_no_difference() {
        use NodeStatus::{Down, Ready};
        let all: Vec<Event> = (1..=3).map(|it| node(it.into(), it, Ready)).collect();
        let struck = |number| [all.clone(), vec![node(9, number, Down)]].concat();
        assert_eq!(lines(&struck(1), &struck(3)), [""; 0]);
        let twice = [struck(1), vec![node(10, 2, Down)]].concat();
        assert_eq!(
            lines(&struck(3), &twice),
            ["agents: simulated ready; real ready, down"]
        );
        assert_eq!(
            lines(&struck(3), &[twice, vec![node(11, 3, Down)]].concat()),
            ["agents: simulated 2 x ready; real 2 x ready, down"]
        );
    }
}
