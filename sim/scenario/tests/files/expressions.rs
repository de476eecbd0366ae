//! What expressions mean.

use serde_json::{Map, Value, json};
use wavetank_scenario::Expression;

fn facts() -> Value {
    json!({
        "services": {
            "web": {
                "replicas": 4, "running": 3, "ready": 2, "rollout": "updating", "stopped": false
            },
            "job": { "replicas": 2, "terminal": 2 },
        },
        "tasks": [
            { "id": "task-1", "service": "web", "state": "running", "node": "agent-1",
              "ready": true },
            { "id": "task-2", "service": "web", "state": "lost", "node": null, "ready": false },
        ],
        "nodes": { "agent-1": { "name": "agent-1", "status": "ready" } },
        "leases": { "leader": { "holder": "task-1.1", "token": 3 } },
        "task": { "id": "task-2", "state": "failed", "exit_code": null, "reason": "node_down" },
        "event": { "name": "store.task", "to": "failed" },
    })
}

#[test]
fn facts_make_expressions_true_or_false() {
    for (source, truth) in [
        ("service(\"web\").running == 3", true),
        (
            "service(\"web\").running >= service(\"web\").replicas",
            false,
        ),
        (
            "service(\"gone\").running == 0 && !service(\"gone\").stopped",
            true,
        ),
        ("services[\"web\"].rollout == \"updating\"", true),
        ("services.web.ready + 1 == 3", true),
        ("tasks.exists(t, t.state == \"lost\")", true),
        ("tasks.all(t, t.node != null)", false),
        ("size(tasks.filter(t, t.ready)) == 1", true),
        ("tasks.map(t, t.id) == [\"task-1\", \"task-2\"]", true),
        ("size(services) == 2 && \"web\" in services", true),
        ("node(\"agent-1\").status == \"ready\"", true),
        ("node(\"agent-9\").status == null", true),
        ("nodes.all(n, nodes[n].status == \"ready\")", true),
        (
            "lease(\"leader\").holder != \"\" && lease(\"leader\").token > 2",
            true,
        ),
        ("lease(\"other\").holder == \"\"", true),
        ("task.state == \"failed\" && task.exit_code != 7", true),
        ("task.reason in [\"node_down\", \"oom_killed\"]", true),
        ("event.to == \"failed\" && event.exit_code == null", true),
        ("node.status == \"down\"", false),
    ] {
        let expression = Expression::compile_never(source).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(expression.evaluate(&facts()), Ok(truth), "{source}");
    }
}

#[test]
fn a_comparison_with_an_absent_value_is_not_true() {
    for source in [
        "task.exit_code > 0",
        "!(task.exit_code > 0)",
        "task.slot < 3",
    ] {
        let expression = Expression::compile_never(source).expect("it compiles");
        assert_eq!(expression.evaluate(&facts()), Ok(false), "{source}");
    }
    let either = Expression::compile_never("task.exit_code > 0 || task.state == \"failed\"");
    assert_eq!(either.expect("it compiles").evaluate(&facts()), Ok(true));
}

#[test]
fn nothing_is_known_of_an_empty_world() {
    let expression = Expression::compile_never("task.state == \"failed\" || size(tasks) > 0");
    assert_eq!(
        expression.expect("it compiles").evaluate(&Value::Null),
        Ok(false)
    );
}

#[test]
fn events_are_matched_by_their_fields() {
    let fields = |to: &str, code: Value| -> Map<String, Value> {
        json!({ "to": to, "exit_code": code, "attempt": 2 })
            .as_object()
            .expect("a map")
            .clone()
    };
    let source = "to == \"complete\" && exit_code == 0 && attempt > 1 && reason == null";
    let expression = Expression::compile_event("task.state", source).expect("it compiles");
    assert_eq!(expression.matches(&fields("complete", json!(0))), Ok(true));
    assert_eq!(expression.matches(&fields("complete", json!(1))), Ok(false));
    assert_eq!(
        expression.matches(&fields("failed", Value::Null)),
        Ok(false)
    );
}

#[test]
fn an_expression_says_what_it_speaks_of() {
    let expression = Expression::compile_never("task.state == \"lost\" && size(tasks) > 0");
    let expression = expression.expect("it compiles");
    assert!(expression.mentions("task") && expression.mentions("tasks"));
    assert!(!expression.mentions("event"));
}

#[test]
fn division_by_zero_is_an_error_and_no_panic() {
    let expression = Expression::compile_eventually("1 / service(\"gone\").replicas == 1");
    assert!(expression.expect("it compiles").evaluate(&facts()).is_err());
}

#[test]
fn errors_have_places() {
    let error = Expression::compile_eventually("service(\"web\").runing == 4").expect_err("a typo");
    assert_eq!(error.place, Some((15, 6)));
    assert!(
        error
            .help
            .as_deref()
            .is_some_and(|help| help.contains("`running`")),
        "{error:?}"
    );
    let error = Expression::compile_event("task.state", "to = 1").expect_err("no operator");
    assert_eq!(error.place, Some((3, 1)));
    assert!(Expression::compile_event("task.sate", "true").is_err());
}

#[test]
fn monsters_are_refused() {
    for source in [
        "(".repeat(1_900),
        "!".repeat(1_900),
        "a.".repeat(900),
        "1+".repeat(3_000),
    ] {
        assert!(Expression::compile_never(&source).is_err());
    }
}
