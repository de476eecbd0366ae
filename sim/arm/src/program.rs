//! What the program of the test images means to a simulated process.

use wavetank_conformance::TestImage;
use wavetank_fixtures::program::filling;
use wavetank_fixtures::{Output, Program, Step};
use wavetank_port::{ContainerSpec, OutputStream, Signal};
use wavetank_scenario::plan::Range;
use wavetank_world::{Interpretation, Program as Simulated, Step as SimulatedStep};

use std::time::Duration;

/// The image's own environment.
const IMAGE_ENVIRONMENT: (&str, &str) = ("PATH", "/bin");

/// Reads a container's command as the test images' program does.
pub fn interpret(spec: &ContainerSpec) -> Interpretation {
    let image = image_of(&spec.image.0);
    let program = match (spec.command.is_empty(), image) {
        (true, Some(image)) => Some(image.program()),
        (true, None) => return Interpretation::Image,
        (false, _) => Program::parse(&spec.command),
    };
    let Some(program) = program else {
        return Interpretation::NotRunnable;
    };
    let stop_signal = image.and_then(TestImage::stop_signal);
    Interpretation::Program(Simulated {
        steps: program.steps.iter().map(|it| step(it, spec)).collect(),
        stop_signal: stop_signal.map(|_| Signal::Other(wavetank_fixtures::program::SIGUSR1)),
    })
}

/// The test image of this name: `host/path/NAME:tag` or `host/path/NAME@digest`.
fn image_of(reference: &str) -> Option<TestImage> {
    let last = reference.rsplit('/').next()?;
    let name = last.split([':', '@']).next()?;
    TestImage::ALL
        .into_iter()
        .find(|image| image.name() == name)
}

fn step(step: &Step, spec: &ContainerSpec) -> SimulatedStep {
    let mebibytes = |size: u64| size << 20;
    match step {
        Step::Exit(code) => SimulatedStep::Exit((*code).into()),
        Step::SleepMs(time) => SimulatedStep::Sleep(Duration::from_millis(*time)),
        Step::SleepBetweenUs(min, max) => SimulatedStep::SleepBetween(Range {
            min: Duration::from_micros(*min),
            max: Duration::from_micros((*max).max(*min)),
        }),
        Step::SpinMs(time) => SimulatedStep::Spin(Duration::from_millis(*time)),
        Step::Forever => SimulatedStep::Forever,
        Step::AwaitSignal(signal) => SimulatedStep::AwaitSignal((*signal).into()),
        Step::ExitOnSignal {
            signal,
            after_us,
            code,
        } => SimulatedStep::ExitOnSignal {
            signal: (*signal).into(),
            after: Duration::from_micros(*after_us),
            code: (*code).into(),
        },
        Step::Write(output, text) => write(*output, text.clone().into_bytes()),
        Step::Fill {
            output,
            bytes,
            line_bytes,
        } => write(*output, filling(*bytes, *line_bytes).collect()),
        // As fast as it goes is what a real one reaches through a pipe, more or less.
        Step::Flood(0) => SimulatedStep::Flood(100 << 20),
        Step::Flood(rate) => SimulatedStep::Flood(*rate),
        Step::Fork(children) => SimulatedStep::Fork(*children),
        Step::EatMebibytes(size) => SimulatedStep::Eat(mebibytes(*size)),
        Step::EatMebibytesInChild(size) => SimulatedStep::EatInChild(mebibytes(*size)),
        Step::PrintEnvironment => write(Output::Stdout, environment(spec).into_bytes()),
        Step::Cat(path) => SimulatedStep::Cat(path.clone()),
        Step::WriteFile(path, text) => SimulatedStep::WriteFile(path.clone(), text.clone()),
        Step::WriteFileLater {
            after_us,
            path,
            text,
        } => SimulatedStep::WriteFileLater {
            after: Duration::from_micros(*after_us),
            path: path.clone(),
            text: text.clone(),
        },
        Step::RemoveFile(path) => SimulatedStep::RemoveFile(path.clone()),
        Step::AwaitFile(path) => SimulatedStep::AwaitFile(path.clone()),
        Step::RequireFile(path) => SimulatedStep::RequireFile(path.clone()),
        Step::RequireNoFile(path) => SimulatedStep::RequireNoFile(path.clone()),
    }
}

fn write(output: Output, bytes: Vec<u8>) -> SimulatedStep {
    let stream = match output {
        Output::Stdout => OutputStream::Stdout,
        Output::Stderr => OutputStream::Stderr,
    };
    SimulatedStep::Write(stream, bytes)
}

fn environment(spec: &ContainerSpec) -> String {
    let mut variables = spec.environment.clone();
    let (name, value) = IMAGE_ENVIRONMENT;
    variables
        .entry(name.to_owned())
        .or_insert_with(|| value.to_owned());
    let lines = variables.iter();
    lines
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}
