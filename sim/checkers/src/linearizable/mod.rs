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
//!
//! Map: `register` (the search).

mod register;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{
    Change, FencingToken, LeaseName, Operation, OperationError, Outcome, RequestId,
};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use register::{Call, Register};

const ID: &str = "linearizable";

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
    /// Which key an open request is about.
    asked: BTreeMap<RequestId, String>,
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
            self.asked.insert(request, key.to_owned());
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
        let Some(key) = self.asked.remove(&request) else {
            return;
        };
        let register = self.registers.get_mut(&key);
        let Some(register) = register.filter(|register| !register.given_up) else {
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
mod tests;
