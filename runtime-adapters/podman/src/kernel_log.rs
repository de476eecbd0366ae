//! Whether the kernel killed a container's process for memory, told from the kernel's log.
//!
//! Podman before 5.0 never says so (containers/podman#13102). Of the sources that name the
//! container, the cgroup's counter is gone by the time the end is seen, and a listener on it knows
//! nothing of what happened while no adapter ran. The kernel's log has the container's id and the
//! process id in one line and outlives both, until its ring is written over; without the right to
//! read it the answer is "no".

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

const KERNEL_LOG: &str = "/dev/kmsg";

/// One record is never longer, by the kernel's own limit (PRINTK_MESSAGE_MAX is 2048).
const RECORD_BYTES_MAX: usize = 8192;

/// No kernel is built with more records: 2^25 bytes of ring, 32 bytes at least for each.
const RECORDS_MAX: usize = 1 << 20;

/// True if the log says that the kernel killed process `pid` of this container for memory. Of
/// other processes of the container it does not speak: their death is not the container's. Where
/// nobody has seen the container's own process, any of its processes counts.
pub(crate) fn was_killed_for_memory(podman_id: &str, pid: Option<u32>) -> bool {
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(KERNEL_LOG);
    open.is_ok_and(|log| any_record(log, |record| is_kill_of(record, podman_id, pid)))
}

/// Reads record by record: each read gives one.
fn any_record(mut log: File, wanted: impl Fn(&str) -> bool) -> bool {
    let mut buffer = [0; RECORD_BYTES_MAX];
    for _ in 0..RECORDS_MAX {
        match log.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => {
                if wanted(&String::from_utf8_lossy(&buffer[..length])) {
                    return true;
                }
            }
            // The record was written over while we were at it; the next read goes on behind it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    false
}

/// The line is `oom-kill:constraint=...,task_memcg=/libpod_parent/libpod-<id>,task=sh,pid=7,...`
/// (mm/oom_kill.c, since Linux 4.19); version 2 hierarchies end it in `.scope`.
fn is_kill_of(record: &str, podman_id: &str, pid: Option<u32>) -> bool {
    let Some((_, fields)) = record.split_once("oom-kill:") else {
        return false;
    };
    let field = |name: &str| {
        let mut found = fields.split(',').filter_map(|it| it.strip_prefix(name));
        // A process may have a name with a comma in it: of two fields, the later is the kernel's.
        found.next_back()
    };
    let in_container = field("task_memcg=").is_some_and(|it| it.contains(podman_id));
    in_container && pid.is_none_or(|pid| field("pid=") == Some(pid.to_string().as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_kill_of;

    const RECORD: &str = "6,1153,1813265420,-;oom-kill:constraint=CONSTRAINT_MEMCG,\
        nodemask=(null),cpuset=libpod-ff8f21,mems_allowed=0,oom_memcg=/libpod_parent/libpod-ff8f21,\
        task_memcg=/libpod_parent/libpod-ff8f21,task=sh,pid=5367,uid=0\n";

    #[test]
    fn a_kill_is_of_one_process_of_one_container() {
        assert!(is_kill_of(RECORD, "ff8f21", Some(5367)));
        assert!(
            !is_kill_of(RECORD, "ff8f21", Some(536)),
            "a child of the container"
        );
        assert!(
            !is_kill_of(RECORD, "ff8f22", Some(5367)),
            "another container"
        );
        assert!(!is_kill_of("6,1,1,-;ff8f21 pid=5367", "ff8f21", Some(5367)));
    }

    #[test]
    fn where_no_process_was_seen_any_of_the_container_counts() {
        assert!(is_kill_of(RECORD, "ff8f21", None));
        assert!(!is_kill_of(RECORD, "ff8f22", None), "another container");
    }

    #[test]
    fn a_process_cannot_name_itself_into_a_kill() {
        let record = RECORD.replace("task=sh", "task=sh,pid=1");
        assert!(!is_kill_of(&record, "ff8f21", Some(1)));
        assert!(is_kill_of(&record, "ff8f21", Some(5367)));
    }

    proptest! {
        #[test]
        fn any_record_can_be_read(record: String) {
            prop_assert!(!is_kill_of(&record, "ff8f21", Some(1)) || record.contains("ff8f21"));
        }
    }
}
