//! Files that must not load, and what is said of them.
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

use crate::support::{errors_of, parse_with, render, with};

macro_rules! refused {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(errors_of(&$text));
        }
    )*};
}

refused! {
    // Not a scenario at all.
    empty_file: "";
    only_a_comment: "# nothing\n";
    a_list: "- a\n- b\n";
    bad_yaml: "scenario: 1\nname: [a, b\n";
    colon_in_text: "scenario: 1\nname: a\ndescription: this: that\n";
    tab_indent: "scenario: 1\nname: a\ncluster:\n\tmanagers: 3\n";
    two_documents: "scenario: 1\nname: a\n---\nscenario: 1\nname: b\n";
    duplicate_key: "scenario: 1\nname: a\nhorizon: 1m\nname: b\n";
    too_deep: "[".repeat(100_000);
    too_deep_block: (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    alias_bomb: bomb();
    unknown_tag: "scenario: 1\nname: !weird a\n";
    another_version: "scenario: 2\nname: a\n";
    missing_name: "scenario: 1\nhorizon: 1m\n";

    // Fields.
    misspelt_field: with("horizn: 3m\n");
    unknown_field: with("colour: blue\n");
    misspelt_nested_field: "scenario: 1\nname: a\ncluster: { timers: { hartbeat: 3s } }\n";
    wrong_types: "scenario: 1\nname: [a]\nhorizon: { a: 1 }\ncluster: 7\nimages: none\nseeds: \
        many\n";
    bad_durations: "scenario: 1\nname: a\nhorizon: 5\nsettle: 5 parsecs\ncluster: { network: { \
        latency: 2ms..1ms }, restart_delay: -5s }\n";
    bad_sizes: "scenario: 1\nname: a\ncluster: { agents: { memory: 8 apples, cpus: many } }\n";
    bad_numbers: "scenario: 1\nname: a\ncluster: { managers: 0, agents: -1 }\nclients: { reads: \
        101, keys: '5' }\n";
    no_seeds: "scenario: 1\nname: a\nseeds: []\n";
    unknown_profile: "scenario: 1\nname: a\nprofile: waren\n";
    zero_timer: "scenario: 1\nname: a\ncluster: { timers: { heartbeat: 0s, raft_election: 100ms \
        } }\n";
    run_twice: "scenario: 1\nname: a\nimages: { web: { run: forever, run_for: 5s } }\n";

    unknown_step: runtime("{ strat: 5ms, create: { p0: 1ms, p51: 2ms } }");
    falling_quantiles: runtime("{ create: { p0: 1ms, p50: 4ms, p95: 3ms, p100: 9ms }, \
        start: 2ms..1ms }");
    begin_without_start: runtime("{ begin: 3ms }");
    begin_after_start: runtime("{ start: { p0: 1ms, p100: 9ms }, \
        begin: { p0: 1ms, p50: 6ms, p100: 9ms } }");
    no_durations: runtime("{ create: { p0: 1, p100: soon }, delete: fast, call: [1ms, 2ms] }");

    // Workload.
    step_without_verb: with("").replace("deploy: web, image", "deplyo: web, image");
    step_with_two_verbs: with("").replace("deploy: web,", "deploy: web, scale: web,");
    unknown_image: with("").replace("image: web", "image: wbe");
    unknown_service: with("").replace("workload:\n", "workload:\n  - { at: 5s, scale: wbe, \
        replicas: 2 }\n  - { at: 6s, deploy: api }\n  - { at: 7s, drain: agent-9 }\n");
    two_modes: with("").replace("replicas: 3", "replicas: 3, global: true, ports: [80, 80]");
    impossible_update: with("").replace("replicas: 3", "replicas: 3, update: { surge: 0, \
        unavailable: 0 }");
    endless_job: with("").replace("replicas: 3", "completions: 3, restart: always");
    lock_file_without_volume: with("").replace("replicas: 3", "replicas: 3, election: { \
        backend: lock-file, ttl: 1s, renew: 2s }");

    // Faults.
    unknown_action: with("faults: [{ action: proces-kil, target: { role: leader }, at: 1s }]\n");
    unknown_argument: with("faults: [{ action: power-loss, args: { tron: true }, target: { \
        role: leader }, at: 1s }]\n");
    missing_argument: with("faults:\n  - { action: link-delay, target: { role: link }, at: 1s \
        }\n  - { action: registry-error, args: { error: forbidden }, at: 1s }\n");
    no_time: with("faults: [{ action: pause, target: { role: agent } }]\n");
    two_times: with("faults: [{ action: pause, target: { role: agent }, at: 1s, on: { event: \
        task.state } }]\n");
    useless_trigger_fields: with("faults: [{ action: pause, target: { role: agent }, at: 1s, \
        times: 3, delay: 5s }]\n");
    no_target: with("faults: [{ action: pause, at: 1s }]\n");
    wrong_target: with("faults:\n  - { action: pause, target: { role: registry }, at: 1s }\n  - \
        { name: b, action: runtime-hang, target: { node: manager-1 }, at: 1s }\n  - { name: c, \
        action: pause, target: { role: task, service: web }, at: 1s }\n");
    empty_target: with("faults: [{ action: pause, target: { role: agent, labels: { zone: c } }, \
        at: 1s }]\n");
    target_too_large: with("faults: [{ action: pause, target: { role: agent, mode: fixed, \
        value: 9 }, at: 1s }]\n");
    unknown_node: with("faults: [{ action: pause, target: { node: [agent-9, worker-1] }, at: 1s \
        }]\n");
    mode_without_value: with("faults: [{ action: pause, target: { role: agent, mode: fixed }, \
        at: 1s }]\n");
    duplicate_fault: with("faults:\n  - { action: pause, target: { role: agent }, at: 1s }\n  - \
        { action: pause, target: { role: agent }, at: 2s }\n");
    unknown_after: with("faults:\n  - { name: first, action: pause, target: { role: agent }, \
        at: 1s }\n  - { name: second, action: pause, target: { role: agent }, after: frist }\n");
    cycle: with("faults:\n  - { name: a, action: pause, target: { role: agent }, after: b }\n  \
        - { name: b, action: pause, target: { role: agent }, after: c }\n  - { name: c, action: \
        pause, target: { role: agent }, after: a }\n");
    unknown_event: with("faults: [{ action: pause, target: { role: agent }, on: { event: \
        task.stat } }]\n");
    too_often: with("faults: [{ action: pause, target: { role: agent }, every: 1us }]\n");
    forever_for_a_while: with("faults: [{ action: pause, target: { role: agent }, at: 1s, for: \
        5s, heal: never }]\n");
    bad_shapes: with("faults:\n  - { name: a, action: partition, args: { shape: bridge }, \
        target: { role: leader }, at: 1s }\n  - { name: b, action: partition, args: { shape: \
        majorities-ring }, target: { node: [agent-1, agent-2] }, at: 1s }\n  - { name: c, \
        action: partition, args: { groups: [[agent-1], [agent-1, agent-7]] }, at: 1s }\n");
    bad_operator: with("faults: [{ action: operator, args: { scale: wbe, replicas: 2 }, at: 1s \
        }]\n");
    bad_swarm: with("swarm: { actions: [pause, operator, fly], rate: often }\n");

    // Expectations.
    unknown_check: with("expect: { invariants: [I4, bounded-instance, I11] }\n");
    exception_without_reason: with("expect: { invariants: { except: [{ name: I4 }] } }\n");
    expression_syntax: with("expect: { eventually: [{ check: 'service(\"web\").running = 4' }] \
        }\n");
    expression_unclosed: with("expect: { never: ['task.state == \"failed'] }\n");
    expression_unknown_names: with("expect:\n  eventually:\n    - { check: \
        'service(\"web\").runing == 4' }\n    - { check: 'servce(\"web\").running == 4' }\n    \
        - { check: 'task.state == \"lost\"' }\n  never:\n    - 'tsk.state == \"failed\"'\n    - \
        'tasks.exist(t, t.ready)'\n");
    expression_types: with("expect:\n  never:\n    - 'task.exit_code == \"one\"'\n    - \
        'task.state > 3'\n    - 'service(\"web\").running'\n    - 'service(\"web\").running && \
        true'\n    - 'tasks.state == \"lost\"'\n    - 'service(7).running == 1'\n");
    event_condition: with("faults: [{ action: pause, target: { role: agent }, on: { event: \
        task.state, where: 'state == \"running\"' } }]\n");

    // Everything at once.
    many_errors: "scenario: 1\nname: many errors\nhorizn: 1m\ncluster: { managers: lots, \
        agents: { cpu: 4 } }\nimages: { web: { health: bad } }\nworkload: [{ at: soon, deploy: \
        api, image: wbe }]\nfaults: [{ action: explode, at: 1s }]\nexpect: { fails: [I99], \
        never: ['1 +'] }\n";
}

/// A file with these measured steps of its runtimes.
fn runtime(steps: &str) -> String {
    format!("scenario: 1\nname: a\ncluster:\n  runtime:\n    steps: {steps}\n")
}

fn bomb() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        let row = vec![before; 10].join(", ");
        text += &format!("a{level}: &a{level} [{row}]\n");
    }
    text
}

#[test]
fn included_files_have_places_too() {
    let text = "scenario: 1\nname: a\ninclude: [shared/a.yaml, gone.yaml]\n";
    let files = [
        (
            "shared/a.yaml",
            "include: b.yaml\nclustr: { managers: 3 }\n",
        ),
        (
            "shared/b.yaml",
            "include: a.yaml\nimages: { web: { run: never } }\n",
        ),
    ];
    let error = parse_with(text, &files).expect_err("it must not load");
    insta::assert_snapshot!(render(&error.diagnostics));
}

#[test]
fn files_that_cannot_be_read() {
    let missing = wavetank_scenario::load("no/such/file.yaml".as_ref()).expect_err("no file");
    let folder = wavetank_scenario::load("/".as_ref()).expect_err("a folder");
    insta::assert_snapshot!(render(&[missing.diagnostics, folder.diagnostics].concat()));
}

#[test]
fn bytes_that_are_no_text() {
    let file = std::env::temp_dir().join(format!("wavetank-latin-1-{}.yaml", std::process::id()));
    std::fs::write(&file, b"scenario: 1\nname: caf\xe9\n").expect("it can be written");
    let error = wavetank_scenario::load(&file).expect_err("not UTF-8");
    std::fs::remove_file(&file).expect("it can be removed");
    assert!(
        error.diagnostics[0]
            .message
            .ends_with("line 2 is not UTF-8 text"),
        "{error:?}"
    );
}
