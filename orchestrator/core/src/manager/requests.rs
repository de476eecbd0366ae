//! The leader's side of every client: who waits for which answer.
//!
//! A request that changes something is answered when it is applied; its position in the log is
//! remembered until then. A read is answered from the store after the others have confirmed that
//! this manager still led when the read had already arrived. Reads that arrive while a round of
//! confirmation is under way share the next one. When leadership is lost all of them are dropped
//! without an answer: whether a request took effect is then open, and clients ask again.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{NodeId, Operation, OperationError, Outcome, RequestId};

use super::consensus::Consensus;
use crate::message::Message;
use crate::process::Context;

/// A request whose answer needs no change of the store.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub from: NodeId,
    pub id: RequestId,
    pub operation: Operation,
}

/// Who waits for what, during one leadership.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// By log position.
    proposed: BTreeMap<u64, (NodeId, RequestId)>,
    under_way: BTreeSet<RequestId>,
    /// Number of the last round of confirmation.
    round: u64,
    /// Reads of the round that is under way; empty if none is.
    confirming: Vec<Read>,
    /// Reads of the next round.
    waiting: Vec<Read>,
    /// Reads that are confirmed, once this position is applied.
    confirmed: Vec<(u64, Vec<Read>)>,
}

impl Requests {
    /// True if the same request was proposed and is not applied yet.
    pub fn is_under_way(&self, id: RequestId) -> bool {
        self.under_way.contains(&id)
    }

    /// A request got a position in the log.
    pub fn proposed(&mut self, index: u64, from: NodeId, id: RequestId) {
        self.proposed.insert(index, (from, id));
        self.under_way.insert(id);
    }

    /// The request at a position was applied; answers it if this leader proposed it.
    pub fn applied(
        &mut self,
        index: u64,
        result: Option<Result<Outcome, OperationError>>,
        ctx: &mut Context<'_>,
    ) {
        let Some((from, id)) = self.proposed.remove(&index) else {
            return;
        };
        self.under_way.remove(&id);
        if let Some(result) = result {
            ctx.send(from, Message::Response { id, result });
        }
    }

    /// A read arrived.
    pub fn read(&mut self, read: Read) {
        self.waiting.push(read);
    }

    /// Starts the next round of confirmation if reads wait for one. True if it did.
    pub fn start_round(&mut self, consensus: &mut Consensus) -> bool {
        if self.waiting.is_empty() || !self.confirming.is_empty() || !consensus.may_read() {
            return false;
        }
        self.round += 1;
        self.confirming = std::mem::take(&mut self.waiting);
        consensus.read_index(self.round);
        true
    }

    /// A round was confirmed; its reads can be answered once `index` is applied.
    pub fn confirm(&mut self, round: u64, index: u64) {
        if round == self.round && !self.confirming.is_empty() {
            self.confirmed
                .push((index, std::mem::take(&mut self.confirming)));
        }
    }

    /// Takes out the reads that can be answered now.
    pub fn answerable(&mut self, applied: u64) -> Vec<Read> {
        if self.confirmed.is_empty() {
            return Vec::new();
        }
        let ready: Vec<(u64, Vec<Read>)> = self
            .confirmed
            .extract_if(.., |(index, _)| *index <= applied)
            .collect();
        ready.into_iter().flat_map(|(_, reads)| reads).collect()
    }
}
