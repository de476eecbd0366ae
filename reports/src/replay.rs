//! The one command that plays a run again.

use crate::run_report::RunIdentity;

/// How the README tells people to start wavetank.
const PROGRAM: &str = "cargo run --release --";

/// The command for one run, safe to paste into a POSIX shell.
pub fn command(run: &RunIdentity) -> String {
    let mut command = format!("{PROGRAM} run {} --seed {}", quoted(&run.file), run.seed);
    for assignment in &run.overrides {
        command.push_str(" --set ");
        command.push_str(&quoted(assignment));
    }
    if run.world != "event" {
        command.push_str(" --world ");
        command.push_str(&quoted(&run.world));
    }
    if let Some(live) = &run.live {
        let runtime = quoted(&live.runtime);
        command.push_str(&format!(" --runtime {runtime} --speed {}", live.speed));
    }
    command
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::command;
    use crate::run_report::{LiveRun, RunIdentity};

    fn run(file: &str, overrides: &[&str]) -> RunIdentity {
        RunIdentity {
            scenario: "any".to_owned(),
            file: file.to_owned(),
            seed: 17,
            world: "event".to_owned(),
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
            commit: None,
            live: None,
        }
    }

    #[test]
    fn the_plain_case_is_what_the_documentation_shows() {
        assert_eq!(
            command(&run("scenarios/a.yaml", &[])),
            "cargo run --release -- run scenarios/a.yaml --seed 17"
        );
    }

    #[test]
    fn a_real_run_is_played_again_on_the_same_runtime() {
        let live = RunIdentity {
            world: "live".to_owned(),
            live: Some(LiveRun {
                runtime: "podman".to_owned(),
                speed: 10,
            }),
            ..run("a.yaml", &[])
        };
        assert_eq!(
            command(&live),
            "cargo run --release -- run a.yaml --seed 17 --world live --runtime podman --speed 10"
        );
    }

    #[test]
    fn a_file_name_cannot_break_out_of_its_word() {
        assert_eq!(
            command(&run("it's; rm.yaml", &[])),
            r"cargo run --release -- run 'it'\''s; rm.yaml' --seed 17"
        );
    }

    #[test]
    fn what_the_run_was_given_is_given_again() {
        assert_eq!(
            command(&run("a.yaml", &["cluster.agents.count=9", "a=b c"])),
            "cargo run --release -- run a.yaml --seed 17 --set cluster.agents.count=9 \
             --set 'a=b c'"
        );
    }
}
