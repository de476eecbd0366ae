//! From what a plan says about an image to the steps of the test program that do it.
//!
//! The program does everything by itself, with chance of its own: a container's running time is
//! drawn by its process, so two runs of one seed differ, as real runs do.
//!
//! One moment is out of its hands: a signal that comes between the start of the process and its
//! first instruction is dropped by the kernel, as for every first process of a PID namespace that
//! has no handler yet. Then the process goes on, as one that has ignored the signal.

use std::fs;
use std::io;
use std::time::Duration;

use wavetank_fixtures::program::SIGTERM;
use wavetank_fixtures::test_image::HEALTH_PATH;
use wavetank_fixtures::{Program, Step};
use wavetank_scenario::plan::{Health, Image, OnTerm, Range};

use super::ImageError;

/// A file by which a fault makes a container unhealthy.
const UNHEALTHY_PATH: &str = "/tmp/unhealthy";
/// What the program takes without being told to, in bytes.
const OWN_MEMORY_BYTES: u64 = 1 << 20;

/// A probe that tells what the plan says about an image's health. For services without one.
pub fn health_command() -> Vec<String> {
    command([
        Step::RequireFile(HEALTH_PATH.to_owned()),
        Step::RequireNoFile(UNHEALTHY_PATH.to_owned()),
    ])
}

/// Has the probes of a container succeed or fail from now on, by a process in it.
///
/// # Errors
/// If the process is gone, or is in no container.
pub fn set_health(pid: u32, healthy: bool) -> io::Result<()> {
    // The stand-in of a chaos runtime has a container's process number and no container.
    let mounts = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt"));
    if mounts(&pid.to_string())? == mounts("self")? {
        return Err(io::Error::other("the process is in no container"));
    }
    let path = format!("/proc/{pid}/root{UNHEALTHY_PATH}");
    match healthy {
        false => fs::write(path, ""),
        true => fs::remove_file(path),
    }
}

/// Run in a container, it makes [`health_command`] fail from then on.
pub fn unhealthy_command() -> Vec<String> {
    command([Step::WriteFile(UNHEALTHY_PATH.to_owned(), String::new())])
}

/// Takes [`unhealthy_command`] back.
pub fn healthy_command() -> Vec<String> {
    command([Step::RemoveFile(UNHEALTHY_PATH.to_owned())])
}

fn command(steps: impl IntoIterator<Item = Step>) -> Vec<String> {
    Program::of(steps).command()
}

/// What a container of the image does when all times are divided by `speed`.
pub fn behaviour(name: &str, image: &Image, speed: u32) -> Result<Program, ImageError> {
    let code = |code: i32| {
        u8::try_from(code).map_err(|_| ImageError::ExitCode {
            image: name.to_owned(),
            code,
        })
    };
    let scaled = |time: Duration| micros(time / speed.max(1));
    let mut steps = Vec::new();
    // First of all, so that no signal meets a process that does not obey it yet. One that ignores
    // it needs no step: the program holds back what no step waits for.
    if let OnTerm::Exits { after, code: exit } = image.on_term {
        steps.push(Step::ExitOnSignal {
            signal: SIGTERM,
            after_us: scaled(after),
            code: code(exit.unwrap_or(128 + i32::from(SIGTERM)))?,
        });
    }
    steps.extend(health(image.health, scaled));
    let mebibytes = image
        .memory_bytes
        .saturating_sub(OWN_MEMORY_BYTES)
        .div_ceil(1 << 20);
    if mebibytes > 0 {
        steps.push(Step::EatMebibytes(mebibytes));
    }
    match image.run_for {
        None => steps.push(Step::Forever),
        Some(Range { min, max }) => {
            steps.push(Step::SleepBetweenUs(scaled(min), scaled(max)));
            steps.push(Step::Exit(code(image.exit_code)?));
        }
    }
    Ok(Program::of(steps))
}

fn health(health: Health, scaled: impl Fn(Duration) -> u64) -> Option<Step> {
    let (path, text) = (HEALTH_PATH.to_owned(), "well\n".to_owned());
    match health {
        Health::Ok => Some(Step::WriteFile(path, text)),
        Health::After(time) => Some(Step::WriteFileLater {
            after_us: scaled(time),
            path,
            text,
        }),
        Health::Never => None,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use wavetank_fixtures::program::PROGRAM_PATH;

    use super::super::tests::image;
    use super::*;

    fn steps(image: &Image, speed: u32) -> Vec<String> {
        behaviour("web", image, speed).unwrap().arguments()
    }

    #[test]
    fn times_are_divided_by_the_speed() {
        let image = Image {
            run_for: Some(Range {
                min: Duration::ZERO,
                max: Duration::from_millis(20),
            }),
            exit_code: 3,
            on_term: OnTerm::Exits {
                after: Duration::from_millis(50),
                code: Some(7),
            },
            health: Health::After(Duration::from_secs(5)),
            memory_bytes: 32 << 20,
            ..image(0)
        };
        let expected = [
            "exit-on-signal=15,5000,7",
            "write-file-later=500000,/tmp/healthy,well\n",
            "eat-mib=31",
            "sleep-between-us=0,2000",
            "exit=3",
        ];
        assert_eq!(steps(&image, 10), expected);
        assert_eq!(steps(&image, 0)[0], "exit-on-signal=15,50000,7");
    }

    #[test]
    fn the_default_end_and_none_at_all() {
        let mut image = Image {
            on_term: OnTerm::Exits {
                after: Duration::ZERO,
                code: None,
            },
            health: Health::Never,
            ..image(0)
        };
        assert_eq!(steps(&image, 1), ["exit-on-signal=15,0,143", "forever"]);
        image.on_term = OnTerm::Ignores;
        assert_eq!(steps(&image, 1), ["forever"]);
    }

    #[test]
    fn a_code_that_no_process_has_is_refused() {
        let run_for = Some(Range {
            min: Duration::ZERO,
            max: Duration::ZERO,
        });
        for exit_code in [-1, 256] {
            let image = Image {
                run_for,
                exit_code,
                ..image(0)
            };
            let error = behaviour("web", &image, 1).unwrap_err().to_string();
            assert!(error.contains(&format!("`web`: {exit_code}")), "{error}");
        }
    }

    #[test]
    fn the_probe_is_read_back_as_the_programs() {
        for command in [health_command(), unhealthy_command(), healthy_command()] {
            assert_eq!(command[0], PROGRAM_PATH);
            assert!(Program::parse(&command).is_some(), "{command:?}");
        }
    }
}
