//! A small deterministic world for managers: a clock, links that can be cut, disks that keep what
//! was persisted. Agents, clients and everybody else are mailboxes that tests read and write.
//!
//! While the world runs it checks what must hold always: one leader per epoch, the same entry at
//! the same position everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use wavetank_core::{
    Boot, Context, Effects, Input, Manager, ManagerConfig, Message, Process, Record, Stored,
};
use wavetank_model::{
    Backoff, ConsensusRole, Epoch, Incarnation, Instant, NodeId, NodeRole, Notice, Operation,
    OperationError, Outcome, RequestId, Revision, Timers,
};
use wavetank_port::WallTime;

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLISECOND;

pub fn timers() -> Timers {
    let backoff = Backoff {
        base: Duration::from_secs(1),
        cap: Duration::from_secs(10),
    };
    Timers {
        heartbeat: Duration::from_secs(1),
        node_down_after: Duration::from_secs(5),
        down_check: Duration::from_millis(500),
        failover_grace: Duration::from_secs(3),
        session_timeout: Duration::from_secs(3),
        request_retry: Duration::from_millis(500),
        raft_heartbeat: Duration::from_millis(100),
        raft_election: Duration::from_secs(1),
        snapshot_every: 50,
        reconcile: Duration::from_secs(10),
        status_poll: Duration::from_secs(5),
        runtime_timeout: Duration::from_secs(10),
        pull_timeout: Duration::from_secs(60),
        pull_backoff: backoff,
        pull_attempts_max: None,
        replace_backoff: backoff,
        history_max: 2,
    }
}

/// What a disk does when its machine loses power in the middle of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Keeps some of the records, each whole or not at all.
    Lose,
    /// Keeps some of the records, and half of the next.
    Tear,
}

struct Host {
    manager: Option<Manager>,
    disk: Vec<Stored>,
    boot: Boot,
    incarnation: u64,
    rng: ChaCha8Rng,
    /// Voids what was meant for an earlier process.
    life: u64,
    timer: Option<u64>,
    steps: u64,
    /// Millisecond of the last timer, and how many there were in it.
    timers: (u64, u32),
}

impl Host {
    /// A manager that wants to be called again at once, for ever, stops time.
    fn count_timer(&mut self, at: u64) {
        let millisecond = at / MILLISECOND;
        self.timers = match self.timers {
            (last, count) if last == millisecond => (last, count + 1),
            _ => (millisecond, 1),
        };
        assert!(self.timers.1 < 20, "a storm of timers");
    }
}

enum Event {
    Timer {
        to: NodeId,
        life: u64,
    },
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Box<Message>,
    },
    Start {
        node: NodeId,
        life: u64,
    },
}

pub struct Cluster {
    pub now: u64,
    pub timers: Timers,
    seed: u64,
    rng: ChaCha8Rng,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    hosts: BTreeMap<NodeId, Host>,
    /// What arrived at nodes that are not managers of this world, oldest first.
    pub mail: BTreeMap<NodeId, Vec<(NodeId, Message)>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    pub notices: Vec<(u64, NodeId, Notice)>,
    /// One step in this many loses power while it writes; 0 for none.
    pub power_loss_one_in: u64,
    pub power_losses: u64,
    /// The next write of this manager that has entries in it keeps this many records only.
    pub cut_next_entries: Option<(NodeId, usize)>,
    /// One message in this many is lost; 0 for none.
    pub lose_one_in: u64,
    /// One message in this many arrives twice, the second time late; 0 for none.
    pub repeat_one_in: u64,
    /// Somebody lies: what must hold always need not.
    pub unchecked: bool,
    leaders: BTreeMap<Epoch, NodeId>,
    applied: BTreeMap<Revision, (Epoch, u64)>,
    /// Grows with everything that was persisted, sent or said.
    pub bytes: u64,
    requests: u64,
}

impl Cluster {
    /// The first `count` managers, started.
    pub fn new(count: u32, seed: u64) -> Self {
        let mut cluster = Cluster {
            now: SECOND,
            timers: timers(),
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: BTreeMap::new(),
            mail: BTreeMap::new(),
            cut: BTreeSet::new(),
            notices: Vec::new(),
            power_loss_one_in: 0,
            power_losses: 0,
            cut_next_entries: None,
            lose_one_in: 0,
            repeat_one_in: 0,
            unchecked: false,
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            bytes: 0,
            requests: 0,
        };
        let members = (1..=count)
            .map(|n| (u64::from(n), NodeId::manager(n)))
            .collect();
        for number in 1..=count {
            let boot = Boot::Bootstrap {
                members: BTreeMap::clone(&members),
            };
            cluster.add(NodeId::manager(number), boot);
        }
        cluster
    }

    /// Adds a manager and starts it.
    pub fn add(&mut self, node: NodeId, boot: Boot) {
        let seed = self.seed ^ (u64::from(node.number) << 32);
        let host = Host {
            manager: None,
            disk: Vec::new(),
            boot,
            incarnation: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            life: 0,
            timer: None,
            steps: 0,
            timers: (0, 0),
        };
        self.hosts.insert(node, host);
        self.start(node).expect("an empty disk is fine");
    }

    /// Starts a manager from its disk.
    pub fn start(&mut self, node: NodeId) -> Result<(), String> {
        let timers = self.timers.clone();
        let host = self.hosts.get_mut(&node).expect("known");
        host.incarnation += 1;
        host.life += 1;
        host.timer = None;
        let config = ManagerConfig {
            id: node,
            incarnation: Incarnation(host.incarnation),
            boot: host.boot.clone(),
            timers,
        };
        let now = Instant(self.now);
        let manager = Manager::start(config, host.disk.clone(), now, &mut host.rng)?;
        host.manager = Some(manager);
        self.step(node, Input::Timer);
        Ok(())
    }

    /// Ends a manager's process; its disk stays.
    pub fn stop(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).expect("known");
        host.manager = None;
        host.life += 1;
    }

    /// Ends a manager and empties its disk: from now on it joins.
    pub fn wipe(&mut self, node: NodeId, contacts: Vec<NodeId>) {
        self.stop(node);
        let host = self.hosts.get_mut(&node).expect("known");
        host.disk.clear();
        host.boot = Boot::Join { contacts };
    }

    pub fn disk(&mut self, node: NodeId) -> &mut Vec<Stored> {
        &mut self.hosts.get_mut(&node).expect("known").disk
    }

    /// Cuts or mends the link between two nodes, both ways.
    pub fn link(&mut self, a: NodeId, b: NodeId, up: bool) {
        self.link_one_way(a, b, up);
        self.link_one_way(b, a, up);
    }

    /// Cuts or mends what one node sends to another.
    pub fn link_one_way(&mut self, from: NodeId, to: NodeId, up: bool) {
        if up {
            self.cut.remove(&(from, to));
        } else {
            self.cut.insert((from, to));
        }
    }

    /// No more random faults.
    pub fn calm(&mut self) {
        self.lose_one_in = 0;
        self.repeat_one_in = 0;
        self.power_loss_one_in = 0;
    }

    /// Cuts or mends all links of a manager to other managers.
    pub fn isolate(&mut self, node: NodeId, isolated: bool) {
        let others: Vec<NodeId> = self
            .hosts
            .keys()
            .copied()
            .filter(|other| *other != node)
            .collect();
        for other in others {
            self.link(node, other, !isolated);
        }
    }

    pub fn manager(&self, node: NodeId) -> &Manager {
        self.hosts[&node].manager.as_ref().expect("running")
    }

    /// Inputs that were handled so far, by all managers.
    pub fn steps(&self) -> u64 {
        self.hosts.values().map(|host| host.steps).sum()
    }

    pub fn is_running(&self, node: NodeId) -> bool {
        self.hosts[&node].manager.is_some()
    }

    pub fn managers(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// The running manager that leads the newest epoch.
    pub fn leader(&self) -> Option<NodeId> {
        let last = self.notices.iter().rev();
        let mut seen = BTreeSet::new();
        let newest_role = last.filter_map(|(_, node, notice)| match notice {
            Notice::RoleChanged { role, epoch } if seen.insert(*node) => {
                Some((*epoch, *role, *node))
            }
            _ => None,
        });
        newest_role
            .filter(|(_, role, node)| *role == ConsensusRole::Leader && self.is_running(*node))
            .filter(|(_, _, node)| self.manager(*node).is_leader())
            .max_by_key(|(epoch, _, _)| *epoch)
            .map(|(_, _, node)| node)
    }

    /// Runs until there is a leader that is ready; it must come soon.
    pub fn await_leader(&mut self) -> NodeId {
        self.run_until("a leader", 20 * SECOND, |cluster| {
            cluster.leader().is_some()
        });
        self.leader().expect("just seen")
    }

    /// Runs until all running managers have applied what the leader has.
    pub fn await_agreement(&mut self) {
        self.run_until("agreement", 30 * SECOND, |cluster| {
            let Some(leader) = cluster.leader() else {
                return false;
            };
            let newest = cluster.manager(leader).applied();
            let running = cluster
                .managers()
                .into_iter()
                .filter(|node| cluster.is_running(*node));
            running
                .into_iter()
                .all(|node| cluster.manager(node).applied() == newest)
        });
    }

    pub fn run_until(&mut self, what: &str, within: u64, done: impl Fn(&Cluster) -> bool) {
        let end = self.now + within;
        while !done(self) {
            if !(self.now < end && self.advance(end)) {
                let last = self.notices.iter().rev().take(30).rev();
                let last: Vec<String> = last.map(|said| format!("{said:?}")).collect();
                panic!(
                    "no {what} within {within} ns; last words:\n{}",
                    last.join("\n")
                );
            }
        }
    }

    pub fn run_for(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.advance(end) {}
        self.now = end;
    }

    /// Sends a message from a mailbox (or anybody) to a manager.
    pub fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.chance(self.lose_one_in) {
            return;
        }
        let message = Box::new(message);
        if self.chance(self.repeat_one_in) {
            let at = self.now + MILLISECOND + self.rng.next_u64() % (300 * MILLISECOND);
            let message = message.clone();
            self.schedule(at, Event::Deliver { from, to, message });
        }
        let at = self.now + MILLISECOND + self.rng.next_u64() % (2 * MILLISECOND);
        self.schedule(at, Event::Deliver { from, to, message });
    }

    /// Hands a message to a manager without a link in between.
    pub fn hand(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.step(to, Input::Message { from, message });
    }

    /// Hands an input to a manager.
    pub fn step(&mut self, node: NodeId, input: Input) {
        self.act(node, |manager, ctx| manager.handle(ctx, input));
    }

    /// Does something with a manager and carries out the effects.
    pub fn act<T>(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Manager, &mut Context<'_>) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let host = self.hosts.get_mut(&node).expect("known");
        let manager = host.manager.as_mut().expect("running");
        let now = Instant(self.now);
        let mut ctx = Context::new(now, WallTime::default(), &mut host.rng, &mut effects);
        let result = act(manager, &mut ctx);
        host.steps += 1;
        self.carry_out(node, effects);
        result
    }

    fn carry_out(&mut self, node: NodeId, effects: Effects) {
        self.digest(&effects);
        let writes = !effects.persist.is_empty() && effects.fatal.is_none();
        let appends = effects
            .persist
            .iter()
            .any(|record| matches!(record, Record::Entries(_)));
        if let Some((_, keep)) = self
            .cut_next_entries
            .filter(|(cut, _)| appends && *cut == node)
        {
            self.cut_next_entries = None;
            return self.lose_power(node, effects.persist, keep, Tear::Lose);
        }
        if writes && self.chance(self.power_loss_one_in) {
            let tear = if self.chance(2) {
                Tear::Lose
            } else {
                Tear::Tear
            };
            let count = effects.persist.len() as u64;
            let keep = usize::try_from(self.rng.next_u64() % count).expect("small");
            return self.lose_power(node, effects.persist, keep, tear);
        }
        let host = self.hosts.get_mut(&node).expect("known");
        for record in effects.persist {
            write(&mut host.disk, record);
        }
        for (to, message) in effects.messages {
            self.send(node, to, message);
        }
        for notice in effects.notices {
            self.check(node, &notice);
            self.notices.push((self.now, node, notice));
        }
        if let Some(why) = effects.fatal {
            assert!(why.contains("wipe"), "unexpected end of {node}: {why}");
            self.stop(node);
            return;
        }
        self.arm(node);
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.rng.next_u64().is_multiple_of(one_in)
    }

    fn lose_power(&mut self, node: NodeId, records: Vec<Record>, keep: usize, tear: Tear) {
        self.power_losses += 1;
        let back = self.now + 50 * MILLISECOND + self.rng.next_u64() % (400 * MILLISECOND);
        let host = self.hosts.get_mut(&node).expect("known");
        // The very first write of a life torn is an identity lost: see the journal.
        let torn = tear == Tear::Tear && !host.disk.is_empty();
        let mut records = records.into_iter();
        for record in records.by_ref().take(keep) {
            write(&mut host.disk, record);
        }
        if torn {
            host.disk.push(Stored::Damaged);
        }
        host.manager = None;
        host.life += 1;
        let life = host.life;
        self.schedule(back, Event::Start { node, life });
    }

    fn arm(&mut self, node: NodeId) {
        let host = self.hosts.get_mut(&node).expect("known");
        let Some(manager) = &host.manager else { return };
        let deadline = manager.next_deadline();
        if deadline == Instant::NEVER {
            return;
        }
        let at = deadline.0.max(self.now + 1);
        if host
            .timer
            .is_none_or(|armed| at < armed || armed <= self.now)
        {
            host.timer = Some(at);
            let life = host.life;
            self.schedule(at, Event::Timer { to: node, life });
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn advance(&mut self, end: u64) -> bool {
        let Some(((at, _), _)) = self.queue.first_key_value() else {
            return false;
        };
        if *at > end {
            return false;
        }
        let ((at, _), event) = self.queue.pop_first().expect("just seen");
        self.now = at;
        match event {
            Event::Timer { to, life } => {
                let host = self.hosts.get_mut(&to).expect("known");
                if host.life == life && host.manager.is_some() {
                    if host.timer == Some(at) {
                        host.timer = None;
                    }
                    host.count_timer(at);
                    self.step(to, Input::Timer);
                }
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
            Event::Start { node, life } => {
                if self.hosts[&node].life == life {
                    self.start(node).expect("a torn tail is survived");
                }
            }
        }
        true
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        match self.hosts.get(&to) {
            Some(host) if host.manager.is_some() => self.step(to, Input::Message { from, message }),
            Some(_) => {}
            None => self.mail.entry(to).or_default().push((from, message)),
        }
    }

    fn check(&mut self, node: NodeId, notice: &Notice) {
        if self.unchecked {
            return;
        }
        match notice {
            Notice::RoleChanged {
                role: ConsensusRole::Leader,
                epoch,
            } => {
                let leader = *self.leaders.entry(*epoch).or_insert(node);
                assert_eq!(leader, node, "two leaders in epoch {epoch}");
            }
            Notice::Applied {
                revision,
                epoch,
                digest,
                ..
            } => {
                let first = *self.applied.entry(*revision).or_insert((*epoch, *digest));
                assert_eq!(
                    first,
                    (*epoch, *digest),
                    "{node} applied something else at {revision}"
                );
            }
            _ => {}
        }
    }

    fn digest(&mut self, effects: &Effects) {
        for byte in format!("{effects:?}").bytes() {
            self.bytes = (self.bytes ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Mail that has arrived at a node, taken out.
    pub fn take_mail(&mut self, node: NodeId) -> Vec<(NodeId, Message)> {
        self.mail.remove(&node).unwrap_or_default()
    }

    /// Asks the managers, as a client that follows redirects and repeats itself, until answered.
    pub fn ask(&mut self, operation: &Operation) -> Result<Outcome, OperationError> {
        let id = self.next_request();
        let end = self.now + 60 * SECOND;
        let mut target = 0;
        loop {
            let managers = self.managers();
            let to = self.leader().unwrap_or(managers[target % managers.len()]);
            target += 1;
            self.send(
                id.client,
                to,
                Message::Request {
                    id,
                    operation: operation.clone(),
                },
            );
            let retry = self.now + 500 * MILLISECOND;
            while self.now < retry && self.advance(retry) {
                if let Some(result) = self.answer(id) {
                    return result;
                }
            }
            self.now = self.now.max(retry);
            assert!(self.now < end, "no answer to {operation:?}");
        }
    }

    pub fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        let client = NodeId::client(1);
        RequestId {
            client,
            incarnation: Incarnation(1),
            sequence: self.requests,
        }
    }

    /// The answer to a request, if it has arrived.
    pub fn answer(&self, id: RequestId) -> Option<Result<Outcome, OperationError>> {
        let mail = self.mail.get(&id.client)?;
        mail.iter().find_map(|(_, message)| match message {
            Message::Response {
                id: answered,
                result,
            } if *answered == id => Some(result.clone()),
            _ => None,
        })
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.ask(&put(key, value)).expect("puts succeed");
    }

    pub fn get(&mut self, key: &str) -> Option<String> {
        match self.ask(&Operation::Get {
            key: key.to_owned(),
        }) {
            Ok(Outcome::Value { value }) => value,
            other => panic!("odd answer {other:?}"),
        }
    }
}

pub fn put(key: &str, value: &str) -> Operation {
    Operation::Put {
        key: key.to_owned(),
        value: value.to_owned(),
        claim: None,
    }
}

/// A disk drops what a checkpoint replaces.
fn write(disk: &mut Vec<Stored>, record: Record) {
    if record.replaces_history() {
        disk.clear();
    }
    disk.push(Stored::Intact(record));
}

/// All managers but one.
pub fn others(cluster: &Cluster, node: NodeId) -> Vec<NodeId> {
    let managers = cluster.managers().into_iter();
    managers
        .filter(|other| *other != node && other.role == NodeRole::Manager)
        .collect()
}
