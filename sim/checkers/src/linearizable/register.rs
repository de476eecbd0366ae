//! One register: every state in which it may be, given what its clients were told so far.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::RequestId;
use wavetank_trace::EventId;

/// Ways that are followed per key. With five clients some hundred are common.
const WAYS_MAX: usize = 20_000;

/// What a client asked of a register.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// Write this.
    Put(String),
    /// Read.
    Get,
}

/// One state in which a register may be: its value, and the open requests that have taken
/// effect, each with what it read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    value: Option<String>,
    done: BTreeMap<RequestId, Option<String>>,
}

/// One register and all it may be.
#[derive(Debug)]
pub(super) struct Register {
    pub(super) open: BTreeMap<RequestId, (Call, EventId)>,
    pub(super) ways: BTreeSet<Way>,
    /// The newest answers, for the report.
    pub(super) answered: Vec<EventId>,
    pub(super) given_up: bool,
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
    /// A call.
    pub(super) fn invoke(&mut self, request: RequestId, call: Call, event: EventId) {
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
    pub(super) fn answer(
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
    pub(super) fn refuse(&mut self, request: RequestId) {
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
