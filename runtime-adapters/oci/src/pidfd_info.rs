//! The exit status that the kernel keeps with a pidfd: `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`,
//! Linux 6.15 and newer (`include/uapi/linux/pidfd.h`). Older kernels refuse, and nothing is
//! known.
//!
//! Unsafe, because rustix offers no such call.

use std::os::fd::OwnedFd;

use rustix::ioctl::{Updater, ioctl, opcode};

/// `struct pidfd_info` as first published, 64 bytes (`PIDFD_INFO_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: in the request it asks for the exit status, in the answer it says that
/// there is one.
const EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);

/// The status word of wait(2), once the process has been reaped.
#[expect(
    unsafe_code,
    reason = "an ioctl is typed by its number only; number and struct are checked below"
)]
pub fn exit_status(handle: &OwnedFd) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the number carries the size of the struct, so the kernel writes no further; every
    // field is an integer, for which every bit pattern is valid.
    unsafe { ioctl(handle, Updater::<GET_INFO, PidfdInfo>::new(&mut info)) }.ok()?;
    (info.mask & EXIT != 0).then_some(info.exit_code)
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::exit_status;
    use crate::process::open_pid;

    #[test]
    fn a_reaped_process_is_remembered_where_the_kernel_does() {
        let mut child = Command::new("sh")
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh starts");
        let handle = open_pid(child.id()).expect("open").expect("there");
        assert_eq!(exit_status(&handle), None, "it runs");
        drop(child.stdin.take());
        child.wait().expect("reaped");
        match exit_status(&handle) {
            Some(status) => assert_eq!(status, 7 << 8),
            None => eprintln!("skipped: this kernel does not remember exit statuses"),
        }
    }
}
