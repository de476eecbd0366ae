//! No input makes the reader panic, and a plan depends on file and seed alone.

use proptest::prelude::*;
use wavetank_scenario::{Expression, Scenario};

use crate::support::{parse, render, with};

const VALID: &str = "faults:
  - { name: a, action: partition, args: { shape: majorities-ring }, target: { role: manager },
      every: 20s, jitter: 9s, for: 1s..9s }
  - { name: b, action: task-exit, target: { service: web, mode: random, value: 3 }, after: a,
      delay: 1s }
swarm: { actions: [pause, partition, clock-jump, registry-error], rate: 9/min }
expect:
  eventually: [{ check: 'service(\"web\").running == 3', within: 30s }]
  never: ['task.state == \"failed\"']
";

/// Reads, and renders whatever is said: that must not panic either.
fn survive(text: &str) {
    match parse(text) {
        Ok(scenario) => {
            render(&scenario.lints());
            scenario.explain(1);
        }
        Err(error) => {
            assert!(error.errors() > 0);
            render(&error.diagnostics);
        }
    }
}

/// Words that lead deep into the reader.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "faults",
        "target",
        "role",
        "agent",
        "at",
        "every",
        "5s",
        "1s..2s",
        "-1",
        "0",
        "99999999999999999999",
        "deploy",
        "web",
        "image",
        "null",
        "~",
        "true",
        "all",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "- ",
        "\n",
        "  ",
        "&a ",
        "*a",
        "<<",
        "'",
        "\"",
        "#",
        "|",
        ">-",
        "!!str ",
        "---",
        "\t",
        "é",
        "\u{feff}",
        "include",
        "cluster",
        "labels",
        "expect",
        "never",
        "task.state == ",
        "args",
        "on",
        "event",
        "where",
        "mode",
        "random",
        "value",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn words_never_panic(text in words()) {
        survive(&text);
        survive(&with(&text));
    }

    #[test]
    fn a_damaged_file_never_panics(
        at in any::<prop::sample::Index>(), cut in 0usize..30, put in words()
    ) {
        let text = with(VALID);
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.floor_char_boundary((start + cut).min(text.len()));
        survive(&format!("{}{put}{}", &text[..start], &text[end..]));
    }

    #[test]
    fn expressions_never_panic(source in "[-a-z0-9.()\\[\\]\"'=!<>&|+*/%?:, {}]{0,60}") {
        for compiled in [
            Expression::compile_never(&source),
            Expression::compile_eventually(&source),
            Expression::compile_event("task.state", &source),
        ].into_iter().flatten() {
            let _ = compiled.evaluate(&serde_json::Value::Null);
        }
    }

    #[test]
    fn odd_expressions_never_panic(source in "\\PC{0,40}") {
        let _ = Expression::compile_never(&source);
    }

    #[test]
    fn a_plan_depends_on_file_and_seed_alone(seed in any::<u64>()) {
        let read = || -> Scenario { parse(&with(VALID)).expect("it loads") };
        let plan = read().plan(seed);
        prop_assert_eq!(&plan, &read().plan(seed));
        let stored = serde_json::to_string(&plan).expect("a plan can be stored");
        prop_assert_eq!(plan, serde_json::from_str(&stored).expect("and read back"));
    }
}
