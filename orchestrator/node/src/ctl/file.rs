//! Service files: YAML or JSON, one service or several documents.

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
    Ok(manifests)
}

/// Where it is comes first, as compilers say it.
fn syntax(name: &str, error: &serde_saphyr::Error) -> CtlError {
    let text = error.without_snippet().to_string();
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

    #[test]
    fn one_file_may_hold_several_services() {
        let manifests = parse("f", "name: a\nimage: a\n---\nname: b\nimage: b\n").unwrap();
        let names: Vec<&str> = manifests.iter().map(|manifest| &*manifest.name).collect();
        assert_eq!(names, ["a", "b"]);
        let json = parse("f", "{\"name\": \"a\", \"image\": \"a\"}").unwrap();
        assert_eq!(json[0].name, "a");
    }
}
