//! The table of cases, and their bodies by theme.
//!
//! A case is about what `wavetank_port::ContainerRuntime` documents, and about nothing that a
//! caller cannot see. Where runtimes legitimately differ, the body asks the capability table.

pub mod create;
pub mod daemon;
pub mod delete;
pub mod events;
pub mod exec_stats;
pub mod exit;
pub mod images;
pub mod leaks;
pub mod list;
pub mod logs;
pub mod start;
pub mod stop_kill;

use std::time::Duration;

use crate::case::Case;

/// Enough for any case that runs a handful of containers.
const USUAL: Duration = Duration::from_secs(180);
/// Enough for a thousand containers on the slowest runtime of a loaded machine.
const LONG: Duration = Duration::from_secs(1_200);

macro_rules! case {
    ($number:literal, $name:literal, $claim:literal, $body:path) => {
        case!($number, $name, $claim, $body, USUAL)
    };
    ($number:literal, $name:literal, $claim:literal, $body:path, $deadline:expr) => {
        Case {
            number: $number,
            name: $name,
            claim: $claim,
            deadline: $deadline,
            run: |bed| Box::pin($body(bed)),
        }
    };
}

/// All cases, in the order of their numbers.
#[rustfmt::skip] // One row per case reads as the table that it is.
pub const CASES: &[Case] = &[
    case!(1, "pull by tag", "the name and the digest are the registry's", images::by_tag),
    case!(2, "pull without a tag", "the tag is `latest`", images::without_tag),
    case!(3, "pull by digest",
        "the same content as by tag, and containers run from it", images::by_digest),
    case!(4, "pull twice", "the second fetches nothing and says the same", images::twice),
    case!(5, "pull of a missing image or tag", "not-found, nothing listed", images::missing),
    case!(6, "pull with bad credentials",
        "unauthenticated; with good ones it works", images::bad_credentials),
    case!(7, "pull from a registry that is down or broken",
        "unavailable, nothing listed, the next pull works", images::registry_down),
    case!(8, "pull from a slow registry, with a deadline",
        "deadline-exceeded, nothing listed, the next pull works", images::slow),
    case!(9, "pull cancelled half-way", "nothing listed, the next pull works", images::cancelled),
    case!(10, "ten pulls of one image at once", "all work, one image", images::concurrent),
    case!(11, "images right after pull and remove", "present, then absent", images::listed),
    case!(12, "image removed twice at once, and when missing", "all succeed", images::removes),
    case!(13, "remove of an image in use",
        "refused or done, the container is unaffected", images::in_use),
    case!(14, "pull always, if missing, never", "as the names say", images::policies),
    case!(15, "damaged local image",
        "detected or harmless; removed and pulled again it works", images::corrupt_local),
    case!(16, "create", "created, not run, attributes and labels kept", create::valid),
    case!(17, "create with a taken id", "already-exists, the first untouched", create::duplicate),
    case!(18, "create with a bad id or spec", "invalid-argument, nothing left", create::invalid),
    case!(19, "create without the image", "not-found, nothing left", create::image_missing),
    case!(20, "spec changed after create", "no effect", create::changed_later),
    case!(21, "create that fails half-way",
        "rolled back, the same id works", create::fails_half_way),
    case!(22, "start", "running, with process id and time", start::created),
    case!(23, "start when running", "failed-precondition, no effect", start::running),
    case!(24, "start when exited",
        "failed-precondition, or runs again where documented", start::exited),
    case!(25, "start of nobody", "not-found", start::missing),
    case!(26, "start of an absent or forbidden program",
        "invalid-argument, no start or exit event, removable", start::bad_program),
    case!(27, "stop of what obeys", "the handler's exit code, within the grace", stop_kill::obeys),
    case!(28, "stop of what ignores",
        "killed after the grace: 137; other calls go on meanwhile", stop_kill::ignores),
    case!(29, "stop with no grace and with endless grace",
        "killed at once; never killed", stop_kill::extreme_graces),
    case!(30, "stop of exited, created, nobody",
        "the exit again; none; not-found", stop_kill::not_running),
    case!(31, "stop cancelled by its caller",
        "nothing is killed, a later stop works", stop_kill::stop_cancelled),
    case!(32, "stop signal of image and spec",
        "delivered, the spec's wins", stop_kill::stop_signal),
    case!(33, "kill with several signals", "delivered", stop_kill::kill),
    case!(34, "kill with what is no signal",
        "invalid-argument, unaffected", stop_kill::invalid_signal),
    case!(35, "kill of the dead and of nobody",
        "not-found, the record unaffected", stop_kill::kill_dead),
    case!(36, "kill of a created container",
        "failed-precondition, it can be started", stop_kill::kill_created),
    case!(37, "kill of a paused container", "dies, or failed-precondition", stop_kill::kill_paused),
    case!(38, "kill and stop at once", "one exit, the same everywhere", stop_kill::kill_and_stop),
    case!(39, "delete of a running container", "failed-precondition, unaffected", delete::running),
    case!(40, "delete of a running container by force",
        "gone with all its processes", delete::running_by_force),
    case!(41, "delete of created, exited, gone", "done; done; not-found", delete::others),
    case!(42, "delete beside neighbours",
        "only its own goes: volumes and others stay", delete::only_its_own),
    case!(43, "an id used again", "a new container", delete::id_again),
    case!(44, "exit codes", "exactly the program's, 128 + n for a signal", exit::codes),
    case!(45, "1,000 fast exits",
        "each code right, each start, exit and delete said once, in order", exit::fast, LONG),
    case!(46, "waiters early, late, several", "all get the same answer", exit::waiters),
    case!(47, "wait for what is removed", "its exit or not-found, no hang", exit::removed),
    case!(48, "time of the exit", "set, after the start, the same in every reading", exit::times),
    case!(49, "out of memory",
        "137 and said so; a child's end is not the parent's", exit::out_of_memory),
    case!(50, "no restart behind the caller's back",
        "what is stopped or dead stays so", exit::stays_stopped),
    case!(51, "logs byte by byte", "both outputs apart, long lines, no newline added", logs::exact),
    case!(52, "parts of logs",
        "followed to the end, since, until, last lines, read again", logs::parts),
    case!(53, "log flood", "stop works, no line is torn, others are unaffected", logs::flood),
    case!(54, "order of events", "start, exit, delete; none lost, none twice", events::order, LONG),
    case!(55, "events after a gap",
        "said again, or the gap is said; the listing is the truth", events::resume),
    case!(56, "listing by label, status, prefix",
        "exactly those; an ambiguous prefix is an error", list::filters),
    case!(57, "listing while containers come and go",
        "no error, nothing that stays is left out", list::while_they_vanish),
    case!(58, "exec",
        "code and outputs; cut short in time; refused when not running", exec_stats::exec),
    case!(59, "stats and inspect",
        "plausible when running, typed errors afterwards", exec_stats::stats),
    case!(60, "limits changed while running", "in force, all else unchanged", exec_stats::update),
    case!(61, "daemon restart under a running container",
        "the same process, waited for again", daemon::restart),
    case!(62, "exit while the daemon is down",
        "errors meanwhile; code and time known afterwards", daemon::exit_unseen),
    case!(63, "reboot", "nothing runs, nothing ended well, ids usable again", daemon::reboot),
    case!(64, "monitor killed",
        "its end is known and no success, removable", daemon::monitor_killed),
    case!(65, "monitor hangs",
        "calls keep their deadlines, others are unaffected", daemon::monitor_hangs),
    case!(66, "record without a process",
        "listed as exited and no success, removable", daemon::orphans),
    case!(67, "leaks after 200 lifecycles",
        "everything back to where it was", leaks::nothing_left, LONG),
    case!(68, "50 lifecycles at once", "no mix-up of codes, labels, logs", leaks::no_crosstalk),
    case!(69, "another namespace", "sees nothing, changes nothing", leaks::namespaces),
    case!(70, "calls that fail", "leave everything as it was", leaks::errors_change_nothing),
];

/// The case of this number.
pub fn case(number: u8) -> Option<&'static Case> {
    CASES.iter().find(|case| case.number == number)
}

#[cfg(test)]
mod tests {
    use super::CASES;

    #[test]
    fn the_table_has_seventy_cases_in_order() {
        let numbers: Vec<u8> = CASES.iter().map(|case| case.number).collect();
        assert_eq!(numbers, (1..=70).collect::<Vec<u8>>());
    }

    #[test]
    fn no_two_cases_have_one_name() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(
                CASES[..index].iter().all(|it| it.name != case.name),
                "{}",
                case.name
            );
        }
    }
}
