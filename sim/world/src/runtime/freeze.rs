//! Paused containers: what their process would have done happens that much later.

use wavetank_port::{ContainerId, ContainerStatus, RuntimeError};
use wavetank_trace::VirtualTime;

use super::actors::{LateFile, Writer};
use super::{Frozen, Runtime, Todo, missing, wrong_state};

impl Runtime {
    pub(super) fn freeze(
        &mut self,
        now: VirtualTime,
        id: &ContainerId,
    ) -> Result<(), RuntimeError> {
        self.running_container(id)?;
        let Some(container) = self.containers.get_mut(id) else {
            return Ok(());
        };
        container.state.status = ContainerStatus::Paused;
        let Some(process) = &mut container.process else {
            return Ok(());
        };
        let run = process.run;
        let mut todos = Vec::new();
        let timeline = std::mem::take(&mut self.timeline);
        for ((at, sequence), todo) in timeline {
            if todo.is_of_process(id, run) {
                todos.push((at.since(now), todo));
            } else {
                self.timeline.insert((at, sequence), todo);
            }
        }
        process.frozen = Some(Frozen { todos });
        Ok(())
    }

    pub(super) fn thaw(&mut self, now: VirtualTime, id: &ContainerId) -> Result<(), RuntimeError> {
        let container = self.containers.get_mut(id).ok_or_else(|| missing(id))?;
        let process = container.process.as_mut();
        let Some(frozen) = process.and_then(|process| process.frozen.take()) else {
            return Err(wrong_state(id, "is not paused"));
        };
        container.state.status = ContainerStatus::Running;
        for (after, todo) in frozen.todos {
            self.plan(now + after, todo);
        }
        Ok(())
    }

    /// Plans what a process will do; if it is paused, for when it no longer is.
    pub(super) fn plan_process(&mut self, now: VirtualTime, at: VirtualTime, todo: Todo) {
        let process = todo
            .process()
            .and_then(|id| self.containers.get_mut(id))
            .and_then(|container| container.process.as_mut());
        match process.and_then(|process| process.frozen.as_mut()) {
            Some(frozen) => frozen.todos.push((at.since(now), todo)),
            None => self.plan(at, todo),
        }
    }
}

impl Todo {
    /// The container whose process does this.
    fn process(&self) -> Option<&ContainerId> {
        match self {
            Todo::End { container, .. }
            | Todo::Step { container, .. }
            | Todo::Flood { container, .. }
            | Todo::WriteFile(LateFile { container, .. }) => Some(container),
            _ => None,
        }
    }

    fn is_of_process(&self, id: &ContainerId, process: u64) -> bool {
        match self {
            Todo::End { container, run, .. }
            | Todo::Step { container, run }
            | Todo::Flood { container, run }
            | Todo::WriteFile(LateFile {
                container,
                writer: Writer::Process(run),
                ..
            }) => container == id && *run == process,
            _ => false,
        }
    }
}
