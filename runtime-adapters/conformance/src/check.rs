//! What a case finds: small checks that say what was expected and what came instead.

use std::fmt::Debug;

use wavetank_port::{Capability, ErrorClass, RuntimeError};

use crate::arm::ArmError;

/// Why a case ended without having seen what it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The runtime did something else.
    Broken(String),
    /// The runtime has no such thing; its capability table must say so.
    NotApplicable(Capability),
    /// What surrounds the runtime failed.
    Harness(String),
}

/// What a case, or a step of one, found.
pub type Check<T = ()> = Result<T, Unmet>;

impl From<ArmError> for Unmet {
    fn from(error: ArmError) -> Self {
        match error {
            ArmError::NotApplicable(capability) => Unmet::NotApplicable(capability),
            ArmError::Harness(message) => Unmet::Harness(message),
        }
    }
}

/// A finding against the runtime.
pub fn broken<T>(message: impl Into<String>) -> Check<T> {
    Err(Unmet::Broken(message.into()))
}

/// `claim` must hold.
pub fn holds(claim: bool, message: impl FnOnce() -> String) -> Check {
    if claim { Ok(()) } else { broken(message()) }
}

/// Two values must be equal.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers compare what they have just made; borrowing it would only add noise"
)]
pub fn same<T: Debug + PartialEq>(what: &str, found: T, expected: T) -> Check {
    holds(found == expected, || {
        format!("{what}: expected {expected:?}, found {found:?}")
    })
}

/// What a call answered, held against what it must answer.
pub trait Answer<T> {
    /// The call must succeed.
    fn works(self, what: &str) -> Check<T>;

    /// The call must fail with one of `classes`.
    fn fails(self, what: &str, classes: &[ErrorClass]) -> Check<RuntimeError>
    where
        T: Debug;
}

impl<T> Answer<T> for Result<T, RuntimeError> {
    fn works(self, what: &str) -> Check<T> {
        self.or_else(|error| broken(format!("{what} failed: {error}")))
    }

    fn fails(self, what: &str, classes: &[ErrorClass]) -> Check<RuntimeError>
    where
        T: Debug,
    {
        let expected = || {
            let names: Vec<&str> = classes.iter().map(|class| class.name()).collect();
            names.join(" or ")
        };
        match self {
            Err(error) if classes.contains(&error.class) => Ok(error),
            Err(error) => broken(format!("{what}: expected {}, found {error}", expected())),
            Ok(answer) => broken(format!(
                "{what}: expected {}, but it succeeded with {answer:?}",
                expected()
            )),
        }
    }
}
