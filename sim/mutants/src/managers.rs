//! What managers once did wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use wavetank_core::{Effects, Input, Message, Record};
use wavetank_model::{Change, Notice, Operation, Outcome, UpdatePolicy};

use crate::wrapper::Edit;

/// Accepts a lease holder's write without looking at its fencing token (H6).
pub struct ForgetsToFence;

impl Edit for ForgetsToFence {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        if let Input::Message {
            message: Message::Request { operation, .. },
            ..
        } = &mut input
            && let Operation::Put {
                claim: Some(claim), ..
            } = operation
        {
            claim.token = None;
        }
        Some(input)
    }
}

/// Promises before it has written: only its first records reach its disk.
#[derive(Default)]
pub struct StopsPersisting {
    appended: u32,
}

impl Edit for StopsPersisting {
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let appends = |record: &Record| matches!(record, Record::Entries(_));
        self.appended += u32::from(effects.persist.iter().any(appends));
        if self.appended > 12 {
            effects.persist.clear();
        }
        Vec::new()
    }
}

/// Believes that nodes have a hundred times their memory (P9).
pub struct Overcommits;

impl Edit for Overcommits {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        if let Input::Message {
            message: Message::Register { resources, .. },
            ..
        } = &mut input
        {
            resources.memory_bytes = resources.memory_bytes.saturating_mul(100);
        }
        Some(input)
    }
}

/// Replaces everything at once, whatever the update policy says (W11). The policy that was asked
/// for is what it claims to follow.
#[derive(Default)]
pub struct IgnoresUpdatePolicy {
    asked: Option<UpdatePolicy>,
}

impl Edit for IgnoresUpdatePolicy {
    fn input(&mut self, mut input: Input) -> Option<Input> {
        if let Input::Message {
            message: Message::Request { operation, .. },
            ..
        } = &mut input
            && let Operation::Deploy { spec } = operation
        {
            self.asked = Some(spec.update);
            spec.update.unavailable_max = spec.replicas().unwrap_or(u32::MAX);
        }
        Some(input)
    }

    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        for notice in &mut effects.notices {
            let Notice::Applied { changes, .. } = notice else {
                continue;
            };
            for change in changes {
                if let (Change::Service { spec, .. }, Some(asked)) = (change, self.asked) {
                    spec.update = asked;
                }
            }
        }
        Vec::new()
    }
}

/// Answers reads from what it has applied itself, also when it no longer leads.
#[derive(Default)]
pub struct ReadsStale {
    entries: BTreeMap<String, String>,
    answer: Option<(wavetank_model::NodeId, Message)>,
}

impl Edit for ReadsStale {
    fn input(&mut self, input: Input) -> Option<Input> {
        if let Input::Message {
            from,
            message: Message::Request { id, operation },
        } = &input
            && let Operation::Get { key } = operation
        {
            let value = self.entries.get(key).cloned();
            let result = Ok(Outcome::Value { value });
            self.answer = Some((*from, Message::Response { id: *id, result }));
            // Any harmless input lets the answer out.
            return Some(Input::Timer);
        }
        Some(input)
    }

    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        for notice in &effects.notices {
            let Notice::Applied { changes, .. } = notice else {
                continue;
            };
            for change in changes {
                if let Change::Entry { key, value, .. } = change {
                    self.entries.insert(key.clone(), value.clone());
                }
            }
        }
        effects.messages.extend(self.answer.take());
        Vec::new()
    }
}

/// Draws on something that no seed controls: how many inputs any manager of this program has seen.
pub struct DrawsOutside;

static INPUTS: AtomicU64 = AtomicU64::new(0);

impl Edit for DrawsOutside {
    fn input(&mut self, input: Input) -> Option<Input> {
        let seen = INPUTS.fetch_add(1, Ordering::Relaxed);
        let heartbeat = matches!(
            &input,
            Input::Message {
                message: Message::Heartbeat { .. },
                ..
            }
        );
        (!heartbeat || seen % 7 != 3).then_some(input)
    }
}
