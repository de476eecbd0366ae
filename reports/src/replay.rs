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
    use crate::run_report::RunIdentity;

    fn run(file: &str, overrides: &[&str]) -> RunIdentity {
        RunIdentity {
            scenario: "any".to_owned(),
            file: file.to_owned(),
            seed: 17,
            world: "event".to_owned(),
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
            commit: None,
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
