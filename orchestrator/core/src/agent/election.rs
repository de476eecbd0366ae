//! Electing one of a service's instances: each running instance of a service with an election has
//! an elector here, which competes for the lease and acts while it holds it.
//!
//! With the managers as backend an elector believes in its lease only as long as the managers
//! cannot have given it to somebody else: for one ttl after it *sent* the last request that they
//! confirmed. One failed renewal therefore costs nothing, and a holder that is cut off stops
//! acting by itself; its late writes are refused by their token. With a lock file there is neither
//! ttl nor token.

use std::collections::BTreeMap;

use wavetank_model::{
    Claim, ElectionBackend, ElectionSpec, FencingToken, InstanceId, Instant, NodeId, Notice,
    Operation, OperationError, Outcome, TaskId, Timers,
};

use super::calls::{Caller, Calls};
use super::task::Task;
use crate::client::Requests;
use crate::process::{CallId, Completion, Context, LockReply, LockRequest};

/// What a request to the managers was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Acquire,
    Renew,
    Act,
}

/// A request to the managers under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    sequence: u64,
    at: Instant,
}

/// The time in which an instance holds the lease.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    token: Option<FencingToken>,
    /// From here on somebody else may hold it.
    until: Instant,
    /// Guarded writes so far.
    acts: u64,
}

/// One instance's part in an election.
#[derive(Clone, Debug, PartialEq)]
struct Elector {
    instance: InstanceId,
    spec: ElectionSpec,
    term: Option<Term>,
    /// When to ask, renew and act next.
    next_at: Instant,
    acquire: Option<Asked>,
    renew: Option<Asked>,
    act: Option<Asked>,
    lock: Option<(CallId, Instant)>,
}

/// All electors of an agent, and their requests to the managers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Elections {
    electors: BTreeMap<TaskId, Elector>,
    requests: Requests,
    /// Who waits for which request. One that is not here was given up.
    asked: BTreeMap<u64, (TaskId, Purpose)>,
    last_sequence: u64,
}

impl Elections {
    pub fn new(requests: Requests) -> Self {
        Elections {
            electors: BTreeMap::new(),
            requests,
            asked: BTreeMap::new(),
            last_sequence: 0,
        }
    }

    pub fn next_deadline(&self) -> Instant {
        let electors = self.electors.values().map(Elector::next_deadline).min();
        electors
            .unwrap_or(Instant::NEVER)
            .min(self.requests.next_deadline())
    }

    /// Where requests go, for what they have in common with the session.
    pub fn requests(&mut self) -> &mut Requests {
        &mut self.requests
    }

    /// A task changed: its instance gets an elector, or loses it.
    pub fn follow(&mut self, ctx: &mut Context<'_>, calls: &mut Calls, task: &Task) {
        let spec = task.durable.assignment.spec.election.as_ref();
        let Some(spec) = spec else { return };
        let current = self
            .electors
            .get(&task.id())
            .map(|elector| elector.instance);
        let wanted = task.is_acting().then(|| task.instance());
        if current == wanted {
            return;
        }
        self.dismiss(ctx, calls, task.id());
        if let Some(instance) = wanted {
            self.electors
                .insert(task.id(), Elector::new(instance, spec.clone(), ctx.now()));
        }
    }

    /// An instance no longer takes part; what it held is given back.
    pub fn dismiss(&mut self, ctx: &mut Context<'_>, calls: &mut Calls, task: TaskId) {
        let Some(mut elector) = self.electors.remove(&task) else {
            return;
        };
        let is_locking = elector.lock.is_some();
        if let Some((call, _)) = elector.lock.take() {
            calls.close(call);
        }
        let token = elector.term.as_ref().and_then(|term| term.token);
        let was_holding = elector.term.is_some();
        self.lose(ctx, &mut elector);
        self.give_up(elector.acquire);
        match &elector.spec.backend {
            ElectionBackend::Managers => {
                if let Some(token) = token {
                    let lease = elector.spec.lease.clone();
                    self.submit(ctx, None, Operation::LeaseRelease { lease, token });
                }
            }
            ElectionBackend::LockFile { volume } if was_holding || is_locking => {
                // Nobody waits for the answer: an unknown call is what it will be.
                let (call, holder) = (calls.open(Caller::Lock(task)), elector.holder());
                calls.close(call);
                ctx.lock(LockRequest {
                    call,
                    volume: volume.clone(),
                    holder,
                    take: false,
                });
            }
            ElectionBackend::LockFile { .. } => {}
        }
    }

    /// Asks, renews, acts, and stops believing in leases that were not confirmed for too long.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, calls: &mut Calls, timers: &Timers) {
        self.requests.handle_timer(ctx);
        let due = |elector: &Elector| elector.next_deadline() <= ctx.now();
        let due: Vec<TaskId> = self
            .electors
            .iter()
            .filter(|(_, e)| due(e))
            .map(|(task, _)| *task)
            .collect();
        for task in due {
            if let Some(mut elector) = self.electors.remove(&task) {
                self.step(ctx, calls, timers, &mut elector);
                self.electors.insert(task, elector);
            }
        }
    }

    fn step(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
        elector: &mut Elector,
    ) {
        let now = ctx.now();
        if elector.term.as_ref().is_some_and(|term| term.until <= now) {
            self.lose(ctx, elector);
        }
        if let Some((call, deadline)) = elector.lock
            && deadline <= now
        {
            calls.close(call);
            elector.lock = None;
        }
        if elector.next_at > now {
            return;
        }
        elector.next_at = now + elector.spec.renew;
        if elector.term.is_some() {
            self.renew(ctx, elector);
            self.act(ctx, elector);
        } else {
            self.compete(ctx, calls, timers, elector);
        }
    }

    fn compete(
        &mut self,
        ctx: &mut Context<'_>,
        calls: &mut Calls,
        timers: &Timers,
        elector: &mut Elector,
    ) {
        let ElectionBackend::LockFile { volume } = &elector.spec.backend else {
            return self.acquire(ctx, elector);
        };
        if elector.lock.is_some() {
            return;
        }
        let call = calls.open(Caller::Lock(elector.instance.task));
        elector.lock = Some((call, ctx.now() + timers.runtime_timeout));
        let (volume, holder) = (volume.clone(), elector.holder());
        ctx.lock(LockRequest {
            call,
            volume,
            holder,
            take: true,
        });
    }

    fn acquire(&mut self, ctx: &mut Context<'_>, elector: &mut Elector) {
        let (lease, ttl) = (elector.spec.lease.clone(), elector.spec.ttl);
        if let Some(asked) = elector.acquire {
            // A grant would count from when it was asked for: this one is worth nothing any more.
            if asked.at + ttl > ctx.now() {
                return;
            }
            self.give_up(elector.acquire.take());
        }
        let operation = Operation::LeaseAcquire {
            lease,
            holder: elector.holder(),
            ttl,
        };
        elector.acquire = Some(self.ask(ctx, elector, Purpose::Acquire, operation));
    }

    fn renew(&mut self, ctx: &mut Context<'_>, elector: &mut Elector) {
        let token = elector.term.as_ref().and_then(|term| term.token);
        let Some(token) = token.filter(|_| elector.renew.is_none()) else {
            return;
        };
        let operation = Operation::LeaseRenew {
            lease: elector.spec.lease.clone(),
            token,
        };
        elector.renew = Some(self.ask(ctx, elector, Purpose::Renew, operation));
    }

    /// Does what only the holder may do: a write that carries its token.
    fn act(&mut self, ctx: &mut Context<'_>, elector: &mut Elector) {
        let Some(term) = elector.term.as_mut().filter(|_| elector.act.is_none()) else {
            return;
        };
        term.acts += 1;
        let (holder, lease) = (elector.instance.to_string(), elector.spec.lease.clone());
        let operation = Operation::Put {
            key: format!("lease/{lease}"),
            value: format!("{holder}#{}", term.acts),
            claim: Some(Claim {
                lease,
                holder,
                token: term.token,
            }),
        };
        elector.act = Some(self.ask(ctx, elector, Purpose::Act, operation));
    }

    fn ask(
        &mut self,
        ctx: &mut Context<'_>,
        elector: &Elector,
        purpose: Purpose,
        operation: Operation,
    ) -> Asked {
        let sequence = self.submit(ctx, Some((elector.instance.task, purpose)), operation);
        Asked {
            sequence,
            at: ctx.now(),
        }
    }

    fn submit(
        &mut self,
        ctx: &mut Context<'_>,
        purpose: Option<(TaskId, Purpose)>,
        operation: Operation,
    ) -> u64 {
        self.last_sequence += 1;
        if let Some(purpose) = purpose {
            self.asked.insert(self.last_sequence, purpose);
        }
        self.requests.submit(ctx, self.last_sequence, operation);
        self.last_sequence
    }

    fn give_up(&mut self, asked: Option<Asked>) {
        if let Some(asked) = asked {
            self.asked.remove(&asked.sequence);
            self.requests.cancel(asked.sequence);
        }
    }

    /// The managers answered a request.
    pub fn handle_response(&mut self, ctx: &mut Context<'_>, from: NodeId, completion: Completion) {
        let Some(answer) = self.requests.handle_response(from, completion) else {
            return;
        };
        let asked = self.asked.remove(&answer.id.sequence);
        let Some((task, purpose)) = asked else { return };
        let Some(mut elector) = self.electors.remove(&task) else {
            return;
        };
        match purpose {
            Purpose::Acquire => handle_acquired(ctx, &mut elector, &answer.result),
            Purpose::Renew => self.handle_renewed(ctx, &mut elector, &answer.result),
            Purpose::Act => {
                elector.act = None;
                if matches!(answer.result, Err(OperationError::Fenced { .. })) {
                    self.lose(ctx, &mut elector);
                }
            }
        }
        self.electors.insert(task, elector);
    }

    fn handle_renewed(
        &mut self,
        ctx: &mut Context<'_>,
        elector: &mut Elector,
        result: &Result<Outcome, OperationError>,
    ) {
        let Some(asked) = elector.renew.take() else {
            return;
        };
        match (result, &mut elector.term) {
            (Ok(Outcome::Done { .. } | Outcome::Granted { .. }), Some(term)) => {
                term.until = term.until.max(asked.at + elector.spec.ttl);
            }
            _ => self.lose(ctx, elector),
        }
    }

    /// A lock request was answered.
    pub fn handle_lock(&mut self, ctx: &mut Context<'_>, task: TaskId, reply: &LockReply) {
        let Some(elector) = self.electors.get_mut(&task) else {
            return;
        };
        elector.lock = None;
        if *reply == LockReply::Done && elector.term.is_none() {
            elector.win(ctx, None, Instant::NEVER);
        }
    }

    /// The instance stops acting, and what it asked as a holder is of no use.
    fn lose(&mut self, ctx: &mut Context<'_>, elector: &mut Elector) {
        if elector.term.take().is_none() {
            return;
        }
        self.give_up(elector.renew.take());
        self.give_up(elector.act.take());
        let (lease, instance) = (elector.spec.lease.clone(), elector.instance);
        ctx.notice(Notice::LeaseLost { lease, instance });
    }
}

fn handle_acquired(
    ctx: &mut Context<'_>,
    elector: &mut Elector,
    result: &Result<Outcome, OperationError>,
) {
    let Some(asked) = elector.acquire.take() else {
        return;
    };
    let until = asked.at + elector.spec.ttl;
    if let Ok(Outcome::Granted { token }) = result
        && until > ctx.now()
    {
        elector.win(ctx, Some(*token), until);
    }
}

impl Elector {
    fn new(instance: InstanceId, spec: ElectionSpec, now: Instant) -> Self {
        Elector {
            instance,
            spec,
            term: None,
            next_at: now,
            acquire: None,
            renew: None,
            act: None,
            lock: None,
        }
    }

    fn holder(&self) -> String {
        self.instance.to_string()
    }

    fn next_deadline(&self) -> Instant {
        let term = self.term.as_ref().map_or(Instant::NEVER, |term| term.until);
        let lock = self.lock.map_or(Instant::NEVER, |(_, deadline)| deadline);
        self.next_at.min(term).min(lock)
    }

    /// The instance holds the lease; it acts at once.
    fn win(&mut self, ctx: &mut Context<'_>, token: Option<FencingToken>, until: Instant) {
        self.term = Some(Term {
            token,
            until,
            acts: 0,
        });
        self.next_at = ctx.now();
        let (lease, instance) = (self.spec.lease.clone(), self.instance);
        ctx.notice(Notice::LeaseWon {
            lease,
            instance,
            token,
        });
    }
}
