//! Programs: what a process does, step by step, for containers whose command says more than their
//! image does. Pure: time, files and outputs belong to whoever asks for the next step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_port::{ContainerSpec, OutputStream, Signal};
use wavetank_scenario::plan::Range;

/// How often a file that is waited for is looked for.
const FILE_POLL: Duration = Duration::from_millis(2);
/// How often a flood writes.
const FLOOD_TICK: Duration = Duration::from_millis(10);
/// One line of a flood, with its newline.
const FLOOD_LINE_BYTES: u64 = 100;
/// What a program takes before it asks for more.
const OWN_MEMORY_BYTES: u64 = 1 << 20;
/// The exit code when a step cannot be done.
const STEP_FAILED_CODE: i32 = 120;

/// Reads what a container's process will do from its spec.
pub type Interpreter = fn(&ContainerSpec) -> Interpretation;

/// What an [`Interpreter`] made of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpretation {
    /// It does what its image says.
    Image,
    /// It does this.
    Program(Program),
    /// There is no such program, or it may not be run.
    NotRunnable,
}

/// Steps, done one after another; after the last one the process exits 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// In order.
    pub steps: Vec<Step>,
    /// The image's own stop signal, if it has one.
    pub stop_signal: Option<Signal>,
}

/// One thing that a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ends.
    Exit(i32),
    /// Does nothing for so long.
    Sleep(Duration),
    /// Does nothing for a time drawn evenly from this range.
    SleepBetween(Range),
    /// Uses one core for so long.
    Spin(Duration),
    /// Does nothing until it is killed.
    Forever,
    /// Goes on when this signal comes, or has come.
    AwaitSignal(i32),
    /// From now on ends so long after this signal comes, or has come, beside the other steps, none
    /// of which sees it any more.
    ExitOnSignal {
        /// Which signal.
        signal: i32,
        /// How long after it.
        after: Duration,
        /// The exit code.
        code: i32,
    },
    /// Writes bytes.
    Write(OutputStream, Vec<u8>),
    /// From now on writes so many bytes a second to standard output, beside the other steps.
    Flood(u64),
    /// Starts children that live until the container ends.
    Fork(u32),
    /// Takes memory, in bytes, and keeps it.
    Eat(u64),
    /// The same in a child, which ends.
    EatInChild(u64),
    /// Copies a file to standard output.
    Cat(String),
    /// Makes or replaces a file.
    WriteFile(String, String),
    /// The same so long from now, beside the other steps.
    WriteFileLater {
        /// How long from now.
        after: Duration,
        /// Where.
        path: String,
        /// What it will hold.
        text: String,
    },
    /// Removes a file; absent is fine.
    RemoveFile(String),
    /// Goes on once the file is there.
    AwaitFile(String),
    /// Exits 1 unless the file is there.
    RequireFile(String),
    /// Exits 2 if the file is there.
    RequireNoFile(String),
}

/// Files by path.
pub(super) type Files = BTreeMap<String, String>;

/// The files that one container sees: its own, and those of the volumes it mounts.
pub(super) struct FileView<'a> {
    pub own: &'a mut Files,
    pub volumes: &'a mut BTreeMap<String, Files>,
    pub mounts: &'a [String],
}

impl FileView<'_> {
    pub fn write(&mut self, path: String, text: String) {
        self.holder(&path).insert(path, text);
    }

    fn holder(&mut self, path: &str) -> &mut Files {
        let volume = path
            .strip_prefix("/volumes/")
            .and_then(|rest| rest.split('/').next())
            .filter(|name| self.mounts.iter().any(|mount| mount == name));
        match volume {
            Some(name) => self.volumes.entry(name.to_owned()).or_default(),
            None => self.own,
        }
    }
}

/// What surrounds a process when it does its next steps.
pub(super) struct Surroundings<'a> {
    pub files: FileView<'a>,
    /// Memory that it may still take, in bytes.
    pub memory_left: u64,
    /// What it writes goes to the end of this.
    pub written: &'a mut Vec<(OutputStream, Vec<u8>)>,
}

/// What comes after the steps that could be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask again after this time.
    After(Duration),
    /// Ask again after a time drawn from this range.
    Between(Range),
    /// Ask again when a signal has come.
    Blocked,
    /// The process ends.
    Ends(i32),
    /// The kernel kills it for memory.
    OutOfMemory,
}

/// What happens beside the steps, so long after they asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Aside {
    /// The process ends with this code.
    Ends(Duration, i32),
    /// A file is made or replaced.
    Write(Duration, String, String),
}

/// What a signal does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing now.
    None,
    /// It has waited for it: ask for its next steps.
    Steps,
    /// It ends with this code so long from now.
    Ends(Duration, i32),
}

/// A process that follows a program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Actor {
    program: Program,
    next: usize,
    /// Signals that came and that no step has taken.
    pending: BTreeSet<i32>,
    /// Signals that end it, how long after, and with which code.
    ending: BTreeMap<i32, (Duration, i32)>,
    /// What the steps asked for and nobody has planned yet.
    asides: Vec<Aside>,
    /// What it has taken, in bytes.
    pub memory_bytes: u64,
    pub children: u32,
    pub cpu: Duration,
    /// Bytes that a flood writes at each tick.
    flood: Option<u64>,
}

impl Actor {
    pub fn new(program: Program) -> Self {
        Actor {
            program,
            next: 0,
            pending: BTreeSet::new(),
            ending: BTreeMap::new(),
            asides: Vec::new(),
            memory_bytes: OWN_MEMORY_BYTES,
            children: 0,
            cpu: Duration::ZERO,
            flood: None,
        }
    }

    /// A signal other than SIGKILL has come.
    pub fn signal(&mut self, number: i32) -> Reaction {
        if let Some((after, code)) = self.ending.get(&number) {
            return Reaction::Ends(*after, *code);
        }
        self.pending.insert(number);
        match self.program.steps.get(self.next) == Some(&Step::AwaitSignal(number)) {
            true => Reaction::Steps,
            false => Reaction::None,
        }
    }

    /// What is to happen beside the steps, said once.
    pub fn drain_asides(&mut self) -> Vec<Aside> {
        std::mem::take(&mut self.asides)
    }

    /// What a flood writes now, and when it writes again.
    pub fn flood(&self) -> Option<(Vec<u8>, Duration)> {
        let bytes = self.flood?;
        let line = |at: u64| match at % FLOOD_LINE_BYTES {
            column if column == FLOOD_LINE_BYTES - 1 => b'\n',
            _ => b'f',
        };
        Some(((0..bytes).map(line).collect(), FLOOD_TICK))
    }

    /// Does steps until one takes time. Ask again only when the answer says so.
    pub fn advance(&mut self, around: &mut Surroundings<'_>) -> Next {
        while let Some(step) = self.program.steps.get(self.next).cloned() {
            if let Step::AwaitSignal(number) = step
                && !self.pending.remove(&number)
            {
                return Next::Blocked;
            }
            if let Step::AwaitFile(path) = &step
                && !around.files.holder(path).contains_key(path)
            {
                return Next::After(FILE_POLL);
            }
            if step == Step::Forever {
                return Next::Blocked;
            }
            self.next += 1;
            if let Some(next) = self.perform(step, around) {
                return next;
            }
        }
        Next::Ends(0)
    }

    fn perform(&mut self, step: Step, around: &mut Surroundings<'_>) -> Option<Next> {
        match step {
            Step::Exit(code) => return Some(Next::Ends(code)),
            Step::Sleep(time) => return Some(Next::After(time)),
            Step::SleepBetween(range) => return Some(Next::Between(range)),
            Step::ExitOnSignal {
                signal,
                after,
                code,
            } => {
                self.ending.insert(signal, (after, code));
                if self.pending.remove(&signal) {
                    self.asides.push(Aside::Ends(after, code));
                }
            }
            Step::Spin(time) => {
                self.cpu += time;
                return Some(Next::After(time));
            }
            Step::Write(stream, bytes) => around.written.push((stream, bytes)),
            Step::Flood(bytes_per_second) => {
                let ticks = Duration::from_secs(1).as_millis() / FLOOD_TICK.as_millis();
                let ticks = u64::try_from(ticks).unwrap_or(1);
                self.flood = Some((bytes_per_second / ticks).max(1));
            }
            Step::Fork(children) => self.children += children,
            Step::Eat(bytes) => {
                if bytes > around.memory_left {
                    return Some(Next::OutOfMemory);
                }
                self.memory_bytes += bytes;
                around.memory_left -= bytes;
            }
            // Whether the child is killed for it or not, its parent goes on.
            Step::EatInChild(_) | Step::Forever | Step::AwaitSignal(_) | Step::AwaitFile(_) => {}
            Step::Cat(path) => match around.files.holder(&path).get(&path) {
                Some(text) => {
                    let bytes = text.clone().into_bytes();
                    around.written.push((OutputStream::Stdout, bytes));
                }
                None => return Some(Next::Ends(STEP_FAILED_CODE)),
            },
            Step::WriteFile(path, text) => around.files.write(path, text),
            Step::WriteFileLater { after, path, text } => {
                self.asides.push(Aside::Write(after, path, text));
            }
            Step::RemoveFile(path) => {
                around.files.holder(&path).remove(&path);
            }
            Step::RequireFile(path) => {
                if !around.files.holder(&path).contains_key(&path) {
                    return Some(Next::Ends(1));
                }
            }
            Step::RequireNoFile(path) => {
                if around.files.holder(&path).contains_key(&path) {
                    return Some(Next::Ends(2));
                }
            }
        }
        None
    }
}
