//! A scenario is called what its file is called, in kebab-case, so that a name in a report leads
//! to its file.

use super::{Problem, Source};

/// Checks every scenario file, recognised as the command line recognises it: YAML with
/// `scenario:` at the top level.
pub fn check_name(source: &Source) -> Vec<Problem> {
    let Some(stem) = scenario_stem(&source.path) else {
        return Vec::new();
    };
    let top_level = |key: &str| {
        source.text.lines().enumerate().find_map(|(index, line)| {
            Some((
                index + 1,
                line.strip_prefix(key)?
                    .split(" #")
                    .next()?
                    .trim()
                    .to_owned(),
            ))
        })
    };
    if top_level("scenario:").is_none() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if !is_kebab_case(stem) {
        problems.push(Problem::new(
            source,
            1,
            format!("`{stem}` is not kebab-case"),
        ));
    }
    match top_level("name:") {
        Some((_, name)) if name.trim_matches(['"', '\'']) == stem => {}
        Some((line, name)) => {
            let what = format!("the name `{name}` is not the file's name `{stem}`");
            problems.push(Problem::new(source, line, what));
        }
        None => problems.push(Problem::new(source, 1, "a scenario without `name`")),
    }
    problems
}

/// The file's name without extension, if it lies under `scenarios/`.
fn scenario_stem(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("scenarios/")?;
    inside.rsplit('/').next()?.strip_suffix(".yaml")
}

fn is_kebab_case(name: &str) -> bool {
    name.split('-').all(|part| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !part.is_empty() && part.chars().all(allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::check_name;
    use crate::tidy::Source;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check_name(&Source::new(path, text))
            .into_iter()
            .map(|problem| problem.what)
            .collect()
    }

    #[test]
    fn a_name_that_differs_from_its_file_is_named() {
        assert_eq!(
            problems(
                "scenarios/a/lost-exit.yaml",
                "scenario: 1\nname: lost-exits # why\n"
            ),
            ["the name `lost-exits` is not the file's name `lost-exit`"]
        );
        assert_eq!(
            problems("scenarios/a/b.yaml", "scenario: 1\n"),
            ["a scenario without `name`"]
        );
    }

    #[test]
    fn a_name_in_another_case_is_named() {
        assert_eq!(
            problems("scenarios/Lost_Exit.yaml", "scenario: 1\nname: Lost_Exit\n"),
            ["`Lost_Exit` is not kebab-case"]
        );
    }

    #[test]
    fn good_names_and_other_files_are_fine() {
        assert!(problems("scenarios/lost-exit.yaml", "scenario: 1\nname: lost-exit\n").is_empty());
        assert!(problems("scenarios/shared/Five.yaml", "agents: 5\n").is_empty());
        assert!(problems("ci/x.yaml", "scenario: 1\n").is_empty());
    }
}
