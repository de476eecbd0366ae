//! The container's two outputs: FIFOs on one side, the log on the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use wavetank_port::OutputStream;

use crate::clock;
use crate::log_file::{CHUNK_BYTES_MAX, LogWriter};
use crate::record::{ContainerFolder, file};

/// The FIFOs of a container.
pub fn fifo_names() -> [(OutputStream, &'static str); 2] {
    [
        (OutputStream::Stdout, "stdout"),
        (OutputStream::Stderr, "stderr"),
    ]
}

/// Makes the FIFOs of a new container.
pub fn create_fifos(folder: &ContainerFolder) -> io::Result<()> {
    for (_, name) in fifo_names() {
        mknodat(
            CWD,
            folder.join(name),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )?;
    }
    Ok(())
}

/// The container's end of a FIFO. It also reads: as long as the container lives there is a
/// reader, so that it meets no broken pipe when its monitor is killed.
pub fn container_end(folder: &ContainerFolder, name: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(folder.join(name))
}

/// What a monitor reads and where it writes to.
pub struct Outputs {
    log: LogWriter,
    open: Vec<(OutputStream, File)>,
    buffer: Vec<u8>,
}

impl Outputs {
    /// Opens our ends. Bytes that an earlier monitor did not read are still there.
    pub fn open(folder: &ContainerFolder) -> io::Result<Self> {
        let mut open = Vec::new();
        for (stream, name) in fifo_names() {
            let fifo = OpenOptions::new()
                .read(true)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open(folder.join(name))?;
            open.push((stream, fifo));
        }
        Ok(Outputs {
            log: LogWriter::open(&folder.join(file::LOG))?,
            open,
            buffer: vec![0; CHUNK_BYTES_MAX],
        })
    }

    /// What to wait on: the ends that somebody may still write to.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|(_, fifo)| fifo.as_fd())
    }

    /// Moves at most one chunk of each output. True if there was any.
    pub fn pump(&mut self) -> bool {
        let mut moved = false;
        let (log, buffer) = (&mut self.log, &mut self.buffer);
        self.open.retain_mut(|(stream, fifo)| {
            match rustix::io::read(&*fifo, buffer.as_mut_slice()) {
                // Nobody is left who could write.
                Ok(0) => false,
                Ok(length) => {
                    moved = true;
                    // A full disk loses log, never blocks the container or its stop.
                    let _ = log.write(*stream, clock::now(), &buffer[..length]);
                    true
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                Err(_) => false,
            }
        });
        moved
    }

    /// Moves all that is there, for when the process has ended. What a FIFO holds is bounded by
    /// the kernel, and nobody writes any more.
    pub fn drain(&mut self) {
        while self.pump() {}
    }
}
