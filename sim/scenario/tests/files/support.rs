//! Reading scenarios from text, and showing diagnostics as a terminal without colours would.

use std::collections::BTreeMap;

use miette::{GraphicalReportHandler, GraphicalTheme};
use wavetank_scenario::{Diagnostic, LoadError, Scenario};

/// Reads a scenario that includes nothing.
pub fn parse(text: &str) -> Result<Scenario, LoadError> {
    parse_with(text, &[])
}

/// Reads a scenario that may include these files.
pub fn parse_with(text: &str, files: &[(&str, &str)]) -> Result<Scenario, LoadError> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let include = |path: &str| {
        files
            .get(path)
            .map(|text| (*text).to_owned())
            .ok_or("there is no such file".to_owned())
    };
    Scenario::parse("test.yaml", text, &include)
}

/// Diagnostics as text.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(100);
    let mut text = String::new();
    for one in diagnostics {
        handler
            .render_report(&mut text, one)
            .expect("a report can be written");
        text.push('\n');
    }
    text
}

/// The diagnostics of a file that must not load.
pub fn errors_of(text: &str) -> String {
    match parse(text) {
        Ok(scenario) => panic!("this loads: {}", scenario.name),
        Err(error) => format!("{error}\n\n{}", render(&error.diagnostics)),
    }
}

/// A file that loads, with this at its end.
pub fn with(rest: &str) -> String {
    format!(
        "scenario: 1\nname: test\n\
         cluster: {{ managers: 3, agents: {{ count: 4, labels: {{ zone: [a, b] }} }} }}\n\
         images:\n  web: {{ run: forever }}\n\
         workload:\n  - {{ at: 1s, deploy: web, image: web, replicas: 3 }}\n{rest}"
    )
}
