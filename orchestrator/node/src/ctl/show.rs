//! Answers as tables.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};

use crate::api::views::{Change, Nodes, Service, Services, Task};

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head);
    table
}

/// One line for each service.
pub(super) fn services(services: &Services) -> String {
    let mut table = table(["SERVICE", "IMAGE", "READY", "GENERATION", "STATE"]);
    for service in &services.services {
        table.add_row([
            service.spec.name.clone(),
            service.spec.image.clone(),
            readiness(service),
            service.generation.to_string(),
            state(service),
        ]);
    }
    table.trim_fmt()
}

/// How many tasks work, of how many.
fn readiness(service: &Service) -> String {
    let ready = service.tasks.iter().filter(|task| task.ready).count();
    match (service.spec.replicas, service.spec.completions) {
        (Some(replicas), _) => format!("{ready}/{replicas}"),
        (None, Some(completions)) => {
            let newest = newest_states(service);
            let complete = newest.values().filter(|state| **state == "complete");
            format!("{}/{completions} complete", complete.count())
        }
        (None, None) => format!("{ready} global"),
    }
}

fn state(service: &Service) -> String {
    match service {
        Service { deleting: true, .. } => "deleting".to_owned(),
        Service { stopped: true, .. } => "stopped".to_owned(),
        service => match service.spec.completions {
            Some(completions) => job_state(service, completions).to_owned(),
            None => service.rollout.clone(),
        },
    }
}

/// The state of each slot's newest task. Tasks are in id order.
fn newest_states(service: &Service) -> BTreeMap<u32, &str> {
    let tasks = service.tasks.iter();
    tasks.map(|task| (task.slot, &*task.state)).collect()
}

/// Whether a job is done, and if not, whether it gets anywhere.
fn job_state(service: &Service, completions: u32) -> &'static str {
    let newest = newest_states(service);
    let count = |states: &[&str]| newest.values().filter(|it| states.contains(it)).count();
    match count(&["complete"]) {
        complete if complete >= completions as usize => "complete",
        _ if count(&["failed", "rejected", "backoff"]) > 0 => "failing",
        _ => "running",
    }
}

/// One line for each task of each service.
pub(super) fn tasks(services: &Services) -> String {
    let mut table = table(TASK_HEAD);
    for service in &services.services {
        for task in &service.tasks {
            table.add_row(task_row(&service.spec.name, task));
        }
    }
    table.trim_fmt()
}

const TASK_HEAD: [&str; 8] = [
    "TASK", "SERVICE", "SLOT", "NODE", "DESIRED", "STATE", "READY", "WHY",
];

fn task_row(service: &str, task: &Task) -> [String; 8] {
    let reason = task.reason.clone().unwrap_or_default();
    let why = match (reason.is_empty(), task.message.is_empty()) {
        (false, false) => format!("{reason}: {}", task.message),
        _ => reason + &task.message,
    };
    [
        format!("{}.{}", task.task, task.attempt),
        service.to_owned(),
        task.slot.to_string(),
        task.node.clone().unwrap_or_else(|| "-".to_owned()),
        task.desired.clone(),
        task.state.clone(),
        if task.ready { "yes" } else { "no" }.to_owned(),
        why,
    ]
}

/// A service and its tasks.
pub(super) fn service(service: &Service) -> String {
    let list = Services {
        services: vec![service.clone()],
    };
    format!("{}\n\n{}", services(&list), tasks(&list))
}

/// One line for each node.
pub(super) fn nodes(nodes: &Nodes) -> String {
    let mut table = table([
        "NODE",
        "STATUS",
        "AVAILABILITY",
        "TASKS",
        "CPUS",
        "MEMORY",
        "LABELS",
    ]);
    for manager in &nodes.managers {
        let status = match manager {
            it if nodes.leader.as_ref() == Some(it) => "leader",
            it if nodes.joining.contains(it) => "joining",
            _ => "member",
        };
        table.add_row([manager, status, "", "", "", "", ""]);
    }
    for agent in &nodes.agents {
        let mode = serde_json::to_value(agent.availability);
        let mode = mode.ok().and_then(|mode| mode.as_str().map(str::to_owned));
        let labels = agent.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let share = |used: u32, all: u32| {
            format!("{}/{}", f64::from(used) / 1000.0, f64::from(all) / 1000.0)
        };
        let size = |bytes: u64| bytesize::ByteSize(bytes).to_string();
        table.add_row([
            agent.node.clone(),
            agent.status.clone(),
            mode.unwrap_or_default(),
            agent.tasks.to_string(),
            share(agent.cpus_used.0, agent.cpus.0),
            format!("{}/{}", size(agent.memory_used.0), size(agent.memory.0)),
            labels.join(","),
        ]);
    }
    table.trim_fmt()
}

/// A line of `watch`.
pub(super) fn change(line: &str) -> String {
    match serde_json::from_str::<Change>(line) {
        Ok(Change::Service {
            name,
            service: Some(service),
        }) => format!(
            "service {name}: {} ready, {}",
            readiness(&service),
            state(&service)
        ),
        Ok(Change::Service {
            name,
            service: None,
        }) => format!("service {name}: gone"),
        Ok(Change::Agent { agent }) => {
            format!("{}: {}, {} tasks", agent.node, agent.status, agent.tasks)
        }
        Ok(Change::Managers { managers, leader }) => {
            let led = leader.map(|leader| format!("; {leader} leads"));
            format!(
                "managers: {}{}",
                managers.join(", "),
                led.unwrap_or_default()
            )
        }
        // A newer manager knows more kinds.
        Err(_) => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A job of two, with tasks of these slots in these states.
    fn job(tasks: &[(u32, &str)]) -> Service {
        let tasks = tasks.iter().map(|(slot, state)| {
            json!({
                "task": "task-1", "slot": slot, "generation": 1, "node": null,
                "desired": "running", "state": state, "ready": false, "attempt": 1,
                "reason": null, "message": "", "exit_code": null,
            })
        });
        let service = json!({
            "spec": { "name": "job", "image": "i", "completions": 2 }, "generation": 1,
            "rollout": "completed", "stopped": false, "deleting": false,
            "tasks": tasks.collect::<Vec<_>>(),
        });
        serde_json::from_value(service).expect("a service")
    }

    fn state_of_job(tasks: &[(u32, &str)]) -> String {
        state(&job(tasks))
    }

    #[test]
    fn what_an_update_runs_again_is_not_complete() {
        let updated = job(&[(1, "complete"), (2, "complete"), (1, "pulling")]);
        assert_eq!(readiness(&updated), "1/2 complete");
    }

    #[test]
    fn a_job_is_done_when_all_of_it_is_and_failing_while_a_slot_has_failed_last() {
        assert_eq!(state_of_job(&[]), "running");
        assert_eq!(state_of_job(&[(1, "complete"), (2, "running")]), "running");
        assert_eq!(state_of_job(&[(1, "complete"), (2, "failed")]), "failing");
        assert_eq!(
            state_of_job(&[(1, "failed"), (2, "running"), (1, "running")]),
            "running"
        );
        assert_eq!(
            state_of_job(&[(1, "complete"), (2, "failed"), (2, "complete")]),
            "complete"
        );
    }
}
