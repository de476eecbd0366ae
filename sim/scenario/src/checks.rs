//! The names of the checkers that `expect` may call. What they check is in `wavetank-checkers`.

/// One checker.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckInfo {
    /// Its number in the invariant catalogue, or its name again where it has none.
    pub id: &'static str,
    /// Its name; what a plan carries.
    pub name: &'static str,
    /// What must hold.
    pub summary: &'static str,
}

const fn check(id: &'static str, name: &'static str, summary: &'static str) -> CheckInfo {
    CheckInfo { id, name, summary }
}

/// Every checker, in catalogue order.
pub const CHECKS: &[CheckInfo] = &[
    check(
        "I1",
        "effective-leader",
        "at most one effective leader per epoch",
    ),
    check(
        "I2",
        "committed-survives",
        "committed writes survive; a minority writes nothing",
    ),
    check(
        "I3",
        "converges",
        "what is desired is reached within a bound after the last fault",
    ),
    check(
        "I4",
        "bounded-instances",
        "no more instances than desired plus surge; one volume writer",
    ),
    check(
        "I5",
        "exit-truth",
        "exit code, process id and exit time are true and stable",
    ),
    check(
        "I6",
        "legal-transitions",
        "states only move as they may; running before stopped",
    ),
    check(
        "I7",
        "idempotent-teardown",
        "a repeated kill, stop or delete is no error",
    ),
    check("I8", "no-orphans", "nothing is left over when all is quiet"),
    check("I9", "bounded-restarts", "restarts and records are bounded"),
    check("I10", "user-stopped", "what a user stopped stays stopped"),
    check(
        "I12",
        "grace-honoured",
        "no SIGKILL before the grace has passed, always after it",
    ),
    check(
        "I13",
        "no-silent-success",
        "every failure is reported, with its reason",
    ),
    check(
        "I14",
        "no-lost-transition",
        "every transition is reported, and nothing else",
    ),
    check(
        "I16",
        "honest-liveness",
        "healthy nodes are never declared down, dead ones in time",
    ),
    check(
        "I17",
        "availability",
        "planned operations keep enough instances available",
    ),
    check("I20", "placement", "nodes run only what they may and can"),
    check(
        "I21",
        "unknown-not-absent",
        "a failed observation destroys nothing",
    ),
    check(
        "I23",
        "workloads-survive",
        "loss of the control plane stops no workload",
    ),
    check("I24", "deterministic", "the same seed gives the same trace"),
    check(
        "linearizable",
        "linearizable",
        "clients see one store that does one thing at a time",
    ),
];

/// The checker of that id or name.
pub fn find(name: &str) -> Option<&'static CheckInfo> {
    CHECKS
        .iter()
        .find(|check| check.name == name || check.id == name)
}
