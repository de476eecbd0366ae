//! Create, start, stop, kill, pause, delete, list.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use wavetank_port::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ErrorClass, ExitStatus, Limits,
    ListFilter, Network, Signal,
};

use crate::error::{Error, Result};
use crate::names;
use crate::observed::Observed;
use crate::service::{Service, word};
use crate::transport::Call;
use crate::wire;

/// How often we look at what nobody can wait for: a container that is yet to be started, or one
/// that cannot be removed yet.
pub(crate) const OUR_POLL: Duration = Duration::from_millis(100);

/// How often a removal is repeated at which Podman stumbles.
const DELETES_MAX: u32 = 100;

/// How long a process may take to go, and its monitor to say so, before its container is removed
/// all the same.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The kernel's default for the period of a CPU limit, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// What a thousandth of a core is of that period.
const CPU_MICROS_PER_MILLI: i64 = 100;

/// The kernel refuses less (min_cfs_quota_period in kernel/sched/core.c).
const CPU_QUOTA_MICROS_MIN: i64 = 1000;

impl Service {
    pub(crate) async fn create(&self, spec: &ContainerSpec) -> Result<()> {
        let body = self.create_body(spec)?;
        // A name that another create of this id has just taken would look like one left behind.
        let _turn = self.turn(&spec.id).await;
        match self.send_create(&body).await {
            Err(error) if error.class() == ErrorClass::AlreadyExists => {
                // A service that died half-way through a create leaves a name in its storage that
                // belongs to no container. A forced delete by name removes that.
                match self.observe(&spec.id).await {
                    Ok(_) => return Err(error),
                    Err(unseen) if unseen.is_not_found() => {}
                    // Nobody knows yet whether there is such a container.
                    Err(unseen) => return Err(unseen),
                }
                self.send_delete(&spec.id, true).await?;
                self.send_create(&body).await
            }
            created => created,
        }
    }

    async fn send_create(&self, body: &wire::Create) -> Result<()> {
        // One that fails takes back what it has made; what a panic leaves is as after a death.
        let call = Call::post("/containers/create").json(body)?.repeatable();
        let made: wire::Made = self.client.send(call).await?.json().await?;
        match made.id.is_empty() {
            false => Ok(()),
            true => Err(Error::Malformed {
                call: format!("create {}", body.name),
                problem: "the answer names no container".to_owned(),
            }),
        }
    }

    fn create_body(&self, spec: &ContainerSpec) -> Result<wire::Create> {
        let image = crate::images::full_name(&spec.image)?;
        if let Some(signal) = spec.stop_signal {
            check_signal(signal)?;
        }
        let volume = |name: &String| {
            Ok(wire::Volume {
                name: names::volume_name(&self.namespace, name)?,
                dest: format!("/volumes/{name}"),
            })
        };
        Ok(wire::Create {
            name: names::container_name(&self.namespace, &spec.id)?,
            image: image.to_string(),
            command: spec.command.clone(),
            env: spec.environment.clone(),
            labels: names::labels_with_namespace(&self.namespace, &spec.labels)?,
            netns: wire::Mode {
                nsmode: match spec.network {
                    Network::None => "none",
                    Network::Host => "host",
                },
            },
            // The only driver that keeps bytes exactly and can be read back on every machine.
            log_configuration: wire::LogDriver { driver: "k8s-file" },
            // Podman's own checks need systemd's timers; ours are execs.
            healthconfig: wire::HealthCheck { test: ["NONE"] },
            stop_signal: spec.stop_signal.map(Signal::number),
            resource_limits: resources(spec.memory_bytes_max, spec.cpu_millis_max)?,
            volumes: spec.volumes.iter().map(volume).collect::<Result<_>>()?,
        })
    }

    pub(crate) async fn start(&self, id: &ContainerId) -> Result<ContainerState> {
        let turn = self.turn(id).await;
        let before = self.observe(id).await?.state.status;
        if before != ContainerStatus::Created {
            return Err(refuse(id, "start", before));
        }
        let call = Call::post(self.container_path(id, "/start")?);
        match self.client.send(call).await {
            Ok(reply) => reply.done().await?,
            // Somebody else was faster.
            Err(Error::Refused { status: 304, .. }) => {
                return Err(refuse(id, "start", ContainerStatus::Running));
            }
            Err(error) => return Err(error),
        }
        drop(turn);
        Ok(self.observe(id).await?.state)
    }

    pub(crate) async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<Option<ExitStatus>> {
        let seen = self.observe(id).await?;
        match seen.state.status {
            ContainerStatus::Created => return Ok(None),
            ContainerStatus::Exited => return Ok(seen.state.exit),
            ContainerStatus::Running | ContainerStatus::Paused => {}
        }
        // Podman's own stop goes on to its SIGKILL when the caller is gone, so the grace is ours.
        if !grace.is_zero() {
            self.signal_unless_gone(id, seen.stop_signal).await?;
            if let Ok(exit) = timeout(grace, self.wait(id)).await {
                return exit.map(Some);
            }
        }
        self.signal_unless_gone(id, Signal::Kill.number()).await?;
        self.hint_of_end(&seen).await;
        self.wait(id).await.map(Some)
    }

    async fn signal_unless_gone(&self, id: &ContainerId, signal: i32) -> Result<()> {
        match self.send_signal(id, signal).await {
            // The signal came too late, which is as good as in time.
            Err(error) if error.came_too_late() => Ok(()),
            Err(_) if self.has_exited(id).await? => Ok(()),
            sent => sent,
        }
    }

    async fn send_signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let call =
            Call::post(self.container_path(id, "/kill")?).query("signal", &signal.to_string());
        match self.client.send(call).await {
            Ok(reply) => reply.done().await,
            // How the process ended is unknown for ever then: Podman has noted that.
            Err(error) if error.was_sent() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn has_exited(&self, id: &ContainerId) -> Result<bool> {
        Ok(self.observe(id).await?.state.status == ContainerStatus::Exited)
    }

    pub(crate) async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        check_signal(signal)?;
        let Err(error) = self.send_signal(id, signal.number()).await else {
            return Ok(());
        };
        let has_ended = || {
            let message = format!("the process of container {id} has ended");
            Err(Error::ours(ErrorClass::NotFound, message))
        };
        if error.is_not_found() {
            return Err(error);
        }
        if error.came_too_late() {
            return has_ended();
        }
        // Podman has one answer for all states in which there is no process to signal, and runc's
        // own words where Podman had not noticed yet.
        match self.observe(id).await?.state.status {
            ContainerStatus::Exited => has_ended(),
            ContainerStatus::Created => Err(refuse(id, "kill", ContainerStatus::Created)),
            ContainerStatus::Running | ContainerStatus::Paused => Err(error),
        }
    }

    /// `verb` is `pause` or `unpause`.
    pub(crate) async fn freeze(&self, id: &ContainerId, verb: &str) -> Result<()> {
        // Asked first, because Podman pauses what it wrongly thinks is running.
        self.observe_running(id).await?;
        let call = Call::post(self.container_path(id, &format!("/{verb}"))?);
        self.client.send(call).await?.done().await
    }

    pub(crate) async fn delete(&self, id: &ContainerId, force: bool) -> Result<()> {
        let seen = match self.observe(id).await {
            Err(error) if error.is_not_found() => {
                // A delete that was not answered may have taken effect.
                self.end_half_deleted(id).await;
                return Err(error);
            }
            seen => seen?,
        };
        let runs = matches!(
            seen.state.status,
            ContainerStatus::Running | ContainerStatus::Paused
        );
        if runs && !force {
            return Err(refuse(id, "delete", seen.state.status));
        }
        match seen.state.status {
            ContainerStatus::Created => self.unmount_left_behind(&seen).await,
            ContainerStatus::Running => self.end(id, &seen).await,
            ContainerStatus::Paused | ContainerStatus::Exited => {}
        }
        if !seen.has_ended_properly() {
            self.note_half_deleted(id, &seen.podman_id);
        }
        for round in 0.. {
            let error = match self.send_delete(id, force || seen.is_stuck).await {
                Ok(()) => break,
                // An earlier round has removed it, and complained.
                Err(error) if error.is_not_found() && round > 0 => break,
                Err(error) if error.is_not_found() => return Err(error),
                Err(error) => error,
            };
            match self.observe(id).await {
                // What goes wrong with one part of a container does not keep Podman from removing
                // the others, and the container.
                Err(unseen) if unseen.is_not_found() => break,
                // Podman signals what it thinks is running and fails on a process that has ended
                // and was not waited for by its parent yet: its monitor, or the machine's first
                // process, which takes a second or two.
                _ if error.is_passing() && round < DELETES_MAX => sleep(OUR_POLL).await,
                _ => return Err(error),
            }
        }
        self.end_half_deleted(id).await;
        Ok(())
    }

    /// Ends what is to be removed. Podman's removal would do that as well, but it loses how the
    /// process ended, and takes the container apart under a process that is slow to go if it is
    /// asked a second time meanwhile. Best effort: what is still there is left to the removal.
    async fn end(&self, id: &ContainerId, seen: &Observed) {
        let end = async {
            self.signal_unless_gone(id, Signal::Kill.number()).await?;
            self.hint_of_end(seen).await;
            self.wait(id).await
        };
        let _ = timeout(END_WITHIN, end).await;
    }

    async fn send_delete(&self, id: &ContainerId, force: bool) -> Result<()> {
        let call = Call::delete(self.container_path(id, "")?)
            .query("force", if force { "true" } else { "false" })
            // Anonymous volumes were made by the create; named ones belong to the node.
            .query("volumes", "true")
            .query("timeout", "0");
        let removed: Vec<wire::Removed> = self.client.send(call).await?.json().await?;
        match removed.into_iter().find_map(|it| it.err) {
            None => Ok(()),
            Some(error) => Err(Error::Refused {
                call: format!("delete {id}"),
                status: 500,
                cause: String::new(),
                message: error.to_string(),
            }),
        }
    }

    pub(crate) async fn update(&self, id: &ContainerId, limits: &Limits) -> Result<()> {
        self.observe_running(id).await?;
        let body = resources(limits.memory_bytes_max, limits.cpu_millis_max)?;
        let call = Call::post(self.container_path(id, "/update")?)
            .json(&body)?
            .repeatable();
        self.client.send(call).await?.done().await
    }

    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerState>> {
        let mut found = Vec::new();
        for row in self.rows(filter).await? {
            let name = row.names.first().map(String::as_str).unwrap_or_default();
            let Some(id) = names::id_in(&self.namespace, name) else {
                continue;
            };
            let prefix = filter.id_prefix.as_deref().unwrap_or_default();
            if !id.0.starts_with(prefix) {
                continue;
            }
            match self.complete(&id, &row).await {
                Ok(state) => found.push(state),
                // Gone since the listing.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        found.retain(|it| filter.status.is_none_or(|wanted| it.status == wanted));
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// The service's own listing.
    pub(crate) async fn rows(&self, filter: &ListFilter) -> Result<Vec<wire::Row>> {
        let labels = names::labels_with_namespace(&self.namespace, &filter.labels)?;
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let filters = serde_json::json!({ "label": labels }).to_string();
        let call = Call::get("/containers/json")
            .query("all", "true")
            .query("filters", &filters);
        self.client.listing(call).await
    }

    /// A row has times in whole seconds only, so what is not known yet is inspected.
    async fn complete(&self, id: &ContainerId, row: &wire::Row) -> Result<ContainerState> {
        if let Some(known) = self.memory.recall(&row.id)
            && known.state.id == *id
            && self.still_holds(&known, row).await
        {
            return Ok(known.state);
        }
        Ok(self.observe(id).await?.state)
    }

    async fn still_holds(&self, known: &Observed, row: &wire::Row) -> bool {
        match known.state.status {
            ContainerStatus::Created => false,
            ContainerStatus::Exited => true,
            ContainerStatus::Running => {
                let same = row.state == "running" && wire::pid(row.pid) == known.state.pid;
                same && !self.is_lost(known).await
            }
            ContainerStatus::Paused => false,
        }
    }
}

fn refuse(id: &ContainerId, verb: &str, status: ContainerStatus) -> Error {
    let message = format!("cannot {verb} container {id}: it is {}", word(status));
    Error::ours(ErrorClass::FailedPrecondition, message)
}

fn check_signal(signal: Signal) -> Result<()> {
    match signal.is_valid() {
        true => Ok(()),
        false => Err(Error::ours(
            ErrorClass::InvalidArgument,
            format!("{} is no signal: there are 1 to 64", signal.number()),
        )),
    }
}

/// Limits as the OCI runtime specification writes them.
fn resources(
    memory_bytes_max: Option<u64>,
    cpu_millis_max: Option<u32>,
) -> Result<wire::Resources> {
    let memory = memory_bytes_max.map(|bytes| {
        let too_large = |_| {
            let message = format!("a memory limit of {bytes} bytes is more than there can be");
            Error::ours(ErrorClass::InvalidArgument, message)
        };
        // Swap would turn a hard limit into a soft one. Podman leaves the field out where the
        // kernel does not count swap.
        let limit = i64::try_from(bytes).map_err(too_large)?;
        Ok(wire::Memory { limit, swap: limit })
    });
    let cpu = cpu_millis_max.map(|millis| wire::Cpu {
        quota: (i64::from(millis) * CPU_MICROS_PER_MILLI).max(CPU_QUOTA_MICROS_MIN),
        period: CPU_PERIOD_MICROS,
    });
    Ok(wire::Resources {
        memory: memory.transpose()?,
        cpu,
    })
}
