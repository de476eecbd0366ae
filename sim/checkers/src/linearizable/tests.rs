//! Histories with an order that explains them, and histories without.

use super::*;
use crate::testing::{Trace, seconds, spec};
use proptest::prelude::*;
use wavetank_model::{Claim, Revision};

fn put(value: &str) -> Operation {
    Operation::Put {
        key: "k".into(),
        value: value.into(),
        claim: None,
    }
}

fn get() -> Operation {
    Operation::Get { key: "k".into() }
}

fn done() -> Result<Outcome, OperationError> {
    Ok(Outcome::Done {
        revision: Revision(1),
    })
}

fn value(value: Option<&str>) -> Result<Outcome, OperationError> {
    Ok(Outcome::Value {
        value: value.map(str::to_owned),
    })
}

fn refused() -> Result<Outcome, OperationError> {
    Err(OperationError::Invalid { why: "no".into() })
}

#[test]
fn overlapping_requests_may_take_effect_in_any_order() {
    let mut trace = Trace::started(&spec());
    let first = trace.invoked(2, put("a"));
    let second = trace.invoked(3, put("b"));
    let read = trace.invoked(4, get());
    trace.returned(read, value(Some("b")));
    trace.returned(second, done());
    trace.returned(first, done());
    let read = trace.invoked(4, get());
    trace.returned(read, value(Some("a")));
    assert!(trace.findings(&[ID]).is_empty());
}

#[test]
fn an_old_value_after_a_new_one_fails() {
    let mut trace = Trace::started(&spec());
    for text in ["a", "b"] {
        let write = trace.invoked(2, put(text));
        trace.returned(write, done());
    }
    let read = trace.invoked(3, get());
    trace.returned(read, value(Some("a")));
    assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
}

#[test]
fn an_unanswered_write_may_happen_late_but_only_once() {
    let mut trace = Trace::started(&spec());
    trace.invoked(2, put("lost"));
    for (write, seen) in [("a", "a"), ("b", "lost")] {
        let request = trace.invoked(3, put(write));
        trace.returned(request, done());
        let read = trace.invoked(3, get());
        trace.returned(read, value(Some(seen)));
    }
    assert!(trace.findings(&[ID]).is_empty());
    let request = trace.invoked(3, put("c"));
    trace.returned(request, done());
    let read = trace.invoked(3, get());
    trace.returned(read, value(Some("lost")));
    assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
}

#[test]
fn a_refused_write_that_is_read_fails() {
    let mut trace = Trace::started(&spec());
    let write = trace.invoked(2, put("a"));
    trace.returned(write, refused());
    let read = trace.invoked(2, get());
    trace.returned(read, value(Some("a")));
    assert_eq!(trace.findings(&[ID]), ["linearizable/register"]);
}

fn acquire(trace: &mut Trace, client: u32, token: u64) {
    let (lease, holder) = ("l".into(), format!("holder-{client}"));
    let operation = Operation::LeaseAcquire {
        lease,
        holder,
        ttl: seconds(10),
    };
    let request = trace.invoked(client, operation);
    trace.returned(
        request,
        Ok(Outcome::Granted {
            token: FencingToken(token),
        }),
    );
}

#[test]
fn a_lease_that_ran_out_passes() {
    let mut trace = Trace::started(&spec());
    acquire(&mut trace, 2, 1);
    trace.after(seconds(11));
    acquire(&mut trace, 3, 2);
    assert!(trace.findings(&[ID]).is_empty());
}

#[test]
fn two_holders_fail() {
    let mut trace = Trace::started(&spec());
    acquire(&mut trace, 2, 1);
    acquire(&mut trace, 3, 2);
    assert_eq!(trace.findings(&[ID]), ["linearizable/two-holders"]);
}

#[test]
fn a_token_that_comes_again_fails() {
    let mut trace = Trace::started(&spec());
    acquire(&mut trace, 2, 1);
    trace.after(seconds(11));
    acquire(&mut trace, 3, 1);
    assert_eq!(trace.findings(&[ID]), ["linearizable/token-went-back"]);
}

#[test]
fn a_guarded_write_of_an_old_holder_fails() {
    let mut trace = Trace::started(&spec());
    acquire(&mut trace, 2, 1);
    trace.after(seconds(11));
    acquire(&mut trace, 3, 2);
    let (lease, holder) = ("l".into(), "holder-2".into());
    let claim = Some(Claim {
        lease,
        holder,
        token: Some(FencingToken(1)),
    });
    let write = trace.invoked(
        2,
        Operation::Put {
            key: "g".into(),
            value: "x".into(),
            claim,
        },
    );
    trace.returned(write, done());
    assert_eq!(trace.findings(&[ID]), ["linearizable/stale-token-accepted"]);
}

proptest! {
    /// Histories of a real register, with requests that take effect at a random moment
    /// between call and answer, always pass.
    #[test]
    fn histories_of_a_register_pass(
        steps in proptest::collection::vec((2u32..6, 0u8..3, any::<bool>()), 1..60),
    ) {
        let mut trace = Trace::started(&spec());
        let mut register: Option<String> = None;
        let mut open = BTreeMap::new();
        for (number, (client, step, reads)) in steps.into_iter().enumerate() {
            let text = number.to_string();
            match (step, open.remove(&client)) {
                (0, None) => {
                    let operation = if reads { get() } else { put(&text) };
                    let request = trace.invoked(client, operation);
                    open.insert(client, (request, text, reads, None));
                }
                (1, Some((request, text, reads, None))) => {
                    if !reads {
                        register = Some(text.clone());
                    }
                    open.insert(client, (request, text, reads, Some(register.clone())));
                }
                (2, Some((request, _, reads, Some(seen)))) => {
                    let read = value(seen.as_deref());
                    trace.returned(request, if reads { read } else { done() });
                }
                (_, other) => {
                    other.map(|kept| open.insert(client, kept));
                }
            }
        }
        prop_assert!(trace.findings(&[ID]).is_empty());
    }
}
