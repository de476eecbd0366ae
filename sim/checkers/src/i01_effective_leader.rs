//! I1: at most one leader per epoch among managers, and at most one *effective* holder of a lease
//! among replicated workloads.
//!
//! Breaches:
//! - two managers say that they lead the same epoch;
//! - a fenced write with a token older than one that the store has granted or accepted before, or
//!   two holders that write with one token;
//! - an unfenced write (a lock file, no token) of a holder's term after another holder has
//!   written: A, B, A;
//! - two holders that believe at the same time to have the lock, and both write meanwhile.
//!
//! Exemptions: a holder that gets the lock again begins a new term, so A, B, A is fine when A won
//! again before its second write. Believing alone is fine: with tokens the store refuses a late
//! holder, and a lease's holder cannot know at once that it has lost it. Belief ends with
//! `LeaseLost`, when the instance no longer runs, or with its agent's process.
//!
//! Writes are taken from the store, not from clients: only an accepted write is effective.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{
    Change, ConsensusRole, Epoch, FencingToken, InstanceId, LeaseName, NodeId, Notice, TaskState,
};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::is_death;

const ID: &str = "I1";

#[derive(Debug)]
struct Belief {
    host: NodeId,
    instance: InstanceId,
    event: EventId,
    /// Its newest write while somebody else believed the same.
    wrote: Option<EventId>,
}

#[derive(Debug, Default)]
struct Lease {
    /// The newest fenced write.
    fenced: Option<(FencingToken, String, EventId)>,
    believers: BTreeMap<String, Belief>,
    /// How often each holder has won.
    terms: BTreeMap<String, u64>,
    /// The newest unfenced write: holder and term.
    writer: Option<(String, u64, EventId)>,
    /// The newest term of each holder after which somebody else wrote.
    over: BTreeMap<String, u64>,
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct EffectiveLeader {
    leaders: BTreeMap<Epoch, (NodeId, EventId)>,
    leases: BTreeMap<LeaseName, Lease>,
}

impl Checker for EffectiveLeader {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        match (&event.payload, event.host) {
            (Payload::Notice { notice }, Some(host)) => self.notice(event, host, notice, report),
            (Payload::Host { state, .. }, Some(host)) if is_death(*state) => {
                self.end_beliefs(|belief| belief.host == host);
            }
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

impl EffectiveLeader {
    fn notice(&mut self, event: &Event, host: NodeId, notice: &Notice, report: &mut Report) {
        match notice {
            Notice::RoleChanged {
                role: ConsensusRole::Leader,
                epoch,
            } => {
                self.leads(event, host, *epoch, report);
            }
            Notice::LeaseWon {
                lease,
                instance,
                token: None,
            } => {
                self.won(event, host, lease, *instance);
            }
            Notice::LeaseLost { lease, instance } => {
                let believers = self.leases.get_mut(lease).map(|lease| &mut lease.believers);
                if let Some(believers) = believers {
                    believers.remove(&instance.to_string());
                }
            }
            Notice::TaskMoved { task, status, .. } if status.state != TaskState::Running => {
                self.end_beliefs(|belief| belief.instance.task == *task);
            }
            Notice::Applied { .. } => self.applied(event, report),
            _ => {}
        }
    }

    fn leads(&mut self, event: &Event, host: NodeId, epoch: Epoch, report: &mut Report) {
        let (known, first) = *self.leaders.entry(epoch).or_insert((host, event.id));
        if known != host {
            report.findings.add(Breach {
                checker: ID,
                kind: "two-leaders-in-an-epoch",
                cause: format!("{host} and {known} both lead epoch {epoch}"),
                at: event.at,
                witnesses: vec![first, event.id],
            });
        }
    }

    fn won(&mut self, event: &Event, host: NodeId, lease: &LeaseName, instance: InstanceId) {
        let lease = self.leases.entry(lease.clone()).or_default();
        let holder = instance.to_string();
        *lease.terms.entry(holder.clone()).or_default() += 1;
        if lease.believers.len() < 2 {
            lease
                .believers
                .values_mut()
                .for_each(|belief| belief.wrote = None);
        }
        let belief = Belief {
            host,
            instance,
            event: event.id,
            wrote: None,
        };
        lease.believers.insert(holder, belief);
    }

    fn end_beliefs(&mut self, ended: impl Fn(&Belief) -> bool) {
        for lease in self.leases.values_mut() {
            lease.believers.retain(|_, belief| !ended(belief));
        }
    }

    fn applied(&mut self, event: &Event, report: &mut Report) {
        for change in report.model.store.fresh_changes(event) {
            let Change::Entry {
                lease: Some(name),
                token,
                holder: Some(holder),
                ..
            } = change
            else {
                continue;
            };
            let lease = self.leases.entry(name.clone()).or_default();
            let breach = match token {
                Some(token) => {
                    let newest = report.model.store.leases.get(name).map(|(_, token)| *token);
                    lease.fenced_write(event, name, holder, *token, newest)
                }
                None => lease
                    .unfenced_write(event, name, holder)
                    .or_else(|| lease.shared_belief(event, name, holder)),
            };
            if let Some(breach) = breach {
                report.findings.add(breach);
            }
        }
    }
}

impl Lease {
    fn fenced_write(
        &mut self,
        event: &Event,
        lease: &LeaseName,
        holder: &str,
        token: FencingToken,
        newest: Option<FencingToken>,
    ) -> Option<Breach<'static>> {
        let breach = |kind, cause, first: Option<EventId>| {
            let witnesses = first.into_iter().chain([event.id]).collect();
            Some(Breach {
                checker: ID,
                kind,
                cause,
                at: event.at,
                witnesses,
            })
        };
        let last = self.fenced.replace((token, holder.to_owned(), event.id));
        if let Some((before, other, first)) = last {
            if before > token {
                let cause = format!(
                    "{holder} wrote under lease {lease} with token {token} after {other} did with \
                     {before}"
                );
                return breach("stale-holder-wrote", cause, Some(first));
            }
            if before == token && other != holder {
                let cause = format!("{other} and {holder} share token {token} of lease {lease}");
                return breach("token-shared", cause, Some(first));
            }
        }
        let newest = newest.filter(|newest| *newest > token)?;
        let cause = format!(
            "a write of {holder} with token {token} was accepted when lease {lease} was at {newest}"
        );
        breach("stale-token-accepted", cause, None)
    }

    fn unfenced_write(
        &mut self,
        event: &Event,
        lease: &LeaseName,
        holder: &str,
    ) -> Option<Breach<'static>> {
        let term = self.terms.get(holder).copied().unwrap_or(0);
        let last = self.writer.replace((holder.to_owned(), term, event.id));
        let (before, before_term, first) = last?;
        if before != holder {
            self.over.insert(before.clone(), before_term);
        }
        if self.over.get(holder).is_none_or(|over| *over < term) {
            return None;
        }
        Some(Breach {
            checker: ID,
            kind: "stale-holder-wrote",
            cause: format!(
                "{holder} wrote under lease {lease} again after {before} had taken over"
            ),
            at: event.at,
            witnesses: vec![first, event.id],
        })
    }

    fn shared_belief(
        &mut self,
        event: &Event,
        lease: &LeaseName,
        holder: &str,
    ) -> Option<Breach<'static>> {
        if self.believers.len() < 2 {
            return None;
        }
        self.believers.get_mut(holder)?.wrote = Some(event.id);
        let writers: BTreeSet<&String> = self
            .believers
            .iter()
            .filter(|(_, belief)| belief.wrote.is_some())
            .map(|(holder, _)| holder)
            .collect();
        if writers.len() < 2 {
            return None;
        }
        let mut witnesses: Vec<EventId> = Vec::new();
        for belief in self.believers.values() {
            witnesses.extend([belief.event].into_iter().chain(belief.wrote));
        }
        Some(Breach {
            checker: ID,
            kind: "two-holders-act",
            cause: format!("{writers:?} hold lease {lease} at the same time, and both write"),
            at: event.at,
            witnesses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, instance, spec};
    use wavetank_model::TaskStatus;

    fn write(task: u64, token: Option<u64>) -> Change {
        Change::Entry {
            key: "lease/l".into(),
            value: "x".into(),
            lease: Some("l".into()),
            token: token.map(FencingToken),
            holder: Some(instance(task, 1).to_string()),
        }
    }

    fn win(trace: &mut Trace, agent: u32, task: u64) {
        let (lease, instance) = ("l".into(), instance(task, 1));
        trace.notice(
            NodeId::agent(agent),
            Notice::LeaseWon {
                lease,
                instance,
                token: None,
            },
        );
    }

    #[test]
    fn orderly_succession_passes() {
        let mut trace = Trace::started(&spec());
        trace.lead(1, 1);
        trace.lead(2, 2);
        for (task, token) in [(1, 1), (1, 2), (2, 3)] {
            trace.apply(vec![write(task, Some(token))]);
        }
        assert!(trace.findings(&["I1"]).is_empty());
    }

    #[test]
    fn a_lock_that_is_won_again_passes() {
        let mut trace = Trace::started(&spec());
        win(&mut trace, 1, 1);
        trace.apply(vec![write(1, None)]);
        trace.host(NodeId::agent(1), wavetank_trace::HostState::Killed);
        win(&mut trace, 2, 2);
        trace.apply(vec![write(2, None)]);
        let ended = TaskStatus {
            state: TaskState::Failed,
            ..TaskStatus::pending()
        };
        trace.moved(2, 2, TaskState::Running, ended);
        win(&mut trace, 1, 1);
        trace.apply(vec![write(1, None)]);
        assert!(trace.findings(&["I1"]).is_empty());
    }

    #[test]
    fn two_leaders_in_one_epoch_fail() {
        let mut trace = Trace::started(&spec());
        trace.lead(2, 1);
        assert_eq!(trace.findings(&["I1"]), ["I1/two-leaders-in-an-epoch"]);
    }

    #[test]
    fn a_late_token_fails() {
        let mut trace = Trace::started(&spec());
        trace.apply(vec![write(1, Some(1))]);
        trace.apply(vec![write(2, Some(2))]);
        trace.apply(vec![write(1, Some(1))]);
        assert_eq!(trace.findings(&["I1"]), ["I1/stale-holder-wrote"]);
    }

    #[test]
    fn a_late_lock_holder_fails() {
        let mut trace = Trace::started(&spec());
        win(&mut trace, 1, 1);
        trace.apply(vec![write(1, None)]);
        win(&mut trace, 2, 2);
        trace.apply(vec![write(2, None)]);
        trace.apply(vec![write(1, None)]);
        assert_eq!(trace.findings(&["I1"]), ["I1/stale-holder-wrote"]);
    }

    #[test]
    fn two_believers_that_both_write_fail() {
        let mut trace = Trace::started(&spec());
        win(&mut trace, 1, 1);
        win(&mut trace, 2, 2);
        trace.apply(vec![write(1, None)]);
        trace.apply(vec![write(2, None)]);
        assert_eq!(trace.findings(&["I1"]), ["I1/two-holders-act"]);
    }
}
