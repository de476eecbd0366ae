//! What clients asked and were told, as the events of a trace; and its judge, which is the one of
//! scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wavetank_checkers::{Judge, Judgement};
use wavetank_model::{NodeId, Notice, Operation, OperationError, Outcome, RequestId};
use wavetank_node::Observer;
use wavetank_scenario::{Plan, Scenario};
use wavetank_trace::{Event, EventId, FORMAT_VERSION, Header, Payload, VirtualTime, Writer};

/// A pause between two acknowledged writes that says that there was no leader.
const OUTAGE: Duration = Duration::from_millis(200);

/// Everything that happened so far, in the order in which it did.
pub struct History {
    began: Instant,
    events: Mutex<Vec<Event>>,
    writes: watch::Sender<u64>,
}

impl History {
    /// It begins now.
    pub fn new() -> Self {
        History {
            began: Instant::now(),
            events: Mutex::default(),
            writes: watch::Sender::new(0),
        }
    }

    /// Something happened.
    pub fn say(&self, host: Option<NodeId>, payload: Payload) {
        let mut events = self.events.lock().unwrap();
        let id = EventId(events.len() as u64 + 1);
        let at = VirtualTime::from_duration(self.began.elapsed());
        events.push(Event {
            id,
            at,
            host,
            cause: None,
            payload,
        });
    }

    /// How many writes are acknowledged, now and later.
    pub fn writes(&self) -> watch::Receiver<u64> {
        self.writes.subscribe()
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Every key that somebody tried to write.
    pub fn keys_written(&self) -> BTreeSet<String> {
        let events = self.events.lock().unwrap();
        let puts = events.iter().filter_map(|event| put_of(event));
        puts.map(|(_, key, _)| key.to_owned()).collect()
    }
}

/// Puts what one client asks and is told into the history. The driver tells it of a request before
/// the request can leave, and of an answer once it is there.
pub struct Witness {
    node: NodeId,
    history: Arc<History>,
}

impl Witness {
    /// Of this client.
    pub fn new(node: NodeId, history: &Arc<History>) -> Self {
        let history = Arc::clone(history);
        Witness { node, history }
    }
}

impl Observer for Witness {
    fn notice(&self, _notice: Notice) {}

    fn invoked(&self, request: RequestId, operation: &Operation) {
        let operation = operation.clone();
        let payload = Payload::ClientInvoked { request, operation };
        self.history.say(Some(self.node), payload);
    }

    fn returned(&self, request: RequestId, result: &Result<Outcome, OperationError>) {
        let is_write = matches!(result, Ok(Outcome::Done { .. }));
        let result = result.clone();
        let payload = Payload::ClientReturned { request, result };
        self.history.say(Some(self.node), payload);
        if is_write {
            self.history.writes.send_modify(|writes| *writes += 1);
        }
    }
}

/// A plan in which nothing but the clients' history is judged.
fn plan() -> Plan {
    let text = "scenario: 1\nname: storm\nhorizon: 10m\nsettle: 1m\n\
                cluster: { managers: 3, agents: 1 }\nexpect: { invariants: [linearizable] }\n";
    let scenario = Scenario::parse("storm.yaml", text, &|file| Err(format!("no {file}")));
    scenario.expect("a scenario").plan(1)
}

/// Judges a history as the history of a scenario is judged.
pub fn judge(events: &[Event]) -> Judgement {
    let mut judge = Judge::new(&plan());
    events.iter().for_each(|event| judge.observe(event));
    judge.finish()
}

/// The request, key and value of a write.
fn put_of(event: &Event) -> Option<(RequestId, &str, &str)> {
    match &event.payload {
        Payload::ClientInvoked {
            request,
            operation: Operation::Put { key, value, .. },
        } => Some((*request, key, value)),
        _ => None,
    }
}

/// The same history, but for the last read of one key with this prefix: it answers what the key
/// was before its last acknowledged write, as if that had been lost.
pub fn without_a_write(events: &[Event], prefix: &str) -> Vec<Event> {
    let (read, key) = last_read(events, prefix).expect("a key was read");
    let mut values = vec![None];
    let puts = events.iter().filter_map(put_of);
    values.extend(
        puts.filter(|put| put.1 == key)
            .map(|put| Some(put.2.to_owned())),
    );
    // Of a key with many writes the first one, which others have certainly replaced.
    let stale = if values.len() > 2 {
        values.swap_remove(1)
    } else {
        None
    };
    let mut events = events.to_vec();
    for event in &mut events {
        if let Payload::ClientReturned { request, result } = &mut event.payload
            && *request == read
        {
            let value = stale.clone();
            *result = Ok(Outcome::Value { value });
        }
    }
    events
}

fn last_read(events: &[Event], prefix: &str) -> Option<(RequestId, String)> {
    events.iter().rev().find_map(|event| match &event.payload {
        Payload::ClientInvoked {
            request,
            operation: Operation::Get { key },
        } if key.starts_with(prefix) => Some((*request, key.clone())),
        _ => None,
    })
}

/// Writes the history where `wavetank check` can judge it again; says where.
pub fn keep(events: &[Event], seed: u64) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{seed}.jsonl"));
    let header = Header {
        wavetank_trace: FORMAT_VERSION,
        world: "real".to_owned(),
        seed,
        plan: serde_json::to_value(plan()).unwrap(),
    };
    let out = BufWriter::new(File::create(&path).unwrap());
    let mut writer = Writer::new(out, &header).unwrap();
    for event in events {
        writer.write(event).unwrap();
    }
    writer.finish().unwrap();
    format!("the history is in {}", path.display())
}

/// How the time was spent, for people.
pub fn figures(events: &[Event]) -> String {
    let acknowledged = |event: &&Event| {
        let Payload::ClientReturned { result, .. } = &event.payload else {
            return false;
        };
        matches!(result, Ok(Outcome::Done { .. }))
    };
    let moments: Vec<VirtualTime> = events.iter().filter(acknowledged).map(|it| it.at).collect();
    let gaps = moments.windows(2).map(|pair| pair[1].since(pair[0]));
    let outages: Vec<Duration> = gaps.filter(|gap| *gap > OUTAGE).collect();
    let without: Duration = outages.iter().sum();
    let all = moments
        .last()
        .map_or(Duration::ZERO, |last| last.since(moments[0]));
    let rate = moments.len() as f64 / (all - without).as_secs_f64();
    format!(
        "{} writes acknowledged in {all:.1?}; {} outages of more than {OUTAGE:?}, together \
         {without:.1?}, the longest {:.1?}; {rate:.0} writes per second besides",
        moments.len(),
        outages.len(),
        outages.iter().max().copied().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use wavetank_checkers::Verdict;
    use wavetank_model::{Incarnation, Revision};
    use wavetank_trace::Phase;

    use super::*;

    /// A history of requests that were answered one after the other.
    fn told(requests: &[(Operation, Outcome)]) -> Vec<Event> {
        let history = History::new();
        for phase in [Phase::Faults, Phase::Settle] {
            history.say(None, Payload::Phase { phase });
        }
        for (sequence, (operation, outcome)) in (1..).zip(requests.iter().cloned()) {
            let request = RequestId {
                client: NodeId::client(1),
                incarnation: Incarnation(1),
                sequence,
            };
            history.say(None, Payload::ClientInvoked { request, operation });
            let result = Ok(outcome);
            history.say(None, Payload::ClientReturned { request, result });
        }
        history.events()
    }

    fn put(key: &str, value: &str) -> (Operation, Outcome) {
        let (key, value) = (key.to_owned(), value.to_owned());
        let claim = None;
        let revision = Revision(1);
        (
            Operation::Put { key, value, claim },
            Outcome::Done { revision },
        )
    }

    fn get(key: &str, value: &str) -> (Operation, Outcome) {
        let value = Some(value.to_owned());
        let key = key.to_owned();
        (Operation::Get { key }, Outcome::Value { value })
    }

    #[test]
    fn a_write_that_is_missing_in_the_end_is_found() {
        let complete = told(&[
            put("own/1", "a"),
            put("hot/1", "b"),
            put("hot/1", "c"),
            get("own/1", "a"),
            get("hot/1", "c"),
        ]);
        assert_eq!(judge(&complete).verdict, Verdict::Pass);
        for prefix in ["own/", "hot/"] {
            let judgement = judge(&without_a_write(&complete, prefix));
            assert_eq!(judgement.verdict, Verdict::Fail, "{prefix}");
            assert_eq!(judgement.findings[0].fingerprint, "linearizable/register");
        }
    }

    #[test]
    fn a_key_that_is_written_once_is_missed_as_well() {
        let events = told(&[put("own/1", "a"), get("own/1", "a")]);
        let stale = without_a_write(&events, "own/");
        let reads: BTreeMap<u64, &Payload> = (0..)
            .zip(stale.iter().map(|event| &event.payload))
            .collect();
        let Payload::ClientReturned { result, .. } = reads[&5] else {
            panic!("{reads:?}")
        };
        assert_eq!(*result, Ok(Outcome::Value { value: None }));
    }
}
