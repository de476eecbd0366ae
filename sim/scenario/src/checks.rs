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
        "at most one leader per epoch, at most one effective lease holder",
    ),
    check(
        "I2",
        "durable-commits",
        "committed entries are the same everywhere, in order, and never lost",
    ),
    check(
        "I3",
        "convergence",
        "after the last fault the cluster becomes what was asked for",
    ),
    check(
        "I4",
        "bounded-instances",
        "no more instances than asked for plus surge; one writer per volume",
    ),
    check(
        "I5",
        "truthful-exits",
        "reported exits are the true ones, written once",
    ),
    check(
        "I6",
        "legal-transitions",
        "task states move only as the state machine allows",
    ),
    check(
        "I7",
        "idempotent-stop",
        "stopping what is gone is no error, and stopping has an effect",
    ),
    check(
        "I8",
        "no-orphans",
        "at rest every container has a task and every running task a container",
    ),
    check(
        "I9",
        "bounded-restarts",
        "restarts, replacements and kept records are bounded",
    ),
    check(
        "I10",
        "stays-stopped",
        "what an operator stopped stays stopped",
    ),
    check(
        "I12",
        "stop-grace",
        "no SIGKILL before the grace is over, and always after it",
    ),
    check(
        "I13",
        "no-silent-success",
        "every failure has a reason, every success was one",
    ),
    check(
        "I14",
        "complete-reports",
        "every transition reaches the store once and in order",
    ),
    check(
        "I16",
        "down-verdicts",
        "healthy agents are never declared down, lost ones are in time",
    ),
    check(
        "I17",
        "availability",
        "planned operations keep the promised number of tasks ready",
    ),
    check(
        "I20",
        "placement",
        "tasks are placed only where they may and fit",
    ),
    check(
        "I21",
        "unknown-is-not-absent",
        "a failed observation never leads to a destructive action",
    ),
    check(
        "I23",
        "workloads-survive",
        "trouble of the managers stops no container",
    ),
    check(
        "I24",
        "reproducible",
        "the same plan gives the same trace (judged by running twice)",
    ),
    check(
        "linearizable",
        "linearizable",
        "clients see one register per key and one holder per lease",
    ),
];

/// The checker of that id, in any case, or of that name.
pub fn find(name: &str) -> Option<&'static CheckInfo> {
    CHECKS
        .iter()
        .find(|check| check.name == name || check.id.eq_ignore_ascii_case(name))
}
