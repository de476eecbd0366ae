//! Between our own types and the Raft library's, field by field.
//!
//! Nothing that came from the network or from a disk is ever parsed by the library's codec. Log
//! entries of the kind "membership change" are the one place where the library insists on bytes of
//! its own: those are written and read back by this file alone, and travel in our encoding.

use protobuf::{Message as _, ProtobufEnum as _};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, Message,
    MessageType, Snapshot as RaftSnapshot,
};
use serde::{Deserialize, Serialize};

use crate::message::RaftMessage;
use crate::record::{LogEntry, Snapshot};

/// One step of a membership change, as it is written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum MemberStep {
    /// Give a vote.
    Vote(u64),
    /// Let in without a vote.
    Learn(u64),
    /// Put out.
    Remove(u64),
}

/// Something that is no consensus message or log entry of this version, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

fn refused<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// A change of the membership in the library's terms. No steps: leave a joint configuration.
pub(super) fn change_of(steps: &[MemberStep]) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    for step in steps {
        let (kind, member) = match *step {
            MemberStep::Vote(member) => (ConfChangeType::AddNode, member),
            MemberStep::Learn(member) => (ConfChangeType::AddLearnerNode, member),
            MemberStep::Remove(member) => (ConfChangeType::RemoveNode, member),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = member;
        change.mut_changes().push(single);
    }
    change
}

fn steps_of(change: &ConfChangeV2) -> Vec<MemberStep> {
    let step = |single: &ConfChangeSingle| match single.get_change_type() {
        ConfChangeType::AddNode => MemberStep::Vote(single.node_id),
        ConfChangeType::AddLearnerNode => MemberStep::Learn(single.node_id),
        ConfChangeType::RemoveNode => MemberStep::Remove(single.node_id),
    };
    change.get_changes().iter().map(step).collect()
}

/// The membership change in an entry of the library's log.
pub(super) fn change_in(entry: &Entry) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    // The bytes were written by this process: by `entry_in`, or by the library when it proposed.
    change
        .merge_from_bytes(&entry.data)
        .expect("membership changes are encoded by ourselves");
    change
}

/// A log entry for a disk or the network.
pub(super) fn entry_out(entry: &Entry) -> LogEntry {
    let data = match entry.get_entry_type() {
        EntryType::EntryNormal => entry.data.to_vec(),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => encode_change(entry),
    };
    LogEntry {
        kind: entry.get_entry_type().value(),
        term: entry.term,
        index: entry.index,
        data,
        context: entry.context.to_vec(),
    }
}

/// Our encoding of the membership change in an entry; leaving a joint configuration is no bytes.
fn encode_change(entry: &Entry) -> Vec<u8> {
    let steps = steps_of(&change_in(entry));
    if steps.is_empty() {
        return Vec::new();
    }
    postcard::to_stdvec(&steps).expect("membership steps always serialize")
}

/// A log entry for the library.
pub(super) fn entry_in(entry: &LogEntry) -> Result<Entry, Refused> {
    let mut out = Entry {
        term: entry.term,
        index: entry.index,
        context: entry.context.clone().into(),
        ..Entry::default()
    };
    match EntryType::from_i32(entry.kind) {
        Some(EntryType::EntryNormal) => out.data = entry.data.clone().into(),
        Some(EntryType::EntryConfChangeV2) => {
            out.set_entry_type(EntryType::EntryConfChangeV2);
            out.data = decode_change(&entry.data)?.into();
        }
        Some(EntryType::EntryConfChange) | None => {
            return refused(format!(
                "log entry {} is of kind {}",
                entry.index, entry.kind
            ));
        }
    }
    Ok(out)
}

fn decode_change(data: &[u8]) -> Result<Vec<u8>, Refused> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let steps: Vec<MemberStep> =
        postcard::from_bytes(data).map_err(|error| Refused(error.to_string()))?;
    Ok(change_of(&steps)
        .write_to_bytes()
        .expect("membership changes always serialize"))
}

/// A digest of what an entry says and where: equal on all managers that hold the same entry.
/// FNV-1a, 64 bits.
pub(super) fn digest(entry: &Entry) -> u64 {
    let mut digest = Fnv::new();
    digest.number(entry.index);
    digest.number(entry.term);
    digest.byte(u8::try_from(entry.get_entry_type().value()).unwrap_or(u8::MAX));
    match entry.get_entry_type() {
        EntryType::EntryNormal => digest.bytes(&entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            digest.bytes(&encode_change(entry));
        }
    }
    digest.0
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
    }
    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }
}

/// A snapshot for a disk or the network. The library keeps members in hash sets: what comes out
/// of them is put in order here.
pub(super) fn snapshot_out(snapshot: &RaftSnapshot) -> Snapshot {
    let metadata = snapshot.get_metadata();
    let conf = sorted(metadata.get_conf_state().clone());
    Snapshot {
        index: metadata.index,
        term: metadata.term,
        voters: conf.voters,
        learners: conf.learners,
        voters_outgoing: conf.voters_outgoing,
        learners_next: conf.learners_next,
        auto_leave: conf.auto_leave,
        data: snapshot.data.to_vec(),
    }
}

/// A snapshot for the library.
pub(super) fn snapshot_in(snapshot: &Snapshot) -> RaftSnapshot {
    let conf = ConfState {
        voters: snapshot.voters.clone(),
        learners: snapshot.learners.clone(),
        voters_outgoing: snapshot.voters_outgoing.clone(),
        learners_next: snapshot.learners_next.clone(),
        auto_leave: snapshot.auto_leave,
        ..ConfState::default()
    };
    let mut out = RaftSnapshot {
        data: snapshot.data.clone().into(),
        ..RaftSnapshot::default()
    };
    let metadata = out.mut_metadata();
    metadata.index = snapshot.index;
    metadata.term = snapshot.term;
    metadata.set_conf_state(sorted(conf));
    out
}

/// The same members in ascending order.
pub(super) fn sorted(mut conf: ConfState) -> ConfState {
    conf.voters.sort_unstable();
    conf.learners.sort_unstable();
    conf.voters_outgoing.sort_unstable();
    conf.learners_next.sort_unstable();
    conf
}

/// A consensus message for the network.
pub(super) fn message_out(message: &Message) -> RaftMessage {
    let snapshot = message
        .snapshot
        .as_ref()
        .filter(|snapshot| !snapshot.is_empty());
    RaftMessage {
        from: message.from,
        to: message.to,
        kind: message.get_msg_type().value(),
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_out).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: snapshot.map(|snapshot| Box::new(snapshot_out(snapshot))),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
        priority: message.priority,
    }
}

/// A consensus message for the library, checked for everything that the library takes for
/// granted: it panics on a message that no library of its kind would have sent.
pub(super) fn message_in(message: &RaftMessage) -> Result<Message, Refused> {
    let kind = MessageType::from_i32(message.kind)
        .filter(|kind| travels(*kind))
        .ok_or_else(|| Refused(format!("kind {} does not travel", message.kind)))?;
    check_numbers(kind, message)?;
    check_entries(message)?;
    let mut out = Message::default();
    out.set_msg_type(kind);
    out.from = message.from;
    out.to = message.to;
    out.term = message.term;
    out.log_term = message.log_term;
    out.index = message.index;
    out.commit = message.commit;
    out.commit_term = message.commit_term;
    out.request_snapshot = message.request_snapshot;
    out.reject = message.reject;
    out.reject_hint = message.reject_hint;
    out.context = message.context.clone().into();
    out.priority = message.priority;
    let entries: Result<Vec<Entry>, Refused> = message.entries.iter().map(entry_in).collect();
    out.set_entries(entries?.into());
    match (kind, &message.snapshot) {
        (MessageType::MsgSnapshot, Some(snapshot)) => {
            check_snapshot(snapshot)?;
            out.set_snapshot(snapshot_in(snapshot));
        }
        (MessageType::MsgSnapshot, None) => return refused("it has no snapshot"),
        (_, Some(_)) => return refused("it has a snapshot"),
        (_, None) => {}
    }
    Ok(out)
}

/// Kinds that one manager may send to another. Proposals and reads are not forwarded here:
/// clients are redirected to the leader instead.
fn travels(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
    )
}

/// No log gets this long: the library may add to a smaller number without overflow.
const POSITION_MAX: u64 = u64::MAX / 4;

/// Terms and positions that make sense. The library takes term 0 for "no entry there", so that an
/// append after an entry of term 0 would fit anywhere; only the start of the log has that term.
fn check_numbers(kind: MessageType, message: &RaftMessage) -> Result<(), Refused> {
    if message.term == 0 {
        return refused("it has no term");
    }
    let positions = [
        message.index,
        message.commit,
        message.reject_hint,
        message.request_snapshot,
    ];
    let terms = [message.term, message.log_term, message.commit_term];
    if positions
        .iter()
        .chain(&terms)
        .any(|number| *number > POSITION_MAX)
    {
        return refused("it has a number out of all proportion");
    }
    if message.request_snapshot != 0 {
        return refused("it asks for a snapshot, which no manager does");
    }
    let starts = (message.index == 0, message.log_term == 0);
    if kind == MessageType::MsgAppend && starts.0 != starts.1 {
        return refused(format!(
            "entry {} has term {}",
            message.index, message.log_term
        ));
    }
    Ok(())
}

/// Entries follow each other without gap, and terms only grow, up to the sender's.
fn check_entries(message: &RaftMessage) -> Result<(), Refused> {
    let mut index = message.index;
    let mut term = message.log_term;
    for entry in &message.entries {
        if Some(entry.index) != index.checked_add(1) {
            return refused(format!("entry {} follows entry {index}", entry.index));
        }
        if entry.term < term.max(1) || entry.term > message.term {
            return refused(format!("entry {} has term {}", entry.index, entry.term));
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

/// A membership that the library can restore: voters, and nobody in two places.
pub(super) fn check_snapshot(snapshot: &Snapshot) -> Result<(), Refused> {
    let mut members: Vec<u64> = snapshot
        .voters
        .iter()
        .chain(&snapshot.learners)
        .copied()
        .collect();
    members.sort_unstable();
    let unique = members.windows(2).all(|pair| pair[0] != pair[1]);
    let somewhere = (1..=POSITION_MAX).contains(&snapshot.index);
    if !somewhere || snapshot.voters.is_empty() || !unique || members.contains(&0) {
        return refused("its snapshot has no sound membership");
    }
    let mut outgoing = snapshot.voters_outgoing.clone();
    outgoing.sort_unstable();
    let outgoing_unique = outgoing.windows(2).all(|pair| pair[0] != pair[1]);
    let outgoing_learns = snapshot
        .learners
        .iter()
        .any(|learner| outgoing.contains(learner));
    let next_known = snapshot
        .learners_next
        .iter()
        .all(|next| outgoing.contains(next) && !members.contains(next));
    if !outgoing_unique || outgoing_learns || !next_known {
        return refused("its snapshot has no sound joint membership");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(entries: Vec<LogEntry>) -> RaftMessage {
        RaftMessage {
            from: 1,
            to: 2,
            kind: MessageType::MsgAppend.value(),
            term: 5,
            log_term: 3,
            index: 7,
            entries,
            commit: 6,
            commit_term: 0,
            snapshot: None,
            request_snapshot: 0,
            reject: false,
            reject_hint: 0,
            context: vec![1, 2],
            priority: 0,
        }
    }

    fn entry(index: u64, term: u64) -> LogEntry {
        LogEntry {
            kind: 0,
            term,
            index,
            data: vec![9],
            context: vec![],
        }
    }

    fn membership(index: u64, term: u64, steps: &[MemberStep]) -> LogEntry {
        let data = postcard::to_stdvec(steps).expect("serializes");
        LogEntry {
            kind: 2,
            term,
            index,
            data,
            context: vec![],
        }
    }

    #[test]
    fn messages_survive_the_way_in_and_out() {
        let steps = [
            MemberStep::Learn(4),
            MemberStep::Vote(5),
            MemberStep::Remove(1),
        ];
        let message = append(vec![entry(8, 3), membership(9, 5, &steps)]);
        let inside = message_in(&message).expect("sound");
        assert_eq!(steps_of(&change_in(&inside.entries[1])), steps);
        assert_eq!(message_out(&inside), message);
    }

    #[test]
    fn gaps_local_kinds_and_old_terms_are_refused() {
        assert!(message_in(&append(vec![entry(9, 3)])).is_err(), "gap");
        assert!(
            message_in(&append(vec![entry(8, 2)])).is_err(),
            "term shrinks"
        );
        assert!(
            message_in(&append(vec![entry(8, 6)])).is_err(),
            "term of the future"
        );
        let local = RaftMessage {
            kind: MessageType::MsgHup.value(),
            ..append(vec![])
        };
        assert!(message_in(&local).is_err(), "local kind");
        let without = RaftMessage {
            kind: MessageType::MsgSnapshot.value(),
            ..append(vec![])
        };
        assert!(message_in(&without).is_err(), "no snapshot");
        let timeless = RaftMessage {
            term: 0,
            ..append(vec![])
        };
        assert!(message_in(&timeless).is_err(), "no term");
    }

    #[test]
    fn a_membership_change_that_is_no_change_is_refused() {
        let mut broken = membership(8, 4, &[MemberStep::Vote(4)]);
        broken.data = vec![0xff; 3];
        assert!(message_in(&append(vec![broken])).is_err());
    }

    #[test]
    fn the_digest_depends_on_place_and_content() {
        let base = entry_in(&entry(8, 3)).expect("sound");
        let moved = entry_in(&entry(9, 3)).expect("sound");
        let other = entry_in(&LogEntry {
            data: vec![8],
            ..entry(8, 3)
        })
        .expect("sound");
        assert_ne!(digest(&base), digest(&moved));
        assert_ne!(digest(&base), digest(&other));
    }
}
