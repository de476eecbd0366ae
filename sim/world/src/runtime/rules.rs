//! Faults of a runtime that stay in force for a while or a number of times.

use wavetank_port::ErrorClass;
use wavetank_scenario::plan::Range;

use super::{Output, Runtime};

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEffect {
    /// Calls of this verb (`None`: any) fail without effect.
    Error(Option<String>, ErrorClass),
    /// Calls of this verb (`None`: any) take longer.
    Delay(Option<String>, Range),
    /// Calls of this verb (`None`: any) hang until the rule is gone.
    Hang(Option<String>),
    /// Calls of this verb take effect and are not answered.
    LostReply(String),
    /// Events of this name are lost.
    DropEvent(String),
    /// Events of this name come twice.
    DuplicateEvent(String),
    /// Events of this name come later.
    DelayEvent(String, Range),
    /// Started processes end at once with this code.
    ExitBeforeStart(i32),
    /// Ends are noticed that much later.
    ExitLate(Range),
    /// Ends are noticed with this code.
    ExitCodeWrong(i32),
    /// Exit codes are lost.
    ExitCodeLost,
    /// Exit times are not said.
    ExitTimeMissing,
    /// A kill of a dead process fails as `unknown`.
    KillDeadErrors,
    /// Listings name nothing.
    EmptyListing,
    /// Pulls fail for want of space.
    NoSpace,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeRule {
    /// The fault that made it.
    pub fault: u32,
    /// What it does.
    pub effect: RuntimeEffect,
    /// Times left; `None` for always.
    pub count: Option<u32>,
}

impl Runtime {
    /// A rule comes into force.
    pub fn add_rule(&mut self, rule: RuntimeRule) {
        self.rules.push(rule);
    }

    /// All rules of a fault are gone; calls that it held go on.
    pub fn remove_rules(&mut self, now: wavetank_trace::VirtualTime, fault: u32) {
        self.rules.retain(|rule| rule.fault != fault);
        let parked = std::mem::take(&mut self.parked);
        let (freed, kept) = parked.into_iter().partition(|(by, _, _)| *by == fault);
        self.parked = kept;
        for (_, call, request) in freed {
            self.admit(now, call, request);
        }
    }

    /// Uses up the first rule for which `pick` finds something, and says what it found.
    pub(super) fn use_rule<T>(&mut self, pick: impl Fn(&RuntimeEffect) -> Option<T>) -> Option<T> {
        self.use_rule_of(pick).map(|(_, found)| found)
    }

    /// As [`Runtime::use_rule`], with the fault's number.
    pub(super) fn use_rule_of<T>(
        &mut self,
        pick: impl Fn(&RuntimeEffect) -> Option<T>,
    ) -> Option<(u32, T)> {
        for rule in &mut self.rules {
            if rule.count == Some(0) {
                continue;
            }
            if let Some(found) = pick(&rule.effect) {
                if let Some(count) = &mut rule.count {
                    *count -= 1;
                }
                self.output.push(Output::Hit(rule.fault));
                return Some((rule.fault, found));
            }
        }
        None
    }
}

/// Does a rule's verb (`None`: any) cover this verb?
pub(super) fn covers(verb: &Option<String>, name: &str) -> bool {
    verb.as_deref().is_none_or(|verb| verb == name)
}
