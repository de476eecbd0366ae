//! Service files: YAML or JSON, one service or several documents.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;

use super::CtlError;
use crate::api::manifest::ServiceManifest;

/// Larger than any file that a person writes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The services of a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<ServiceManifest>, CtlError> {
    let name = match path.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let text = text_of(path).map_err(|error| problem(&name, &error))?;
    parse(&name, &text)
}

fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)?,
        false => std::fs::File::open(path)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)?,
    };
    match read as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other("it is larger than 1 MiB")),
        false => Ok(text),
    }
}

fn parse(name: &str, text: &str) -> Result<Vec<ServiceManifest>, CtlError> {
    let manifests: Vec<ServiceManifest> = serde_saphyr::from_multiple_with_options(text, options())
        .map_err(|error| syntax(name, &error))?;
    if manifests.is_empty() {
        return Err(problem(name, &"there is no service in it"));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = manifests.iter().find(|it| !seen.insert(&it.name)) {
        let why = format!("service {:?} is in it twice", twice.name);
        return Err(problem(name, &why));
    }
    Ok(manifests)
}

/// Where it is comes first, as compilers say it.
fn syntax(name: &str, error: &serde_saphyr::Error) -> CtlError {
    let error = error.without_snippet();
    let text = words(error);
    match error.location() {
        None => problem(name, &text),
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            let again = format!(" at line {line}, column {column}");
            let why = text.strip_suffix(&again).unwrap_or(&text);
            problem(&format!("{name}:{line}:{column}"), &why)
        }
    }
}

/// What is wrong, for whoever wrote the file: not in the names of our types.
fn words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is given twice"),
        Error::InvalidScalar { ty, .. } => match *ty {
            "u16" => format!("a whole number up to {} is needed", u16::MAX),
            "u32" => format!("a whole number up to {} is needed", u32::MAX),
            _ => error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
        },
        error => error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
    }
}

fn problem(place: &str, why: &dyn Display) -> CtlError {
    CtlError::Usage(format!("{place}: {why}"))
}

/// A service nests three deep; bombs made of aliases are not welcome.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 50_000,
            max_documents: 256,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::manifest::{HealthManifest, RestartManifest};

    #[test]
    fn errors_name_line_and_column() {
        let files = [
            "",
            "name: web\nimage: web:1\nreplica: 3\n",
            "name: web\nimage: web:1\nreplicas: many\n",
            "name: web\nimage: web:1\nhealth:\n  interval: soon\n",
            "name: web\n",
            "name: [web\n",
            "name: web\nname: web\nimage: i\n",
            "{\"name\": \"web\", \"image\": 1, \"ports\": [99999]}",
            "name: a\nimage: a\n---\nname: b\n",
            "name: a\nimage: a\n---\nname: a\nimage: b\n",
        ];
        let mut text = String::new();
        for file in files {
            let answer = match parse("web.yaml", file) {
                Ok(manifests) => format!("{} services", manifests.len()),
                Err(error) => error.to_string(),
            };
            text.push_str(&format!("--- {}\n{answer}\n", file.replace('\n', " | ")));
        }
        insta::assert_snapshot!(text);
    }

    /// The README's service says everything that can be said, and shows the defaults.
    #[test]
    fn the_service_that_is_documented_is_one() {
        let readme = include_str!("../../../../README.md");
        let blocks = readme.split("```yaml\n").skip(1);
        let blocks = blocks.filter_map(|it| it.split("```").next());
        let documented = blocks.into_iter().find(|it| it.starts_with("name: web"));
        let documented = parse("README.md", documented.unwrap()).unwrap().remove(0);
        let least = parse("f", "name: web\nimage: i\n").unwrap().remove(0);
        assert_eq!(documented.stop_grace, least.stop_grace);
        assert_eq!(documented.update, least.update);
        assert_eq!(documented.resources, least.resources);
        assert_eq!(
            documented.health,
            Some(HealthManifest {
                command: vec!["/bin/check".to_owned()],
                ..HealthManifest::default()
            })
        );
        let least = RestartManifest {
            condition: documented.restart.condition,
            ..least.restart
        };
        assert_eq!(documented.restart, least);
    }

    #[test]
    fn one_file_may_hold_several_services() {
        let manifests = parse("f", "name: a\nimage: a\n---\nname: b\nimage: b\n").unwrap();
        let names: Vec<&str> = manifests.iter().map(|manifest| &*manifest.name).collect();
        assert_eq!(names, ["a", "b"]);
        let json = parse("f", "{\"name\": \"a\", \"image\": \"a\"}").unwrap();
        assert_eq!(json[0].name, "a");
    }
}
