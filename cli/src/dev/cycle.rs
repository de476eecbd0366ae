//! What the loop does next. No IO, and no clock: time comes in as the time since the loop began.

use std::time::Duration;

/// How long nothing must have changed before something is started: editors and `git` write many
/// files one after the other.
pub const QUIET: Duration = Duration::from_millis(300);

/// What can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The scenario file, or what it includes: the program stays as it is.
    Scenario,
    /// What the program is built from.
    Sources,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Files on the disk are others than before.
    Changed(Change),
    /// Time has passed.
    Ticked,
    /// A build has ended.
    Built(Build),
    /// A run has ended.
    Ran,
    /// The user wants to leave.
    Interrupted,
}

/// What came of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// There is a program, and it is another one than the last.
    New,
    /// There is a program, and it has not changed.
    Same,
    /// There is none of these sources.
    Failed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Wait,
    /// Nothing, because a build has left the program as it was.
    WaitAsBefore,
    /// Start a build.
    Build,
    /// Start a run.
    Run,
    /// Ask the build or the run to end. Its end is an input like any other.
    End,
    /// Show what came of the run that has ended.
    Show,
    /// Leave; nothing is being done any more.
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Building,
    Running,
}

/// The loop's state.
///
/// A change during a run ends the run, as its verdict would be about files that are no longer
/// there. A build goes on to its end and is followed by another: what it has compiled is not
/// compiled again.
#[derive(Clone, Debug)]
pub struct Cycle {
    doing: Doing,
    /// Whether what is being done was asked to end.
    is_ending: bool,
    /// Whether the user wants to leave.
    is_leaving: bool,
    /// Whether the sources have changed since the last build that succeeded.
    is_stale: bool,
    /// Whether there is something that no run has seen.
    is_unseen: bool,
    /// When to start something, if nothing else changes until then.
    due: Option<Duration>,
}

impl Cycle {
    /// A loop that begins with a run; with a build before it if there are sources.
    pub fn new(has_sources: bool) -> Self {
        Cycle {
            doing: Doing::Nothing,
            is_ending: false,
            is_leaving: false,
            is_stale: has_sources,
            is_unseen: true,
            due: Some(Duration::ZERO),
        }
    }

    /// Takes in what happened, and says what is to be done.
    pub fn handle(&mut self, now: Duration, input: Input) -> Order {
        match input {
            Input::Changed(change) => self.changed(now, change),
            Input::Ticked => self.ticked(now),
            Input::Built(build) => self.built(build),
            Input::Ran => self.ran(),
            Input::Interrupted => self.interrupted(),
        }
    }

    /// Whether the user waits for something to end.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    fn changed(&mut self, now: Duration, change: Change) -> Order {
        match change {
            Change::Scenario => self.is_unseen = true,
            Change::Sources => self.is_stale = true,
        }
        self.due = Some(now + QUIET);
        // Changed sources may still give the same program, but nobody waits for a run to find out.
        let is_outdated = self.doing == Doing::Running && !self.is_ending;
        if !is_outdated {
            return Order::Wait;
        }
        self.is_ending = true;
        self.is_unseen = true;
        Order::End
    }

    fn ticked(&mut self, now: Duration) -> Order {
        let is_due = self.due.is_some_and(|due| due <= now);
        if !is_due || self.doing != Doing::Nothing {
            return Order::Wait;
        }
        self.due = None;
        if self.is_stale {
            // From here on a change is one that this build may not see.
            self.is_stale = false;
            self.doing = Doing::Building;
            return Order::Build;
        }
        self.run()
    }

    fn run(&mut self) -> Order {
        self.is_unseen = false;
        self.doing = Doing::Running;
        Order::Run
    }

    fn built(&mut self, build: Build) -> Order {
        self.doing = Doing::Nothing;
        self.is_stale |= build == Build::Failed;
        self.is_unseen |= build == Build::New;
        match build {
            _ if self.is_leaving => Order::Quit,
            // Something else is about to be started.
            _ if self.due.is_some() => Order::Wait,
            Build::Failed => Order::Wait,
            Build::Same if !self.is_unseen => Order::WaitAsBefore,
            Build::New | Build::Same => self.run(),
        }
    }

    fn ran(&mut self) -> Order {
        self.doing = Doing::Nothing;
        let was_ended = std::mem::take(&mut self.is_ending);
        match was_ended {
            _ if self.is_leaving => Order::Quit,
            true => Order::Wait,
            false => Order::Show,
        }
    }

    fn interrupted(&mut self) -> Order {
        self.is_leaving = true;
        match self.doing {
            Doing::Nothing => Order::Quit,
            Doing::Building | Doing::Running if self.is_ending => Order::Wait,
            Doing::Building | Doing::Running => {
                self.is_ending = true;
                Order::End
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in milliseconds, so that cases are tables.
    fn orders(cycle: &mut Cycle, inputs: &[(u64, Input)]) -> Vec<Order> {
        let one = |(at, input): &(u64, Input)| cycle.handle(Duration::from_millis(*at), *input);
        inputs.iter().map(one).collect()
    }

    /// A loop whose first run is over at time 0.
    fn settled(has_sources: bool) -> Cycle {
        let mut cycle = Cycle::new(has_sources);
        let begin = [(0, Input::Ticked), (0, Input::Built(Build::New))];
        let begin = &begin[..if has_sources { 2 } else { 1 }];
        assert_eq!(orders(&mut cycle, begin).last(), Some(&Order::Run));
        let end = orders(&mut cycle, &[(0, Input::Ran), (0, Input::Ticked)]);
        assert_eq!(end, [Order::Show, Order::Wait]);
        cycle
    }

    const SOURCES: Input = Input::Changed(Change::Sources);
    const SCENARIO: Input = Input::Changed(Change::Scenario);

    #[test]
    fn nothing_starts_before_it_is_quiet() {
        let mut cycle = settled(true);
        let inputs = [
            (1000, SOURCES),
            (1200, Input::Ticked),
            (1250, SOURCES),
            (1500, Input::Ticked),
            (1550, Input::Ticked),
            (1551, Input::Ticked),
        ];
        let said = orders(&mut cycle, &inputs);
        let expected = [
            Order::Wait,
            Order::Wait,
            Order::Wait,
            Order::Wait,
            Order::Build,
            Order::Wait,
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_scenario_alone_needs_no_build() {
        let mut cycle = settled(true);
        let said = orders(&mut cycle, &[(1000, SCENARIO), (1300, Input::Ticked)]);
        assert_eq!(said, [Order::Wait, Order::Run]);
    }

    #[test]
    fn sources_are_built_and_the_program_is_run_if_it_is_another() {
        let built = |cycle: &mut Cycle, build| {
            let inputs = [
                (1000, SOURCES),
                (1300, Input::Ticked),
                (9000, Input::Built(build)),
                (9300, Input::Ticked),
            ];
            orders(cycle, &inputs)[1..].to_vec()
        };
        let new = built(&mut settled(true), Build::New);
        assert_eq!(new, [Order::Build, Order::Run, Order::Wait]);
        let same = built(&mut settled(true), Build::Same);
        assert_eq!(same, [Order::Build, Order::WaitAsBefore, Order::Wait]);
        let failed = built(&mut settled(true), Build::Failed);
        assert_eq!(failed, [Order::Build, Order::Wait, Order::Wait]);
    }

    #[test]
    fn a_changed_scenario_is_run_though_the_build_gave_the_same_program() {
        let inputs = [
            (1000, SOURCES),
            (1100, SCENARIO),
            (1400, Input::Ticked),
            (2000, Input::Built(Build::Same)),
        ];
        let said = orders(&mut settled(true), &inputs);
        assert_eq!(said[2..], [Order::Build, Order::Run]);
    }

    #[test]
    fn after_a_failed_build_every_change_builds() {
        let inputs = [
            (1000, SOURCES),
            (1300, Input::Ticked),
            (2000, Input::Built(Build::Failed)),
            (3000, SCENARIO),
            (3300, Input::Ticked),
        ];
        let said = orders(&mut settled(true), &inputs);
        assert_eq!(said[4], Order::Build);
    }

    #[test]
    fn what_changes_during_a_build_is_built_too_before_anything_runs() {
        let inputs = [
            (1000, SOURCES),
            (1300, Input::Ticked),
            (2000, SOURCES),
            (2100, Input::Built(Build::New)),
            (2200, Input::Ticked),
            (2300, Input::Ticked),
            // The second build finds nothing more to do; the first one's program has not run.
            (2400, Input::Built(Build::Same)),
        ];
        let said = orders(&mut settled(true), &inputs);
        let expected = [
            Order::Wait,
            Order::Wait,
            Order::Wait,
            Order::Build,
            Order::Run,
        ];
        assert_eq!(said[2..], expected);
    }

    #[test]
    fn a_change_ends_a_run_once_and_nobody_sees_what_came_of_it() {
        let mut cycle = settled(false);
        let inputs = [
            (1000, SCENARIO),
            (1300, Input::Ticked),
            (2000, SCENARIO),
            (2100, SCENARIO),
            (2500, Input::Ticked),
            (2600, Input::Ran),
            (2700, Input::Ticked),
            (3000, Input::Ran),
        ];
        let said = orders(&mut cycle, &inputs);
        let expected = [
            Order::Wait,
            Order::Run,
            Order::End,
            Order::Wait,
            Order::Wait,
            Order::Wait,
            Order::Run,
            Order::Show,
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_run_that_a_change_of_sources_ended_is_made_up_for() {
        let mut cycle = settled(true);
        let inputs = [
            (1000, SCENARIO),
            (1300, Input::Ticked),
            (2000, SOURCES),
            (2100, Input::Ran),
            (2300, Input::Ticked),
            (2400, Input::Built(Build::Same)),
        ];
        let said = orders(&mut cycle, &inputs);
        assert_eq!(
            said[2..],
            [Order::End, Order::Wait, Order::Build, Order::Run]
        );
    }

    #[test]
    fn who_leaves_waits_for_what_is_being_done_and_nothing_starts() {
        assert_eq!(
            orders(&mut settled(true), &[(1, Input::Interrupted)]),
            [Order::Quit]
        );
        let leave = [
            (1000, SOURCES),
            (1300, Input::Ticked),
            (1400, Input::Interrupted),
            (1500, Input::Interrupted),
            (1600, Input::Built(Build::Failed)),
        ];
        let said = orders(&mut settled(true), &leave);
        assert_eq!(said[2..], [Order::End, Order::Wait, Order::Quit]);
        let restart = [
            (1000, SCENARIO),
            (1300, Input::Ticked),
            (2000, SCENARIO),
            (2050, Input::Interrupted),
            (2100, SCENARIO),
            (2600, Input::Ran),
        ];
        let mut cycle = settled(false);
        let said = orders(&mut cycle, &restart);
        assert_eq!(
            said[2..],
            [Order::End, Order::Wait, Order::Wait, Order::Quit]
        );
        assert!(cycle.is_leaving());
    }
}
