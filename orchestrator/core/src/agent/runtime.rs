//! What the node's runtime says, brought to whom it concerns: answers, events, listings.
//!
//! A listing is compared here with what there should be; nothing is done because of it alone.

use wavetank_model::InstanceId;
use wavetank_port::{ContainerState, RuntimeError, RuntimeEvent, RuntimeReply};

use super::Agent;
use super::answers::Sighting;
use super::calls::Caller;
use super::drive::Tools;
use super::image::Pulled;
use crate::process::{CallId, Context, LockReply};

impl Agent {
    pub(super) fn handle_runtime_reply(
        &mut self,
        ctx: &mut Context<'_>,
        call: CallId,
        result: Result<RuntimeReply, RuntimeError>,
    ) {
        match self.calls.close(call) {
            Some(Caller::Task(id)) => {
                self.with_task(id, |task, tools| task.handle_reply(ctx, tools, result));
            }
            Some(Caller::Image(image)) => {
                if let Some(pulled) = self.images.handle_reply(&image, result) {
                    self.handle_pulled(ctx, pulled);
                }
            }
            Some(Caller::Listing) => {
                if let Some(containers) = self.observer.handle_listed(ctx, result) {
                    self.compare(ctx, &containers);
                }
            }
            Some(Caller::Orphan(id)) => {
                let config = (self.config.id, &self.config.timers);
                let freed = self
                    .orphans
                    .handle_reply(ctx, &mut self.calls, config, &id, &result);
                self.touched.extend(freed);
            }
            // Given up before, or no runtime call: the answer says nothing.
            Some(Caller::Lock(_)) | None => {}
        }
    }

    pub(super) fn handle_pulled(&mut self, ctx: &mut Context<'_>, pulled: Pulled) {
        for id in pulled.tasks {
            let error = pulled.error.as_ref();
            self.with_task(id, |task, tools| task.handle_pulled(ctx, tools, error));
        }
        if let Some(error) = pulled.error {
            self.images
                .postpone(ctx, &self.config.timers, &pulled.image, error.class);
        }
    }

    /// Compares a listing with what there should be. Everything that does not fit is looked at
    /// again; nothing is done because of a listing alone.
    fn compare(&mut self, ctx: &mut Context<'_>, containers: &[ContainerState]) {
        let round = self.observer.round;
        for container in containers {
            let instance = InstanceId::of_container(&container.id);
            let sighting = instance.and_then(|instance| self.sight(instance, container, round));
            match sighting {
                Some(Sighting::Expected | Sighting::Doubtful) => {}
                Some(Sighting::Orphan) => self.orphans.note(ctx, &container.id),
                // Without assignments nobody knows what this node should have.
                None if self.fence.seen.is_none() => {}
                None => self.orphans.note(ctx, &container.id),
            }
        }
        for (id, task) in &mut self.tasks {
            if task.sighted_in != round && task.handle_unlisted() {
                self.touched.insert(*id);
            }
        }
        if self.fence.seen.is_some() && !self.observer.has_compared {
            self.observer.has_compared = true;
            self.touched.extend(self.tasks.keys().copied());
        }
        let timers = &self.config.timers;
        self.touched
            .extend(self.orphans.handle_timer(ctx, &mut self.calls, timers));
    }

    fn sight(
        &mut self,
        instance: InstanceId,
        container: &ContainerState,
        round: u64,
    ) -> Option<Sighting> {
        let task = self.tasks.get_mut(&instance.task)?;
        let mut tools = Tools {
            node: self.config.id,
            timers: &self.config.timers,
            calls: &mut self.calls,
            images: &mut self.images,
        };
        let sighting = task.handle_listed(&mut tools, round, instance, container.status);
        if sighting == Sighting::Doubtful {
            self.touched.insert(instance.task);
        }
        Some(sighting)
    }

    pub(super) fn handle_runtime_event(&mut self, ctx: &mut Context<'_>, event: &RuntimeEvent) {
        match event.container().and_then(InstanceId::of_container) {
            Some(instance) => {
                self.with_task(instance.task, |task, tools| {
                    task.handle_event(tools, instance, event);
                });
            }
            None if *event == RuntimeEvent::Interrupted => {
                self.observer.hurry(ctx.now());
            }
            // A container that is none of ours.
            None => {}
        }
    }

    pub(super) fn handle_lock_reply(
        &mut self,
        ctx: &mut Context<'_>,
        call: CallId,
        reply: &LockReply,
    ) {
        if let Some(Caller::Lock(task)) = self.calls.close(call) {
            self.elections.handle_lock(ctx, task, reply);
        }
    }
}
