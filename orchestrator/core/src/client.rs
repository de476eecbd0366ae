//! Asks the managers for something: finds the leader, follows its hints, repeats until answered.
//!
//! [`Requests`] holds the requests under way and is also embedded in agents, for leases;
//! [`Client`] makes a process of it. A request keeps its id for life: managers make it take
//! effect once, however often it arrives. Nothing here gives up on a request by itself; whoever
//! embeds it may (`cancel`).

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Incarnation, Instant, NodeId, Operation, RequestId, Timers};

use crate::message::Message;
use crate::process::{Completion, Context, Input, Process};
use crate::random::{draw_below, jittered};

/// Hints that a request follows at once before it waits: managers that point at each other must
/// not keep a message going round at the speed of the network.
const HINTS_FOLLOWED_MAX: u32 = 3;

/// What a client is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its identity.
    pub id: NodeId,
    /// Which boot this is.
    pub incarnation: Incarnation,
    /// Managers to try.
    pub managers: Vec<NodeId>,
    /// Its timers (`request_retry`).
    pub timers: Timers,
}

/// One request that was not answered yet.
#[derive(Clone, Debug, PartialEq)]
struct Pending {
    operation: Operation,
    /// Who was asked last, or is to be asked at `resend_at`.
    manager: Option<NodeId>,
    resend_at: Instant,
    /// True if `manager` has not been asked yet.
    waiting: bool,
    hints_followed: u32,
}

/// Requests under way. Several at a time; they share what is known about the leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    id: NodeId,
    incarnation: Incarnation,
    managers: Vec<NodeId>,
    retry: Duration,
    /// Where the next new request goes: the last manager that answered or was pointed at.
    leader: Option<NodeId>,
    pending: BTreeMap<u64, Pending>,
    deadline: Instant,
}

impl Requests {
    /// No requests. The first one goes to a manager drawn from `rng`, so that many clients that
    /// start together do not all ask the same one.
    pub fn new(
        id: NodeId,
        incarnation: Incarnation,
        managers: &[NodeId],
        retry: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let first = draw_below(rng, managers.len() as u64);
        let leader = usize::try_from(first)
            .ok()
            .and_then(|first| managers.get(first).copied());
        Requests {
            id,
            incarnation,
            managers: managers.to_vec(),
            retry,
            leader,
            pending: BTreeMap::new(),
            deadline: Instant::NEVER,
        }
    }

    /// When [`Requests::handle_timer`] has something to do.
    pub fn next_deadline(&self) -> Instant {
        self.deadline
    }

    /// Where new requests should go, as somebody else found out.
    pub fn prefer(&mut self, leader: NodeId) {
        self.leader = Some(leader);
    }

    /// A new request. A sequence number that is under way already changes nothing.
    pub fn submit(&mut self, ctx: &mut Context<'_>, sequence: u64, operation: Operation) {
        if self.pending.contains_key(&sequence) {
            return;
        }
        let pending = Pending {
            operation,
            manager: self.leader,
            resend_at: ctx.now(),
            waiting: true,
            hints_followed: 0,
        };
        self.pending.insert(sequence, pending);
        self.send(ctx, sequence);
        self.rearm();
    }

    /// Forgets a request; whether it takes effect is then unknown.
    pub fn cancel(&mut self, sequence: u64) {
        self.pending.remove(&sequence);
        self.rearm();
    }

    /// Repeats what was not answered in time, each to the next manager.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>) {
        if ctx.now() < self.deadline {
            return;
        }
        let due = |pending: &Pending| pending.resend_at <= ctx.now();
        let due: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| due(p))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in due {
            self.suspect_leader(sequence);
            self.advance(sequence);
            self.send(ctx, sequence);
        }
        self.rearm();
    }

    /// A manager answered. Answers to other boots' requests and repeated answers are nothing.
    pub fn handle_response(&mut self, from: NodeId, completion: Completion) -> Option<Completion> {
        if completion.id.client != self.id || completion.id.incarnation != self.incarnation {
            return None;
        }
        self.pending.remove(&completion.id.sequence)?;
        self.leader = Some(from);
        self.rearm();
        Some(completion)
    }

    /// A manager said that it does not lead. The message names no request, so all that this
    /// manager was asked are meant.
    pub fn handle_redirect(&mut self, ctx: &mut Context<'_>, from: NodeId, leader: Option<NodeId>) {
        let hint = leader.filter(|leader| *leader != from);
        let asked = self.asked(from);
        if self.leader == Some(from) {
            self.leader = hint.or_else(|| self.after(from));
        }
        for sequence in asked {
            self.follow(ctx, sequence, hint);
        }
        self.rearm();
    }

    /// A manager's process is gone: what it was asked goes to the next one, after a moment, since
    /// the next one may be gone as well and would say so at once.
    pub fn handle_connection_lost(&mut self, ctx: &mut Context<'_>, peer: NodeId) {
        let asked = self.asked(peer);
        if self.leader == Some(peer) {
            self.leader = self.after(peer);
        }
        for sequence in asked {
            self.postpone(ctx, sequence);
        }
        self.rearm();
    }

    fn asked(&self, manager: NodeId) -> Vec<u64> {
        let asked = |pending: &Pending| pending.manager == Some(manager) && !pending.waiting;
        self.pending
            .iter()
            .filter(|(_, p)| asked(p))
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    fn follow(&mut self, ctx: &mut Context<'_>, sequence: u64, hint: Option<NodeId>) {
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        match hint {
            Some(_) if pending.hints_followed < HINTS_FOLLOWED_MAX => {
                pending.hints_followed += 1;
                pending.manager = hint;
                self.send(ctx, sequence);
            }
            _ => self.postpone(ctx, sequence),
        }
    }

    /// Asks the next manager after a short, jittered wait.
    fn postpone(&mut self, ctx: &mut Context<'_>, sequence: u64) {
        let wait = jittered(ctx.rng(), self.retry / 8);
        self.advance(sequence);
        if let Some(pending) = self.pending.get_mut(&sequence) {
            pending.waiting = true;
            pending.resend_at = ctx.now() + wait;
        }
    }

    /// A manager that did not answer one request in time is not the first to get the next ones.
    fn suspect_leader(&mut self, sequence: u64) {
        let Some(pending) = self.pending.get(&sequence) else {
            return;
        };
        if !pending.waiting && self.leader == pending.manager {
            self.leader = self.leader.and_then(|leader| self.after(leader));
        }
    }

    /// Points a request at the next manager, unless it waits for one that it never asked.
    fn advance(&mut self, sequence: u64) {
        let next = self
            .pending
            .get(&sequence)
            .and_then(|pending| match pending.manager {
                Some(manager) if pending.waiting => Some(manager),
                Some(manager) => self.after(manager),
                None => self.managers.first().copied(),
            });
        if let Some(pending) = self.pending.get_mut(&sequence) {
            if !pending.waiting {
                pending.hints_followed = 0;
            }
            pending.manager = next;
        }
    }

    fn after(&self, manager: NodeId) -> Option<NodeId> {
        let at = self
            .managers
            .iter()
            .position(|candidate| *candidate == manager);
        let next = at.map_or(0, |at| (at + 1) % self.managers.len());
        self.managers.get(next).copied()
    }

    fn send(&mut self, ctx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        pending.waiting = false;
        pending.resend_at = ctx.now() + jittered(ctx.rng(), self.retry);
        let id = RequestId {
            client: self.id,
            incarnation: self.incarnation,
            sequence,
        };
        if let Some(manager) = pending.manager {
            ctx.send(
                manager,
                Message::Request {
                    id,
                    operation: pending.operation.clone(),
                },
            );
        }
    }

    fn rearm(&mut self) {
        let next = self.pending.values().map(|pending| pending.resend_at).min();
        self.deadline = next.unwrap_or(Instant::NEVER);
    }
}

/// One client: takes `Input::Submit`, answers with completions.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    requests: Requests,
}

impl Client {
    /// A client without requests. `rng` draws which manager is asked first.
    pub fn start(config: ClientConfig, now: Instant, rng: &mut ChaCha8Rng) -> Self {
        let _ = now;
        let ClientConfig {
            id,
            incarnation,
            managers,
            timers,
        } = config;
        let requests = Requests::new(id, incarnation, &managers, timers.request_retry, rng);
        Client { requests }
    }
}

impl Process for Client {
    fn handle(&mut self, ctx: &mut Context<'_>, input: Input) {
        match input {
            Input::Timer => self.requests.handle_timer(ctx),
            Input::Submit {
                sequence,
                operation,
            } => {
                self.requests.submit(ctx, sequence, operation);
            }
            Input::Message {
                from,
                message: Message::Response { id, result },
            } => {
                let answer = Completion { id, result };
                if let Some(answer) = self.requests.handle_response(from, answer) {
                    ctx.complete(answer.id, answer.result);
                }
            }
            Input::Message {
                from,
                message: Message::Redirect { leader },
            } => {
                self.requests.handle_redirect(ctx, from, leader);
            }
            Input::ConnectionLost { peer } => self.requests.handle_connection_lost(ctx, peer),
            Input::Cancel { sequence } => self.requests.cancel(sequence),
            // Whatever else arrives is meant for managers and agents.
            Input::Message { .. }
            | Input::Undecodable { .. }
            | Input::Runtime { .. }
            | Input::RuntimeEvent(_)
            | Input::Lock { .. } => {}
        }
    }

    fn next_deadline(&self) -> Instant {
        self.requests.next_deadline()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;
    use wavetank_model::{Backoff, OperationError, Outcome};
    use wavetank_port::WallTime;

    use super::*;
    use crate::process::Effects;

    const RETRY: Duration = Duration::from_secs(1);

    fn timers() -> Timers {
        let backoff = Backoff {
            base: RETRY,
            cap: RETRY,
        };
        Timers {
            heartbeat: RETRY,
            node_down_after: RETRY,
            down_check: RETRY,
            failover_grace: RETRY,
            session_timeout: RETRY,
            request_retry: RETRY,
            raft_heartbeat: RETRY,
            raft_election: RETRY,
            snapshot_every: 1,
            reconcile: RETRY,
            status_poll: RETRY,
            runtime_timeout: RETRY,
            pull_timeout: RETRY,
            pull_backoff: backoff,
            pull_attempts_max: None,
            replace_backoff: backoff,
            history_max: 1,
        }
    }

    /// A client, its time, and what it sent: receivers with the sequences they were asked for.
    struct Asker {
        client: Client,
        now: Instant,
        rng: ChaCha8Rng,
        sent: Vec<(NodeId, u64)>,
        completed: Vec<(u64, Result<Outcome, OperationError>)>,
    }

    impl Asker {
        fn new(seed: u64) -> Self {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let config = ClientConfig {
                id: NodeId::client(1),
                incarnation: Incarnation(4),
                managers: (1..=3).map(NodeId::manager).collect(),
                timers: timers(),
            };
            let now = Instant::ZERO;
            let client = Client::start(config, now, &mut rng);
            Asker {
                client,
                now,
                rng,
                sent: Vec::new(),
                completed: Vec::new(),
            }
        }

        fn handle(&mut self, input: Input) {
            let mut effects = Effects::default();
            let mut ctx = Context::new(self.now, WallTime(0), &mut self.rng, &mut effects);
            self.client.handle(&mut ctx, input);
            for (to, message) in effects.messages {
                if let Message::Request { id, .. } = message {
                    assert_eq!(
                        (id.client, id.incarnation),
                        (NodeId::client(1), Incarnation(4))
                    );
                    self.sent.push((to, id.sequence));
                }
            }
            for completion in effects.completions {
                self.completed
                    .push((completion.id.sequence, completion.result));
            }
        }

        fn ask(&mut self, sequence: u64) {
            let operation = Operation::Get {
                key: format!("key-{sequence}"),
            };
            self.handle(Input::Submit {
                sequence,
                operation,
            });
        }

        fn answer(&mut self, from: NodeId, sequence: u64) {
            let id = RequestId {
                client: NodeId::client(1),
                incarnation: Incarnation(4),
                sequence,
            };
            let result = Ok(Outcome::Value { value: None });
            self.handle(Input::Message {
                from,
                message: Message::Response { id, result },
            });
        }

        fn redirect(&mut self, from: NodeId, leader: Option<NodeId>) {
            self.handle(Input::Message {
                from,
                message: Message::Redirect { leader },
            });
        }

        /// Lets time pass to the next deadline; returns how long that was.
        fn wait(&mut self) -> Duration {
            let next = self.client.next_deadline();
            let waited = next.since(self.now);
            self.now = next;
            self.handle(Input::Timer);
            waited
        }

        fn last(&self) -> (NodeId, u64) {
            *self.sent.last().expect("something was sent")
        }
    }

    #[test]
    fn an_unanswered_request_goes_round_the_managers_with_one_id() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let waits: Vec<Duration> = (0..5).map(|_| asker.wait()).collect();
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= RETRY && *wait <= RETRY + RETRY / 4)
        );
        assert!(asker.sent.iter().all(|(_, sequence)| *sequence == 1));
        let asked: std::collections::BTreeSet<NodeId> =
            asker.sent.iter().map(|(to, _)| *to).collect();
        assert_eq!(asked.len(), 3, "everybody was asked");
    }

    #[test]
    fn a_hint_is_followed_at_once_and_remembered_for_the_next_request() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let (first, _) = asker.last();
        let leader = NodeId::manager(first.number % 3 + 1);
        asker.redirect(first, Some(leader));
        assert_eq!(asker.last(), (leader, 1));
        asker.answer(leader, 1);
        asker.ask(2);
        assert_eq!(asker.last(), (leader, 2));
    }

    #[test]
    fn an_answer_completes_its_request_once() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        asker.ask(2);
        let (to, _) = asker.last();
        asker.answer(to, 2);
        asker.answer(to, 2);
        asker.answer(to, 1);
        let completed: Vec<u64> = asker
            .completed
            .iter()
            .map(|(sequence, _)| *sequence)
            .collect();
        assert_eq!(completed, [2, 1]);
        assert_eq!(
            asker.client.next_deadline(),
            Instant::NEVER,
            "nothing is left to repeat"
        );
    }

    #[test]
    fn a_request_that_was_given_up_is_neither_repeated_nor_completed() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let (to, _) = asker.last();
        asker.handle(Input::Cancel { sequence: 1 });
        assert_eq!(asker.client.next_deadline(), Instant::NEVER);
        asker.answer(to, 1);
        assert_eq!(asker.completed, []);
    }

    #[test]
    fn answers_to_another_boot_complete_nothing() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let id = RequestId {
            client: NodeId::client(1),
            incarnation: Incarnation(3),
            sequence: 1,
        };
        let result = Ok(Outcome::Value { value: None });
        let message = Message::Response { id, result };
        asker.handle(Input::Message {
            from: NodeId::manager(1),
            message,
        });
        assert!(asker.completed.is_empty());
    }

    #[test]
    fn managers_that_point_at_each_other_do_not_make_a_storm() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let (one, _) = asker.last();
        let two = NodeId::manager(one.number % 3 + 1);
        for _ in 0..100 {
            asker.redirect(one, Some(two));
            asker.redirect(two, Some(one));
        }
        assert!(asker.sent.len() <= 5, "{} messages", asker.sent.len());
        assert!(
            asker.client.next_deadline() > asker.now,
            "it goes on after a wait"
        );
    }

    #[test]
    fn a_dead_manager_is_left_after_a_moment() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        asker.ask(2);
        let (dead, _) = asker.last();
        asker.handle(Input::ConnectionLost { peer: dead });
        assert_eq!(asker.sent.len(), 2, "not in the same moment");
        asker.wait();
        asker.wait();
        assert!(asker.sent[2..].iter().all(|(to, _)| *to != dead));
        assert_eq!(
            asker.now.since(Instant::ZERO).as_millis() / 250,
            0,
            "but soon"
        );
        asker.ask(3);
        assert_ne!(asker.last().0, dead, "nor is it asked first");
    }

    #[test]
    fn a_redirect_from_a_manager_that_was_not_asked_changes_nothing() {
        let mut asker = Asker::new(1);
        asker.ask(1);
        let (asked, _) = asker.last();
        let other = NodeId::manager(asked.number % 3 + 1);
        asker.redirect(other, Some(asked));
        assert_eq!(asker.sent.len(), 1);
    }

    #[test]
    fn the_same_seed_asks_in_the_same_order() {
        let play = |seed| {
            let mut asker = Asker::new(seed);
            asker.ask(1);
            let waits: Vec<Duration> = (0..6).map(|_| asker.wait()).collect();
            (asker.sent, waits)
        };
        assert_eq!(play(3), play(3));
        assert_ne!(play(3).1, play(4).1, "the waits are jittered");
    }
}
