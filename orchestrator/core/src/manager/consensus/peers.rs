//! What a leader knows of the other members: who is in reach, and how far they are.

use raft::{ProgressState, SnapshotStatus};

use super::Consensus;

/// A learner this close to the end of the log has caught up.
const CAUGHT_UP_WITHIN: u64 = 64;

impl Consensus {
    /// How many of the voters without `member` this leader has heard of within an election
    /// timeout, itself included, and how many of them a majority is.
    pub fn quorum_without(&self, member: u64) -> (usize, usize) {
        let timeout = u32::try_from(self.raw.raft.election_timeout()).unwrap_or(u32::MAX);
        let timeout = self.tick.saturating_mul(timeout);
        let is_near = |voter: &&u64| {
            let heard = self.heard.get(*voter);
            **voter == self.member() || heard.is_some_and(|at| self.ticked.since(*at) <= timeout)
        };
        let voters = self.conf().voters.iter();
        let others: Vec<&u64> = voters.filter(|voter| **voter != member).collect();
        let near = others.iter().copied().filter(is_near).count();
        (near, others.len() / 2 + 1)
    }

    /// The learner, if any, that holds nearly all of the log and could vote.
    pub fn caught_up_learner(&self) -> Option<u64> {
        let progress = self.raw.raft.prs();
        let close = |learner: &&u64| {
            progress.get(**learner).is_some_and(|progress| {
                progress.state != ProgressState::Snapshot
                    && progress.recent_active
                    && progress.matched > 0
                    && progress.matched + CAUGHT_UP_WITHIN >= self.last()
            })
        };
        self.conf().learners.iter().find(close).copied()
    }

    /// Members that wait for a snapshot.
    pub fn waiting_for_snapshot(&self) -> impl Iterator<Item = u64> {
        let conf = self.conf();
        let members = conf
            .voters
            .iter()
            .chain(&conf.learners)
            .chain(&conf.voters_outgoing);
        members
            .copied()
            .filter(|member| self.waits_for_snapshot(*member))
    }

    /// True if a snapshot is on its way to the member.
    pub fn waits_for_snapshot(&self, member: u64) -> bool {
        let progress = self.raw.raft.prs().get(member);
        progress.is_some_and(|progress| progress.state == ProgressState::Snapshot)
    }

    /// A snapshot did not arrive: find out again what the member has.
    pub fn snapshot_lost(&mut self, member: u64) {
        self.raw.report_snapshot(member, SnapshotStatus::Failure);
    }

    /// A member's process is gone: what was sent last may not have arrived.
    pub fn unreachable(&mut self, member: u64) {
        if self.leads() {
            self.raw.report_unreachable(member);
        }
    }

    /// The voter in reach that is furthest.
    pub(super) fn successor(&self) -> Option<u64> {
        let progress = self.raw.raft.prs();
        let others = self
            .conf()
            .voters
            .iter()
            .copied()
            .filter(|voter| *voter != self.member());
        let alive = others.filter_map(|voter| {
            let progress = progress
                .get(voter)
                .filter(|progress| progress.recent_active)?;
            Some((progress.matched, std::cmp::Reverse(voter)))
        });
        alive.max().map(|(_, std::cmp::Reverse(voter))| voter)
    }
}
