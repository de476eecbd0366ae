//! Arguments of actions: from a checked mapping to `plan::Action`.

use wavetank_port::ErrorClass;

use crate::plan::Action;
use crate::scalars;
use crate::yaml::Node;

/// An action whose arguments say everything. `None` if one is missing, which has been said.
pub(crate) fn fixed_action(name: &str, args: &Node) -> Option<Action> {
    let groups = [machine, disk, link, registry, calls, quirks, others];
    groups.into_iter().find_map(|group| group(name, args))
}

/// Machines and clocks.
fn machine(name: &str, args: &Node) -> Option<Action> {
    Some(match name {
        "process-exit" => Action::ProcessExit,
        "process-kill" => Action::ProcessKill,
        "power-loss" => Action::PowerLoss {
            torn: args.flag("torn").unwrap_or(false),
        },
        "wipe" => Action::Wipe,
        "pause" => Action::Pause,
        "slow-cpu" => Action::SlowCpu {
            factor: args.number("factor").unwrap_or(10),
        },
        "clock-jump" => Action::ClockJump {
            by_ns: scalars::signed_nanos(args.word("by")?).ok()?,
        },
        "clock-drift" => Action::ClockDrift {
            ppm: args.number("ppm")?,
        },
        _ => return None,
    })
}

/// Disks.
fn disk(name: &str, args: &Node) -> Option<Action> {
    let by = || args.range("by");
    Some(match name {
        "disk-full" => Action::DiskFull,
        "disk-slow" => Action::DiskSlow { by: by()? },
        "disk-error" => Action::DiskError,
        "disk-lies" => Action::DiskLies,
        _ => return None,
    })
}

/// Links.
fn link(name: &str, args: &Node) -> Option<Action> {
    let percent = || args.number::<u32>("percent");
    let by = || args.range("by");
    Some(match name {
        "link-delay" => Action::LinkDelay { by: by()? },
        "link-loss" => Action::LinkLoss {
            percent: percent()?,
        },
        "link-duplicate" => Action::LinkDuplicate {
            percent: percent()?,
        },
        "link-reorder" => Action::LinkReorder {
            percent: percent()?,
            by: args.duration("by")?,
        },
        "link-corrupt" => Action::LinkCorrupt {
            percent: percent()?,
        },
        "link-bandwidth" => Action::LinkBandwidth {
            bytes_per_second: args.size("bytes_per_second")?,
        },
        "link-hold" => Action::LinkHold,
        _ => return None,
    })
}

/// The registry.
fn registry(name: &str, args: &Node) -> Option<Action> {
    let count = || args.number::<u32>("count");
    Some(match name {
        "registry-error" => Action::RegistryError {
            class: registry_class(args.word("error")?)?,
            count: count(),
        },
        "registry-slow" => Action::RegistrySlow {
            bytes_per_second: args.size("bytes_per_second")?,
        },
        "registry-stall" => Action::RegistryStall {
            after_bytes: args.size("after").unwrap_or(0),
        },
        "registry-truncate" => Action::RegistryTruncate { count: count() },
        "registry-wrong-digest" => Action::RegistryWrongDigest { count: count() },
        "registry-moved-tag" => Action::RegistryMovedTag,
        _ => return None,
    })
}

/// Calls and events of runtimes.
fn calls(name: &str, args: &Node) -> Option<Action> {
    let call = || args.word("call").map(str::to_owned);
    let event = || args.word("event").unwrap_or("exit").to_owned();
    let count = || args.number::<u32>("count");
    let one = || args.number::<u32>("count").unwrap_or(1);
    let by = || args.range("by");
    Some(match name {
        "runtime-error" => {
            let class = args
                .word("class")
                .map_or(Some(ErrorClass::Unavailable), class_named)?;
            Action::RuntimeError {
                call: call(),
                class,
                count: count(),
            }
        }
        "runtime-delay" => Action::RuntimeDelay {
            call: call(),
            by: by()?,
        },
        "runtime-hang" => Action::RuntimeHang { call: call() },
        "runtime-lost-reply" => Action::RuntimeLostReply {
            call: call()?,
            count: one(),
        },
        "runtime-event-drop" => Action::RuntimeEventDrop {
            event: event(),
            count: count(),
        },
        "runtime-event-duplicate" => Action::RuntimeEventDuplicate {
            event: event(),
            count: count(),
        },
        "runtime-event-delay" => Action::RuntimeEventDelay {
            event: event(),
            by: by()?,
            count: count(),
        },
        _ => return None,
    })
}

/// Other ways in which runtimes are odd.
fn quirks(name: &str, args: &Node) -> Option<Action> {
    let count = || args.number::<u32>("count");
    let one = || args.number::<u32>("count").unwrap_or(1);
    let by = || args.range("by");
    let code = |default: i32| args.number("code").unwrap_or(default);
    Some(match name {
        "exit-before-start" => Action::ExitBeforeStart {
            count: one(),
            code: code(0),
        },
        "exit-late" => Action::ExitLate {
            by: by()?,
            count: one(),
        },
        "exit-code-wrong" => Action::ExitCodeWrong {
            count: one(),
            code: code(1),
        },
        "exit-code-lost" => Action::ExitCodeLost { count: one() },
        "exit-time-missing" => Action::ExitTimeMissing { count: one() },
        "kill-dead-errors" => Action::KillDeadErrors,
        "monitor-kill" => Action::MonitorKill,
        "daemon-restart" => Action::DaemonRestart {
            keeps_state: args.flag("keeps_state").unwrap_or(true),
        },
        "empty-listing" => Action::EmptyListing { count: count() },
        "orphan" => Action::Orphan,
        _ => return None,
    })
}

/// Workloads, membership, codecs.
fn others(name: &str, args: &Node) -> Option<Action> {
    let field = |key: &str| args.word(key).map(str::to_owned);
    let code = |default: i32| args.number("code").unwrap_or(default);
    Some(match name {
        "task-exit" => Action::TaskExit { code: code(1) },
        "task-oom" => Action::TaskOom,
        "task-unhealthy" => Action::TaskUnhealthy,
        "membership" => Action::Membership {
            join: args.flag("join")?,
        },
        "codec-retype" => Action::CodecRetype {
            message: field("message")?,
            field: field("field")?,
        },
        "codec-rename" => Action::CodecRename {
            message: field("message")?,
            field: field("field")?,
        },
        "codec-missing" => Action::CodecMissing {
            message: field("message")?,
            field: field("field")?,
        },
        _ => return None,
    })
}

fn registry_class(error: &str) -> Option<ErrorClass> {
    Some(match error {
        "missing" => ErrorClass::NotFound,
        "unauthorised" => ErrorClass::Unauthenticated,
        "rate-limited" => ErrorClass::ResourceExhausted,
        "server-error" => ErrorClass::Unavailable,
        _ => return None,
    })
}

fn class_named(name: &str) -> Option<ErrorClass> {
    ErrorClass::ALL
        .into_iter()
        .find(|class| class.name() == name)
}
