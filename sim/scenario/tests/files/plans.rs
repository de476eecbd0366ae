//! From files to plans: what the fields mean, what the seed decides, what is only warned of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{NodeId, Operation, RestartCondition, ServiceMode};
use wavetank_scenario::faults::CATALOGUE;
use wavetank_scenario::plan::{Action, Fault, Plan, Shape, Target, Trigger};
use wavetank_scenario::{Override, Scenario, load_with};

use crate::support::{parse, parse_with, render, with};

fn scenario(rest: &str) -> Scenario {
    loaded(parse(&with(rest)))
}

fn loaded(result: Result<Scenario, wavetank_scenario::LoadError>) -> Scenario {
    result.unwrap_or_else(|error| panic!("{}", render(&error.diagnostics)))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_plan_has_every_default_made_explicit() {
    let text = "scenario: 1\nname: least\n";
    insta::assert_json_snapshot!(loaded(parse(text)).plan(1));
}

#[test]
fn a_rich_file() {
    let scenario = loaded(parse(RICH));
    assert_eq!(render(&scenario.lints()), "");
    insta::assert_snapshot!(scenario.explain(3));
    insta::assert_json_snapshot!(scenario.plan(3).workload);
}

/// Every field of the format.
pub const RICH: &str = r#"
scenario: 1
name: rich
description: Everything that the format offers.
issue: none
tags: [everything]
profile: warren
seeds: [7, 0x1a2b]
horizon: 5m
settle: 2m
cluster:
  managers: 5
  agents:
    - { count: 3, cpus: 4, memory: 8GiB, labels: { zone: [a, b], disk: ssd } }
    - { count: 1, cpus: 500m, memory: 512MiB }
  timers: { heartbeat: 3s, pull_backoff: { cap: 20s }, pull_attempts_max: 4 }
  network: { latency: 1ms..3ms }
  disk: { fsync: 1ms }
  runtime: { latency: 10ms, event_delay: 0s..1s }
  restart_delay: 2s
  shared_volumes: locks
clients: { count: 2, at: 5s, until: 4m, pause: 50ms, keys: 3, reads: 30 }
images:
  web: { run: forever, stop: { on_term: exits, after: 50ms, code: 0 }, health: { after: 3s } }
  stubborn: { run_for: forever, stop: { on_term: ignores }, health: never, memory: 1GiB }
  job: { run_for: 0ms..20ms, exit_code: 7, pull: { size: 4MiB, exists: false } }
workload:
  - { at: 40s, deploy: web, image: stubborn, stop_grace: 3s }
  - at: 1s
    deploy: web
    image: web
    replicas: 3
    command: [serve, --port, 80]
    environment: { MODE: test }
    constraints: { disk: ssd }
    spread: zone
    ports: [80, 8080]
    volume: data
    resources: { cpus: 0.5, memory: 64MiB }
    restart: { condition: on-failure, max: 3, backoff: { base: 2s, cap: 9s }, stable_after: 30s }
    health: { interval: 5s, failures: 2 }
    update: { surge: 0, unavailable: 1, monitor: 1s, failures: 0, on_failure: pause }
    election: { backend: lock-file, ttl: 9s, renew: 3s }
  - { at: 2s, deploy: batch, image: job, completions: 20 }
  - { at: 3s, deploy: everywhere, image: web, global: true, health: true, restart: never }
  - { at: 20s, scale: web, replicas: 2 }
  - { at: 50s, rollback: web }
  - { at: 60s, drain: agent-1 }
  - { at: 70s, activate: agent-1 }
  - { at: 80s, pause-node: agent-2 }
  - { at: 90s, stop: web }
  - { at: 100s, start: web }
  - { at: 110s, put: color, value: blue }
  - { at: 120s, get: color }
  - { at: 130s, delete: web }
faults:
  - { name: kill, action: process-kill, target: { role: leader }, on: { event: task.state,
      where: 'to == "running"', occurrence: 3, point: before }, for: 5s }
  - { name: lose, action: runtime-event-drop, args: { event: exit, count: 1 },
      target: { role: agent, mode: random, value: 2 }, after: kill, delay: 2s }
  - { name: ring, action: partition, args: { shape: majorities-ring }, target: { role: manager },
      every: 60s, jitter: 10s, for: 8s..12s }
  - { name: follow, action: link-loss, args: { percent: 30 }, target: { role: link,
      mode: minority }, after: ring }
  - { name: registry, action: registry-error, args: { error: rate-limited, count: 2 },
      target: { image: job }, at: 10s..20s }
  - { name: jump, action: clock-jump, args: { by: -20s }, target: { node: [agent-1, manager-2] },
      at: 30s, heal: never }
  - { name: oom, action: task-oom, target: { service: web, mode: fixed, value: 2 }, at: 35s,
      optional: true }
  - { name: daemon, action: daemon-restart, target: { role: task-node, service: batch }, at: 36s,
      for: 3s }
  - { name: zone, action: power-loss, args: { torn: true }, target: { labels: { zone: a } },
      at: 37s, for: 9s }
  - { name: followers, action: pause, target: { role: follower, mode: minority }, at: 38s, for: 4s }
  - { name: half, action: partition, args: { groups: [[manager-1, agent-1], manager-2],
      direction: from }, at: 39s, for: 4s }
  - { name: drain, action: operator, args: { scale: batch, replicas: 30 },
      on: { event: store.node, where: 'status == "down"', delay: 5s } }
expect:
  invariants:
    except:
      - { name: availability, reason: the image is never healthy }
      - { name: I24, reason: no need }
  eventually:
    - { check: 'service("batch").terminal == 20 && nodes.all(n, nodes[n].status == "ready")' }
  never:
    - 'task.state == "failed" && task.exit_code != 7'
  fails: [truthful-exits, never]
worlds: event
"#;

#[test]
fn an_update_changes_what_it_names() {
    let plan = scenario(
        "  - { at: 9s, scale: web, replicas: 5 }\n  - { at: 10s, deploy: web, stop_grace: 1s }\n",
    )
    .plan(1);
    let Operation::Deploy { spec } = &plan.workload[2].operation else {
        panic!("{plan:?}")
    };
    assert_eq!(spec.image.0, "web");
    assert_eq!(
        spec.mode,
        ServiceMode::Replicated { replicas: 5 },
        "as it was scaled"
    );
    assert_eq!(spec.stop_grace, seconds(1));
}

#[test]
fn a_deleted_service_starts_anew() {
    let plan = scenario(
        "  - { at: 9s, delete: web }\n  - { at: 10s, deploy: web, image: web, restart: never }\n",
    )
    .plan(1);
    let Operation::Deploy { spec } = &plan.workload[2].operation else {
        panic!("{plan:?}")
    };
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
    assert_eq!(spec.restart.condition, RestartCondition::Never);
}

#[test]
fn steps_are_in_time_order() {
    let plan = loaded(parse(RICH)).plan(1);
    assert!(plan.workload.is_sorted_by_key(|step| step.at));
}

#[test]
fn labels_are_dealt_round_robin() {
    let plan = scenario("").plan(1);
    let zones: Vec<&str> = plan
        .cluster
        .agents
        .iter()
        .map(|a| a.labels["zone"].as_str())
        .collect();
    assert_eq!(zones, ["a", "b", "a", "b"]);
}

#[test]
fn included_values_yield_to_own_ones() {
    let text = "scenario: 1\nname: a\ninclude: [one.yaml, dir/two.yaml]\ncluster: { timers: { \
        heartbeat: 1s } }\n";
    let files = [
        (
            "one.yaml",
            "profile: warren\ncluster: { managers: 1, timers: { heartbeat: 2s, reconcile: 3s } }\n",
        ),
        (
            "dir/two.yaml",
            "include: ../three.yaml\ncluster: { managers: 5 }\n",
        ),
        (
            "three.yaml",
            "cluster: { managers: 7, agents: 9, restart_delay: 4s }\nimages: { web: {} }\n",
        ),
    ];
    let plan = loaded(parse_with(text, &files)).plan(1);
    assert_eq!(plan.profile, "warren");
    assert_eq!(plan.cluster.managers, 5, "the later file wins");
    assert_eq!(plan.cluster.agents.len(), 9);
    assert_eq!(
        plan.cluster.timers.heartbeat,
        seconds(1),
        "the file itself wins"
    );
    assert_eq!(plan.cluster.timers.reconcile, seconds(3));
    assert!(plan.images.contains_key("web"));
}

#[test]
fn aliases_and_merge_keys_work() {
    let text = with("").replace(
        "workload:",
        "workload:\n  - &base { at: 5s, deploy: api, image: web, replicas: 2 }\n  - { <<: \
            *base, deploy: other }",
    );
    let plan = loaded(parse(&text)).plan(1);
    let deployed: Vec<String> = plan
        .workload
        .iter()
        .map(|step| match &step.operation {
            Operation::Deploy { spec } => spec.name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deployed, ["web", "api", "other"]);
}

#[test]
fn values_can_be_replaced_from_outside() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../scenarios/node-loss.yaml"
    );
    let set = |path: &str, value: &str| Override {
        path: path.to_owned(),
        value: value.to_owned(),
    };
    let overrides = [
        set("cluster.agents.count", "7"),
        set("horizon", "4m"),
        set("faults.0.for", "5s"),
        set("cluster.timers.heartbeat", "1s"),
    ];
    let plan = loaded(load_with(file.as_ref(), &overrides)).plan(1);
    assert_eq!(plan.cluster.agents.len(), 7);
    assert_eq!(plan.horizon, seconds(240));
    assert_eq!(plan.faults[0].duration, Some(seconds(5)));
    assert_eq!(plan.cluster.timers.heartbeat, seconds(1));
    let wrong = [
        set("cluster.agents.cuont", "7"),
        set("faults.9.for", "5s"),
        set("horizon", "soon"),
    ];
    let error = load_with(file.as_ref(), &wrong).expect_err("none of these fits");
    insta::assert_snapshot!(render(&error.diagnostics));
}

#[test]
fn warnings_do_not_stop_a_file() {
    let text = with(
        "  - { at: 3m, deploy: late, image: web, constraints: { zone: c } }\n\
         faults:\n\
         \x20 - { name: late, action: disk-error, target: { role: agent }, at: 5m }\n\
         \x20 - { name: idle, action: registry-slow, args: { bytes_per_second: 1MiB }, \
         target: { image: job }, at: 1s }\n\
         expect:\n\
         \x20 eventually:\n\
         \x20   - { check: 'service(\"wbe\").running == 3', within: 5m }\n\
         \x20   - { check: 'tasks.all(t, t.state == \"runing\")' }\n\
         \x20   - { check: '1 == 2' }\n\
         worlds: [event, live]\n",
    )
    .replace(
        "images:\n",
        "images:\n  job: { run_for: 1s }\n  spare: {}\n",
    );
    let scenario = loaded(parse(&text));
    insta::assert_snapshot!(render(&scenario.lints()));
}

// What the seed decides.

const MANY: &str = "faults:
  - { name: a, action: pause, target: { role: agent, mode: one }, at: 10s..60s, for: 1s..30s }
  - { name: b, action: partition, args: { shape: random-halves }, target: { role: node },
      every: 10s, jitter: 5s, for: 1s..5s }
  - { name: c, action: task-exit, target: { service: web, mode: random, value: 3 }, after: b,
      delay: 1s }
  - { name: d, action: bit-rot, target: { role: agent, mode: one }, at: 20s..90s }
";

fn faults_named(plan: &Plan, prefix: &str) -> Vec<Fault> {
    plan.faults
        .iter()
        .filter(|fault| fault.name.starts_with(prefix))
        .cloned()
        .collect()
}

#[test]
fn seeds_differ() {
    let scenario = scenario(MANY);
    let plans: BTreeSet<String> = (0..20)
        .map(|seed| format!("{:?}", scenario.plan(seed).faults))
        .collect();
    assert_eq!(plans.len(), 20);
}

#[test]
fn removing_a_fault_leaves_the_others_as_they_were() {
    let whole = scenario(MANY).plan(42);
    let without = MANY
        .lines()
        .filter(|line| !line.contains("name: a"))
        .collect::<Vec<_>>();
    let part = scenario(&(without.join("\n") + "\n")).plan(42);
    assert!(faults_named(&part, "a").is_empty());
    assert_eq!(faults_named(&whole, "b"), faults_named(&part, "b"));
    assert_eq!(faults_named(&whole, "d"), faults_named(&part, "d"));
    let targets = |plan: &Plan| -> Vec<Target> {
        faults_named(plan, "c")
            .into_iter()
            .map(|fault| fault.target)
            .collect()
    };
    assert_eq!(targets(&whole), targets(&part));
}

#[test]
fn each_follower_follows_its_own_occurrence() {
    let plan = scenario(MANY).plan(5);
    let followers = faults_named(&plan, "c");
    assert_eq!(followers.len(), faults_named(&plan, "b").len());
    for (index, follower) in followers.iter().enumerate() {
        let Trigger::AfterFault { fault, delay } = follower.trigger else {
            panic!("{follower:?}")
        };
        let name = if index == 0 {
            "b".to_owned()
        } else {
            format!("b#{}", index + 1)
        };
        assert_eq!(
            (plan.faults[fault as usize].name.as_str(), delay),
            (name.as_str(), seconds(1))
        );
    }
}

#[test]
fn repeated_faults_stay_within_their_bounds() {
    for seed in 0..50 {
        let faults = faults_named(&scenario(MANY).plan(seed), "b");
        assert_eq!(faults.len(), 11, "every 10 s before the horizon of 2 min");
        for (index, fault) in faults.iter().enumerate() {
            let Trigger::At(at) = fault.trigger else {
                panic!("{fault:?}")
            };
            let due = seconds(10 * (index as u64 + 1));
            assert!(due <= at && at <= due + seconds(5), "{at:?}");
            let duration = fault.duration.expect("it has one");
            assert!(seconds(1) <= duration && duration <= seconds(5));
        }
    }
}

#[test]
fn halves_are_halves() {
    let plan = scenario(MANY).plan(9);
    for fault in faults_named(&plan, "b") {
        let Action::Partition {
            shape: Shape::Groups(groups),
            ..
        } = fault.action
        else {
            panic!("{fault:?}")
        };
        let mut all: Vec<NodeId> = groups.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!((groups[0].len(), groups[1].len(), all.len()), (3, 4, 7));
    }
}

#[test]
fn modes_take_as_many_as_they_say() {
    let counts = |mode: &str, role: &str| -> BTreeSet<usize> {
        let text =
            format!("faults: [{{ action: pause, target: {{ role: {role}, {mode} }}, at: 1s }}]\n");
        let scenario = scenario(&text);
        (0..60)
            .map(|seed| match &scenario.plan(seed).faults[0].target {
                Target::Nodes(nodes) => nodes.len(),
                Target::Followers { take, .. } => *take as usize,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(counts("mode: one", "agent"), [1].into());
    assert_eq!(counts("mode: all", "node"), [7].into());
    assert_eq!(counts("mode: fixed, value: 2", "agent"), [2].into());
    assert_eq!(
        counts("mode: fixed-percent, value: 50", "agent"),
        [2].into()
    );
    assert_eq!(counts("mode: random, value: 3", "agent"), [1, 2, 3].into());
    assert_eq!(counts("mode: minority", "manager"), [1].into());
    assert_eq!(counts("mode: majority", "manager"), [2].into());
    assert_eq!(counts("mode: majority", "follower"), [2].into());
}

// The swarm.

fn swarm_of_everything() -> Scenario {
    let names: Vec<&str> = CATALOGUE
        .iter()
        .filter(|i| i.swarm)
        .map(|i| i.action)
        .collect();
    scenario(&format!(
        "swarm: {{ actions: [{}], rate: 30/min, for: 1s..9s }}\n",
        names.join(", ")
    ))
}

#[test]
fn a_swarm_draws_every_action_with_a_fitting_target() {
    let scenario = swarm_of_everything();
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..200 {
        let plan = scenario.plan(seed);
        assert!(!plan.faults.is_empty() && plan.faults.len() <= 60);
        for fault in &plan.faults {
            let Trigger::At(at) = fault.trigger else {
                panic!("{fault:?}")
            };
            assert!(at < plan.horizon && fault.optional && fault.heals);
            *seen.entry(fault.action.name()).or_default() += 1;
        }
    }
    for info in CATALOGUE.iter().filter(|info| info.swarm) {
        assert!(
            seen.contains_key(info.action),
            "{} was never drawn",
            info.action
        );
    }
}

#[test]
fn a_swarm_leaves_managers_their_disks() {
    let scenario = swarm_of_everything();
    for seed in 0..200 {
        for fault in scenario.plan(seed).faults {
            if matches!(
                fault.action,
                Action::Wipe | Action::DiskLies | Action::BitRot { .. }
            ) {
                let Target::Nodes(nodes) = &fault.target else {
                    panic!("{fault:?}")
                };
                assert!(
                    nodes
                        .iter()
                        .all(|node| node.role == wavetank_model::NodeRole::Agent)
                );
            }
        }
    }
}

#[test]
fn runs_of_a_swarm_leave_some_actions_out() {
    let scenario =
        scenario("swarm: { actions: [pause, process-kill, link-loss, wipe], rate: 30/min }\n");
    let kinds = |seed| -> BTreeSet<&'static str> {
        scenario
            .plan(seed)
            .faults
            .iter()
            .map(|fault| fault.action.name())
            .collect()
    };
    let sizes: BTreeSet<usize> = (0..100).map(|seed| kinds(seed).len()).collect();
    assert!(sizes.contains(&1) && sizes.contains(&4), "{sizes:?}");
}

// The catalogue.

#[test]
fn every_action_of_the_catalogue_can_be_written() {
    for info in CATALOGUE {
        let args: Vec<String> = info
            .args
            .iter()
            .filter_map(|arg| {
                let value = match arg.name {
                    "by" if info.action == "clock-jump" => "-5s",
                    "by" => "5s",
                    "percent" => "50",
                    "bytes_per_second" => "1MiB",
                    "error" => "missing",
                    "call" => "start",
                    "ppm" => "-100",
                    "join" => "true",
                    "message" => "heartbeat",
                    "field" => "sent_at",
                    _ if arg.required => panic!("{}.{}", info.action, arg.name),
                    _ => return None,
                };
                Some(format!("{}: {value}", arg.name))
            })
            .collect();
        let args = if info.action == "operator" {
            "drain: agent-1".to_owned()
        } else {
            args.join(", ")
        };
        for role in info.targets {
            let service = if role.starts_with("task") {
                ", service: web"
            } else {
                ""
            };
            let when = if *role == "event-host" {
                "on: { event: host.started }"
            } else {
                "at: 1s"
            };
            let text = format!(
                "faults: [{{ action: {}, args: {{ {args} }}, target: {{ role: {role}{service} \
                    }}, {when} }}]\n",
                info.action
            );
            let plan = scenario(&text).plan(1);
            assert_eq!(plan.faults[0].action.name(), info.action);
        }
    }
}
