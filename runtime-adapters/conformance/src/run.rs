//! Runs cases: each on an arm of its own, with a deadline, and with a panic counted against it.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};
use wavetank_port::{Capabilities, Support};

use crate::arm::{Arm, ArmError};
use crate::bed::Bed;
use crate::case::{Case, CaseResult, Outcome};
use crate::check::{Check, Unmet, broken};

/// Makes arms of one runtime.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The runtime's name: `sim`, `containerd`, `podman`, `oci`.
    fn runtime(&self) -> &'static str;

    /// An arm that nobody has used.
    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError>;
}

/// Runs one case.
pub async fn run_case(bench: &dyn Bench, case: &Case) -> CaseResult {
    let (outcome, elapsed_ms) = match bench.arm().await {
        Ok(arm) => run_on(arm, case).await,
        Err(error) => (failure(error.to_string()), 0),
    };
    CaseResult {
        number: case.number,
        name: case.name,
        outcome,
        elapsed_ms,
    }
}

async fn run_on(arm: Box<dyn Arm>, case: &Case) -> (Outcome, u128) {
    let bed = Bed::new(arm.as_ref(), case.number);
    let capabilities = bed.runtime.capabilities();
    let start = Instant::now();
    let found = guarded(&bed, case).await;
    let elapsed_ms = start.elapsed().as_millis();
    bed.clean().await;
    drop(bed);
    let closed = arm.close().await;
    let outcome = match (judge(found, &capabilities), closed) {
        (Outcome::Pass, Err(error)) => failure(format!("passed, but could not be closed: {error}")),
        (outcome, _) => outcome,
    };
    (outcome, elapsed_ms)
}

/// The case's body, with its deadline; a panic is a finding like any other.
async fn guarded(bed: &Bed<'_>, case: &Case) -> Check {
    let body = AssertUnwindSafe((case.run)(bed)).catch_unwind();
    match timeout(case.deadline, body).await {
        Ok(Ok(found)) => found,
        Ok(Err(panic)) => broken(format!("panicked: {}", message_of(panic.as_ref()))),
        Err(_) => broken(format!("not done within {:?}", case.deadline)),
    }
}

fn judge(found: Check, capabilities: &Capabilities) -> Outcome {
    match found {
        Ok(()) => Outcome::Pass,
        Err(Unmet::Broken(message)) => failure(message),
        Err(Unmet::Harness(message)) => failure(format!("the arm failed: {message}")),
        Err(Unmet::NotApplicable(capability)) => match capabilities.difference(capability) {
            Some(it) if it.support == Support::Missing => Outcome::NotApplicable {
                capability,
                note: it.note,
            },
            _ => failure(format!(
                "not applicable for want of {}, which the table of {} does not call missing",
                capability.name(),
                capabilities.runtime
            )),
        },
    }
}

fn failure(message: String) -> Outcome {
    Outcome::Fail { message }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
