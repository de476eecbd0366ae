//! I2: committed entries are the same on every manager, applied in order, and never lost; what a
//! client was told is done is in the log.
//!
//! Breaches: two managers apply entries of another epoch or digest at one position, or the same
//! entry with other changes; a manager skips or repeats positions within one boot; epochs go back
//! along the log; a client is told that a write is done at a position that nobody has applied, or
//! where the write is not. A leader that lacks a committed entry shows as soon as it commits
//! another one in its place, on itself or on those that had the first.
//!
//! Exemptions: a manager may begin anywhere after a (re)start and after a snapshot. When a
//! majority of managers has lost its disks at once (wiped, lying or damaged) and none of them has
//! caught up, committed entries may truly be gone: nothing is compared from then on.
//!
//! Only the newest positions are remembered; older ones were compared while they were new.

use std::collections::BTreeMap;

use wavetank_model::{Change, Epoch, NodeId, Notice, Operation, Outcome, RequestId, Revision};
use wavetank_model::{NodeRole, OperationError};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, HostState, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::is_death;

const ID: &str = "I2";

/// Positions whose epoch and digest are remembered.
const ENTRIES_MAX: usize = 1 << 16;
/// Positions whose changes are remembered.
const CHANGES_MAX: usize = 1 << 10;

struct Entry {
    epoch: Epoch,
    digest: u64,
    event: EventId,
    host: NodeId,
}

struct Write {
    key: String,
    value: String,
    at: Vec<Revision>,
}

/// See the file's header.
pub struct DurableCommits {
    managers: usize,
    entries: BTreeMap<Revision, Entry>,
    changes: BTreeMap<Revision, Vec<Change>>,
    /// The newest position of each manager in its current boot, once it has applied one.
    applied: BTreeMap<NodeId, Option<Revision>>,
    /// Managers that lost their disk, with the position they must reach again.
    forgetful: BTreeMap<NodeId, Revision>,
    void: bool,
    writes: BTreeMap<RequestId, Write>,
}

impl DurableCommits {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        DurableCommits {
            managers: usize::try_from(plan.cluster.managers).unwrap_or(usize::MAX),
            entries: BTreeMap::new(),
            changes: BTreeMap::new(),
            applied: BTreeMap::new(),
            forgetful: BTreeMap::new(),
            void: false,
            writes: BTreeMap::new(),
        }
    }
}

impl Checker for DurableCommits {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        if self.void {
            return;
        }
        match &event.payload {
            Payload::Notice { notice } => {
                if let Some(host) = event.host {
                    self.notice(event, host, notice, report);
                }
            }
            Payload::Host { state, .. } => self.host(event, *state, report),
            Payload::ClientInvoked {
                request,
                operation: Operation::Put { key, value, .. },
            } => {
                let write = Write {
                    key: key.clone(),
                    value: value.clone(),
                    at: Vec::new(),
                };
                self.writes.insert(*request, write);
            }
            Payload::ClientReturned { request, result } => {
                self.returned(event, *request, result, report);
            }
            _ => {}
        }
    }

    fn finish(&mut self, _end: VirtualTime, _report: &mut Report) {}
}

impl DurableCommits {
    fn notice(&mut self, event: &Event, host: NodeId, notice: &Notice, report: &mut Report) {
        match notice {
            Notice::Applied {
                revision,
                epoch,
                digest,
                changes,
            } => {
                self.in_order(event, host, *revision, report);
                let entry = Entry {
                    epoch: *epoch,
                    digest: *digest,
                    event: event.id,
                    host,
                };
                self.compare(event, *revision, entry, changes, report);
                self.remember_writes(*revision, changes);
                self.caught_up(host, *revision);
            }
            Notice::SnapshotInstalled { revision } => {
                self.applied.insert(host, Some(*revision));
                self.caught_up(host, *revision);
            }
            Notice::Recovered { truncated, .. } => {
                self.applied.insert(host, None);
                if *truncated {
                    self.lost_disk(host, report.model.store.revision);
                }
            }
            _ => {}
        }
    }

    fn host(&mut self, event: &Event, state: HostState, report: &Report) {
        let Some(host) = event.host.filter(|host| host.role == NodeRole::Manager) else {
            return;
        };
        if state == HostState::Started || is_death(state) {
            self.applied.insert(host, None);
        }
        if report.model.disturbance.forgot_at(host) == Some(event.at) {
            self.lost_disk(host, report.model.store.revision);
        }
    }

    fn lost_disk(&mut self, host: NodeId, newest: Revision) {
        self.forgetful.insert(host, newest);
        self.void |= self.forgetful.len() > self.managers / 2;
    }

    fn caught_up(&mut self, host: NodeId, revision: Revision) {
        if self
            .forgetful
            .get(&host)
            .is_some_and(|newest| revision >= *newest)
        {
            self.forgetful.remove(&host);
        }
    }

    fn in_order(&mut self, event: &Event, host: NodeId, revision: Revision, report: &mut Report) {
        let before = self.applied.insert(host, Some(revision)).flatten();
        let Some(before) = before.filter(|before| before.next() != revision) else {
            return;
        };
        report.findings.add(Breach {
            checker: ID,
            kind: "applied-out-of-order",
            cause: format!("{host} applied entry {revision} right after entry {before}"),
            at: event.at,
            witnesses: vec![event.id],
        });
    }

    fn compare(
        &mut self,
        event: &Event,
        revision: Revision,
        entry: Entry,
        changes: &[Change],
        report: &mut Report,
    ) {
        let Some(first) = self.entries.get(&revision) else {
            // A position that is older than all that is remembered can no longer be compared.
            if self
                .entries
                .first_key_value()
                .is_none_or(|(oldest, _)| revision > *oldest)
            {
                self.remember(event, revision, entry, changes, report);
            }
            return;
        };
        let same = (first.epoch, first.digest) == (entry.epoch, entry.digest);
        let known = self.changes.get(&revision);
        let kind = match known {
            _ if !same => "entries-differ",
            Some(known) if known != changes => "changes-differ",
            _ => return,
        };
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause: format!(
                "{} applied another entry {revision} (epoch {}) than {} (epoch {})",
                entry.host, entry.epoch, first.host, first.epoch
            ),
            at: event.at,
            witnesses: vec![first.event, event.id],
        });
    }

    fn remember(
        &mut self,
        event: &Event,
        revision: Revision,
        entry: Entry,
        changes: &[Change],
        report: &mut Report,
    ) {
        if let Some((before, older)) = self.entries.range(..revision).next_back()
            && older.epoch > entry.epoch
        {
            report.findings.add(Breach {
                checker: ID,
                kind: "epoch-went-back",
                cause: format!(
                    "entry {revision} is of epoch {}, but entry {before} before it of epoch {}",
                    entry.epoch, older.epoch
                ),
                at: event.at,
                witnesses: vec![older.event, event.id],
            });
        }
        self.entries.insert(revision, entry);
        self.changes.insert(revision, changes.to_vec());
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_first();
        }
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_first();
        }
    }

    fn remember_writes(&mut self, revision: Revision, changes: &[Change]) {
        for change in changes {
            let Change::Entry { key, value, .. } = change else {
                continue;
            };
            for write in self.writes.values_mut() {
                let new = write.at.last() != Some(&revision);
                if new && write.key == *key && write.value == *value {
                    write.at.push(revision);
                }
            }
        }
    }

    fn returned(
        &mut self,
        event: &Event,
        request: RequestId,
        result: &Result<Outcome, OperationError>,
        report: &mut Report,
    ) {
        let write = self.writes.remove(&request);
        let Ok(Outcome::Done { revision }) = result else {
            return;
        };
        let client = request.client;
        let (kind, cause) = if *revision > report.model.store.revision {
            let cause = format!("{client} was told of entry {revision}, which nobody has applied");
            ("acknowledged-not-committed", cause)
        } else if let Some(write) = write.filter(|write| !write.at.contains(revision)) {
            let cause = format!(
                "{client} was told that key {} is written in entry {revision}, where it is not",
                write.key
            );
            ("acknowledged-write-missing", cause)
        } else {
            return;
        };
        let (at, witnesses) = (event.at, vec![event.id]);
        report.findings.add(Breach {
            checker: ID,
            kind,
            cause,
            at,
            witnesses,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Trace, node, spec};
    use wavetank_model::NodeStatus;

    fn put(key: &str) -> Operation {
        Operation::Put {
            key: key.into(),
            value: "v".into(),
            claim: None,
        }
    }

    fn entry(key: &str) -> Change {
        let (key, value) = (key.into(), "v".into());
        Change::Entry {
            key,
            value,
            lease: None,
            token: None,
            holder: None,
        }
    }

    #[test]
    fn equal_logs_pass() {
        let mut trace = Trace::started(&spec());
        trace.apply_at(2, 1, 1, 1, trace_changes());
        let request = trace.invoked(2, put("k"));
        let revision = trace.apply(vec![entry("k")]);
        trace.returned(request, Ok(Outcome::Done { revision }));
        trace.host(NodeId::manager(1), HostState::Killed);
        trace.host(NodeId::manager(1), HostState::Started);
        trace.apply_at(1, 1, 1, 1, trace_changes());
        assert!(trace.findings(&["I2"]).is_empty());
    }

    fn trace_changes() -> Vec<Change> {
        vec![node(1, NodeStatus::Ready), node(2, NodeStatus::Ready)]
    }

    #[test]
    fn another_entry_at_the_same_place_fails() {
        let mut trace = Trace::started(&spec());
        trace.apply_at(2, 1, 2, 99, vec![]);
        assert_eq!(trace.findings(&["I2"]), ["I2/entries-differ"]);
    }

    #[test]
    fn the_same_entry_with_other_changes_fails() {
        let mut trace = Trace::started(&spec());
        trace.apply_at(2, 1, 1, 1, vec![]);
        assert_eq!(trace.findings(&["I2"]), ["I2/changes-differ"]);
    }

    #[test]
    fn a_gap_fails() {
        let mut trace = Trace::started(&spec());
        trace.apply_at(1, 4, 1, 4, vec![]);
        assert_eq!(trace.findings(&["I2"]), ["I2/applied-out-of-order"]);
    }

    #[test]
    fn an_answer_without_its_write_fails() {
        let mut trace = Trace::started(&spec());
        let first = trace.invoked(2, put("k"));
        let revision = trace.apply(vec![entry("other")]);
        trace.returned(first, Ok(Outcome::Done { revision }));
        let second = trace.invoked(2, put("k"));
        trace.returned(
            second,
            Ok(Outcome::Done {
                revision: Revision(77),
            }),
        );
        let found = trace.findings(&["I2"]);
        assert_eq!(
            found,
            [
                "I2/acknowledged-write-missing",
                "I2/acknowledged-not-committed"
            ]
        );
    }

    #[test]
    fn a_lost_majority_may_lose_entries() {
        let mut trace = Trace::started(&spec());
        trace.host(NodeId::manager(2), HostState::Wiped);
        trace.host(NodeId::manager(3), HostState::Wiped);
        trace.apply_at(2, 1, 2, 99, vec![]);
        assert!(trace.findings(&["I2"]).is_empty());
    }
}
