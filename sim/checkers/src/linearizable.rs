//! Clients see one register per key, and one holder per lease.
//!
//! Registers: the history of `Put` and `Get` on each key, as clients saw it, must have an order in
//! which every request takes effect at one moment between its call and its answer, and every read
//! returns the newest write. Breach `register`: no such order exists.
//!
//! Leases, by what clients were answered: tokens of grants grow in real time and are never given
//! twice (`token-went-back`); while a lease may not have expired and was not given back, nobody
//! else is granted it (`two-holders`); a guarded write is not accepted once a newer token has been
//! granted (`stale-token-accepted`). By what the store says: tokens never go back
//! (`token-went-back`).
//!
//! Exemptions: a request that was never answered may or may not have happened, at any time after
//! its call; one that was refused never happened. Keys that lease holders write are left out: the
//! writes of agents are no part of the clients' history. Managers' clocks that run wrong may end
//! a lease early, so `two-holders` is not judged once a fault has touched clocks.
//!
//! Method: the search of Wing and Gong, done while the history comes in (Lowe's "just in time"):
//! what is kept per key is the set of all states in which the register may be, each with the open
//! requests that have taken effect in it. At each answer the sets grow by every way in which open
//! requests may have taken effect before it, and shrink to those that explain it. Memory is
//! bounded by open requests; a key with too many ways is given up, which is said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{
    Change, FencingToken, LeaseName, Operation, OperationError, Outcome, RequestId,
};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};

const ID: &str = "linearizable";

/// Ways that are followed per key. With five clients some hundred are common.
const WAYS_MAX: usize = 20_000;

#[derive(Clone, Debug)]
enum Call {
    Put(String),
    Get,
}

/// One state in which a register may be: its value, and the open requests that have taken
/// effect, each with what it read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    value: Option<String>,
    done: BTreeMap<RequestId, Option<String>>,
}

#[derive(Debug)]
struct Register {
    open: BTreeMap<RequestId, (Call, EventId)>,
    ways: BTreeSet<Way>,
    /// The newest answers, for the report.
    answered: Vec<EventId>,
    given_up: bool,
}

impl Default for Register {
    fn default() -> Self {
        let unwritten = Way {
            value: None,
            done: BTreeMap::new(),
        };
        Register {
            open: BTreeMap::new(),
            ways: BTreeSet::from([unwritten]),
            answered: Vec::new(),
            given_up: false,
        }
    }
}

impl Register {
    fn invoke(&mut self, request: RequestId, call: Call, event: EventId) {
        self.open.insert(request, (call, event));
    }

    /// Every way in which open requests may have taken effect, up to and including `request`.
    /// `None` if there are too many.
    fn explain(&self, request: RequestId) -> Option<BTreeSet<Way>> {
        let mut explained = BTreeSet::new();
        let mut seen = self.ways.clone();
        let mut todo: Vec<Way> = self.ways.iter().cloned().collect();
        while let Some(way) = todo.pop() {
            if way.done.contains_key(&request) {
                explained.insert(way);
                continue;
            }
            for (id, (call, _)) in &self.open {
                if way.done.contains_key(id) {
                    continue;
                }
                let next = way.after(*id, call);
                if seen.len() >= WAYS_MAX {
                    return None;
                }
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        Some(explained)
    }

    /// An answer: `None` for a write that is done, the value for a read. False if nothing that
    /// may have happened explains it.
    fn answer(
        &mut self,
        request: RequestId,
        read: Option<&Option<String>>,
        event: EventId,
    ) -> bool {
        let Some(explained) = self.explain(request) else {
            self.given_up = true;
            return true;
        };
        let fits = |way: &Way| {
            let seen = way.done.get(&request);
            read.is_none_or(|read| seen == Some(read))
        };
        self.ways = explained
            .into_iter()
            .filter(fits)
            .map(|way| way.without(request))
            .collect();
        self.open.remove(&request);
        self.answered.push(event);
        if self.answered.len() > 4 {
            self.answered.remove(0);
        }
        !self.ways.is_empty()
    }

    /// A refusal: the request has no effect in any way.
    fn refuse(&mut self, request: RequestId) {
        self.ways.retain(|way| !way.done.contains_key(&request));
        self.open.remove(&request);
    }
}

impl Way {
    fn after(&self, id: RequestId, call: &Call) -> Way {
        let mut next = self.clone();
        match call {
            Call::Put(value) => {
                next.value = Some(value.clone());
                next.done.insert(id, None);
            }
            Call::Get => drop(next.done.insert(id, self.value.clone())),
        }
        next
    }

    fn without(mut self, id: RequestId) -> Way {
        self.done.remove(&id);
        self
    }
}

#[derive(Clone, Debug)]
struct Grant {
    holder: String,
    token: FencingToken,
    event: EventId,
    /// No earlier than this can the lease run out.
    until: VirtualTime,
    ttl: Duration,
    released: bool,
}

#[derive(Debug)]
struct Open {
    operation: Operation,
    at: VirtualTime,
    /// The newest token that was granted to anyone before this request was made.
    newest: Option<(FencingToken, EventId)>,
}

/// See the file's header.
#[derive(Default)]
pub struct Linearizable {
    registers: BTreeMap<String, Register>,
    skipped: BTreeSet<String>,
    open: BTreeMap<RequestId, Open>,
    granted: BTreeMap<LeaseName, Grant>,
    stored: BTreeMap<LeaseName, (FencingToken, EventId)>,
}

impl Checker for Linearizable {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match &event.payload {
            Payload::ClientInvoked { request, operation } => {
                self.invoked(event, *request, operation);
            }
            Payload::ClientReturned { request, result } => {
                self.returned(event, *request, result, report);
            }
            Payload::Notice { .. } => self.applied(event, report),
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, report: &mut Report) {
        for (key, register) in self
            .registers
            .iter()
            .filter(|(_, register)| register.given_up)
        {
            let _ = register;
            report
                .inconclusive
                .insert(format!("the history of key {key} has too many ways"));
        }
    }
}

impl Linearizable {
    fn invoked(&mut self, event: &Event, request: RequestId, operation: &Operation) {
        let lease = match operation {
            Operation::Put {
                key,
                value,
                claim: None,
            } => {
                self.call(event, request, key, Call::Put(value.clone()));
                None
            }
            Operation::Get { key } => {
                self.call(event, request, key, Call::Get);
                None
            }
            Operation::Put {
                key,
                claim: Some(claim),
                ..
            } => {
                self.skip(key);
                Some(&claim.lease)
            }
            Operation::LeaseAcquire { lease, .. } | Operation::LeaseRenew { lease, .. } => {
                Some(lease)
            }
            Operation::LeaseRelease { lease, token } => {
                if let Some(grant) = self.granted.get_mut(lease)
                    && grant.token == *token
                {
                    grant.released = true;
                }
                None
            }
            _ => None,
        };
        if let Some(lease) = lease {
            let newest = self
                .granted
                .get(lease)
                .map(|grant| (grant.token, grant.event));
            let open = Open {
                operation: operation.clone(),
                at: event.at,
                newest,
            };
            self.open.insert(request, open);
        }
    }

    fn call(&mut self, event: &Event, request: RequestId, key: &str, call: Call) {
        if !self.skipped.contains(key) {
            self.registers
                .entry(key.to_owned())
                .or_default()
                .invoke(request, call, event.id);
        }
    }

    fn skip(&mut self, key: &str) {
        if self.skipped.insert(key.to_owned()) {
            self.registers.remove(key);
        }
    }

    fn returned(
        &mut self,
        event: &Event,
        request: RequestId,
        result: &Result<Outcome, OperationError>,
        report: &mut Report,
    ) {
        self.register_returned(event, request, result, report);
        let Some(open) = self.open.remove(&request) else {
            return;
        };
        let breach = match (&open.operation, result) {
            (Operation::LeaseAcquire { lease, holder, ttl }, Ok(Outcome::Granted { token })) => {
                let until = open.at + *ttl * 9 / 10;
                let (holder, event_id) = (holder.clone(), event.id);
                let (token, ttl) = (*token, *ttl);
                let grant = Grant {
                    holder,
                    token,
                    event: event_id,
                    until,
                    ttl,
                    released: false,
                };
                self.granted(event, lease, grant, &open, report)
            }
            (Operation::LeaseRenew { lease, token }, Ok(_)) => {
                if let Some(grant) = self.granted.get_mut(lease)
                    && grant.token == *token
                {
                    grant.until = grant.until.max(open.at + grant.ttl * 9 / 10);
                }
                None
            }
            (
                Operation::Put {
                    claim: Some(claim), ..
                },
                Ok(_),
            ) => {
                let newer = open
                    .newest
                    .filter(|(newest, _)| claim.token.is_some_and(|t| t < *newest));
                newer.map(|(newest, witness)| {
                    let cause = format!(
                        "a write of {} was accepted after token {newest} of lease {} was granted",
                        claim.holder, claim.lease
                    );
                    ("stale-token-accepted", cause, witness)
                })
            }
            _ => None,
        };
        if let Some((kind, cause, witness)) = breach {
            let witnesses = vec![witness, event.id];
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }

    fn register_returned(
        &mut self,
        event: &Event,
        request: RequestId,
        result: &Result<Outcome, OperationError>,
        report: &mut Report,
    ) {
        let found = self
            .registers
            .iter_mut()
            .find(|(_, register)| register.open.contains_key(&request));
        let Some((key, register)) = found.filter(|(_, register)| !register.given_up) else {
            return;
        };
        let invoked = register.open.get(&request).map(|(_, event)| *event);
        let explained = match result {
            Ok(Outcome::Value { value }) => register.answer(request, Some(value), event.id),
            Ok(_) => register.answer(request, None, event.id),
            Err(_) => {
                register.refuse(request);
                !register.ways.is_empty()
            }
        };
        if explained {
            return;
        }
        let mut witnesses = register.answered.clone();
        witnesses.extend(invoked);
        witnesses.push(event.id);
        report.findings.add(Breach {
            checker: ID,
            kind: "register",
            cause: format!("no order of the requests on key {key} explains what clients were told"),
            at: event.at,
            witnesses,
        });
        // Everything after a breach would be one as well.
        let key = key.clone();
        self.skip(&key);
    }

    fn granted(
        &mut self,
        event: &Event,
        lease: &LeaseName,
        grant: Grant,
        open: &Open,
        report: &Report,
    ) -> Option<(&'static str, String, EventId)> {
        let clocks = |action: &str| action.starts_with("clock");
        let clocks_wrong = report.model.disturbance.ever(clocks);
        let before = self.granted.get(lease).cloned();
        let breach = match (&before, open.newest) {
            (_, Some((newest, witness))) if newest >= grant.token => {
                let cause = format!(
                    "lease {lease} was granted with token {} after token {newest}",
                    grant.token
                );
                Some(("token-went-back", cause, witness))
            }
            (Some(other), _) if other.token == grant.token => {
                let cause = format!("lease {lease} was granted twice with token {}", grant.token);
                Some(("token-went-back", cause, other.event))
            }
            (Some(other), _)
                if other.token < grant.token
                    && other.holder != grant.holder
                    && !other.released
                    && !clocks_wrong
                    && event.at < other.until =>
            {
                let cause = format!(
                    "{} was granted lease {lease} while {} still had it",
                    grant.holder, other.holder
                );
                Some(("two-holders", cause, other.event))
            }
            _ => None,
        };
        if before.is_none_or(|before| before.token <= grant.token) {
            self.granted.insert(lease.clone(), grant);
        }
        breach
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        let mut breaches = Vec::new();
        for change in report.model.store.fresh_changes(event) {
            match change {
                Change::Entry {
                    key,
                    lease: Some(_),
                    ..
                } => self.skip(key),
                Change::Lease { lease, token, .. } => {
                    let before = self.stored.insert(lease.clone(), (*token, event.id));
                    if let Some((newest, witness)) = before.filter(|(newest, _)| newest > token) {
                        let cause = format!("lease {lease} went from token {newest} to {token}");
                        breaches.push((cause, vec![witness, event.id]));
                    }
                }
                _ => {}
            }
        }
        for (cause, witnesses) in breaches {
            let kind = "token-went-back";
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, seconds, spec};
    use proptest::prelude::*;
    use wavetank_model::{Claim, Revision};

    fn put(value: &str) -> Operation {
        Operation::Put {
            key: "k".into(),
            value: value.into(),
            claim: None,
        }
    }

    fn get() -> Operation {
        Operation::Get { key: "k".into() }
    }

    fn done() -> Result<Outcome, OperationError> {
        Ok(Outcome::Done {
            revision: Revision(1),
        })
    }

    fn value(value: Option<&str>) -> Result<Outcome, OperationError> {
        Ok(Outcome::Value {
            value: value.map(str::to_owned),
        })
    }

    fn refused() -> Result<Outcome, OperationError> {
        Err(OperationError::Invalid { why: "no".into() })
    }

    #[test]
    fn overlapping_requests_may_take_effect_in_any_order() {
        let mut trace = Trace::started(&spec());
        let first = trace.invoked(2, put("a"));
        let second = trace.invoked(3, put("b"));
        let read = trace.invoked(4, get());
        trace.returned(read, value(Some("b")));
        trace.returned(second, done());
        trace.returned(first, done());
        let read = trace.invoked(4, get());
        trace.returned(read, value(Some("a")));
        assert!(trace.findings(&[ID]).is_empty());
    }

    #[test]
    fn an_old_value_after_a_new_one_fails() {
        let mut trace = Trace::started(&spec());
        for text in ["a", "b"] {
            let write = trace.invoked(2, put(text));
            trace.returned(write, done());
        }
        let read = trace.invoked(3, get());
        trace.returned(read, value(Some("a")));
        assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
    }

    #[test]
    fn an_unanswered_write_may_happen_late_but_only_once() {
        let mut trace = Trace::started(&spec());
        trace.invoked(2, put("lost"));
        for (write, seen) in [("a", "a"), ("b", "lost")] {
            let request = trace.invoked(3, put(write));
            trace.returned(request, done());
            let read = trace.invoked(3, get());
            trace.returned(read, value(Some(seen)));
        }
        assert!(trace.findings(&[ID]).is_empty());
        let request = trace.invoked(3, put("c"));
        trace.returned(request, done());
        let read = trace.invoked(3, get());
        trace.returned(read, value(Some("lost")));
        assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
    }

    #[test]
    fn a_refused_write_that_is_read_fails() {
        let mut trace = Trace::started(&spec());
        let write = trace.invoked(2, put("a"));
        trace.returned(write, refused());
        let read = trace.invoked(2, get());
        trace.returned(read, value(Some("a")));
        assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
    }

    fn acquire(trace: &mut Trace, client: u32, token: u64) {
        let (lease, holder) = ("l".into(), format!("holder-{client}"));
        let operation = Operation::LeaseAcquire {
            lease,
            holder,
            ttl: seconds(10),
        };
        let request = trace.invoked(client, operation);
        trace.returned(
            request,
            Ok(Outcome::Granted {
                token: FencingToken(token),
            }),
        );
    }

    #[test]
    fn a_lease_that_ran_out_passes() {
        let mut trace = Trace::started(&spec());
        acquire(&mut trace, 2, 1);
        trace.after(seconds(11));
        acquire(&mut trace, 3, 2);
        assert!(trace.findings(&[ID]).is_empty());
    }

    #[test]
    fn two_holders_fail() {
        let mut trace = Trace::started(&spec());
        acquire(&mut trace, 2, 1);
        acquire(&mut trace, 3, 2);
        assert_eq!(trace.findings(&[ID]), ["linearizable/two-holders"]);
    }

    #[test]
    fn a_token_that_comes_again_fails() {
        let mut trace = Trace::started(&spec());
        acquire(&mut trace, 2, 1);
        trace.after(seconds(11));
        acquire(&mut trace, 3, 1);
        assert_eq!(trace.findings(&[ID]), ["linearizable/token-went-back"]);
    }

    #[test]
    fn a_guarded_write_of_an_old_holder_fails() {
        let mut trace = Trace::started(&spec());
        acquire(&mut trace, 2, 1);
        trace.after(seconds(11));
        acquire(&mut trace, 3, 2);
        let (lease, holder) = ("l".into(), "holder-2".into());
        let claim = Some(Claim {
            lease,
            holder,
            token: Some(FencingToken(1)),
        });
        let write = trace.invoked(
            2,
            Operation::Put {
                key: "g".into(),
                value: "x".into(),
                claim,
            },
        );
        trace.returned(write, done());
        assert_eq!(trace.findings(&[ID]), ["linearizable/stale-token-accepted"]);
    }

    proptest! {
        /// Histories of a real register, with requests that take effect at a random moment
        /// between call and answer, always pass.
        #[test]
        fn histories_of_a_register_pass(
            steps in proptest::collection::vec((2u32..6, 0u8..3, any::<bool>()), 1..60),
        ) {
            let mut trace = Trace::started(&spec());
            let mut register: Option<String> = None;
            let mut open = BTreeMap::new();
            for (number, (client, step, reads)) in steps.into_iter().enumerate() {
                let text = number.to_string();
                match (step, open.remove(&client)) {
                    (0, None) => {
                        let operation = if reads { get() } else { put(&text) };
                        let request = trace.invoked(client, operation);
                        open.insert(client, (request, text, reads, None));
                    }
                    (1, Some((request, text, reads, None))) => {
                        if !reads {
                            register = Some(text.clone());
                        }
                        open.insert(client, (request, text, reads, Some(register.clone())));
                    }
                    (2, Some((request, _, reads, Some(seen)))) => {
                        let read = value(seen.as_deref());
                        trace.returned(request, if reads { read } else { done() });
                    }
                    (_, other) => {
                        other.map(|kept| open.insert(client, kept));
                    }
                }
            }
            prop_assert!(trace.findings(&[ID]).is_empty());
        }
    }
}
