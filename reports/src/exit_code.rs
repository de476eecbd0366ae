//! Exit codes of the `wavetank` process. They are an interface: scripts and CI read them, so a
//! number never changes its meaning.

use crate::run_report::RunVerdict;
use crate::summary::Summary;

/// Everything that was asked for was checked, and held.
pub const PASS: u8 = 0;
/// A property was violated or an expectation failed.
pub const VIOLATED: u8 = 1;
/// Wrong usage, or a scenario or trace that is not valid.
pub const USAGE: u8 = 2;
/// Nothing was violated, but something was not put to the test.
pub const INCONCLUSIVE: u8 = 3;
/// The selection (paths, seeds) selects nothing.
pub const NOTHING_SELECTED: u8 = 4;
/// The same seed gave two different runs.
pub const NON_DETERMINISM: u8 = 5;
/// wavetank itself or its environment failed; says nothing about the system under test.
pub const HARNESS: u8 = 6;

/// The code for one verdict.
pub fn of_verdict(verdict: RunVerdict) -> u8 {
    match verdict {
        RunVerdict::Pass => PASS,
        RunVerdict::Inconclusive => INCONCLUSIVE,
        RunVerdict::Fail => VIOLATED,
        RunVerdict::NonDeterministic => NON_DETERMINISM,
        RunVerdict::Error => HARNESS,
    }
}

/// The code for many runs: that of the gravest verdict. A harness error outranks a violation,
/// because it puts every other result in doubt.
pub fn of_summary(summary: &Summary) -> u8 {
    summary.verdict().map_or(NOTHING_SELECTED, of_verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_what_the_documentation_promises() {
        let numbers = [
            PASS,
            VIOLATED,
            USAGE,
            INCONCLUSIVE,
            NOTHING_SELECTED,
            NON_DETERMINISM,
            HARNESS,
        ];
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn no_runs_are_nothing_selected() {
        assert_eq!(of_summary(&Summary::default()), NOTHING_SELECTED);
    }
}
