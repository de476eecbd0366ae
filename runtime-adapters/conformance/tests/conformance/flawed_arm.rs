//! An arm whose runtime has a flaw; everything else is the simulated arm's.

use std::sync::Arc;

use async_trait::async_trait;
use wavetank_conformance::{Arm, ArmError, Images, Resources, TestImage};
use wavetank_port::{Capability, ContainerId, ContainerRuntime};
use wavetank_sim_arm::SimArm;

use crate::flawed::{Flaw, Flawed};

/// The arm.
pub struct FlawedArm {
    inner: SimArm,
    runtime: Arc<Flawed>,
    flaw: Flaw,
}

impl FlawedArm {
    pub fn new(inner: SimArm, flaw: Flaw) -> Self {
        let runtime = Arc::new(Flawed::new(inner.runtime(), flaw));
        FlawedArm {
            inner,
            runtime,
            flaw,
        }
    }
}

#[async_trait]
impl Arm for FlawedArm {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::clone(&self.runtime) as Arc<dyn ContainerRuntime>
    }

    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError> {
        match self.flaw {
            Flaw::OneNamespace => Ok(self.runtime()),
            _ => self.inner.other_namespace().await,
        }
    }

    fn images(&self) -> &dyn Images {
        self.inner.images()
    }

    async fn corrupt_local_image(&self, image: TestImage) -> Result<(), ArmError> {
        self.runtime.note_damage();
        self.inner.corrupt_local_image(image).await
    }

    async fn kill_daemon(&self) -> Result<(), ArmError> {
        if self.flaw == Flaw::SaysNotApplicable {
            return Err(ArmError::NotApplicable(Capability::Daemon));
        }
        self.inner.kill_daemon().await
    }

    async fn start_daemon(&self) -> Result<(), ArmError> {
        self.runtime.note_restart();
        self.inner.start_daemon().await
    }

    async fn reboot(&self) -> Result<(), ArmError> {
        self.inner.reboot().await
    }

    async fn kill_monitor(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.inner.kill_monitor(id).await
    }

    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError> {
        self.inner.pause_monitor(id, paused).await
    }

    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.inner.kill_process(id).await
    }

    async fn fail_next_create(&self) -> Result<(), ArmError> {
        self.inner.fail_next_create().await
    }

    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.inner.orphan_record(id).await
    }

    async fn resources(&self) -> Result<Resources, ArmError> {
        self.inner.resources().await
    }

    async fn close(self: Box<Self>) -> Result<(), ArmError> {
        Ok(())
    }
}
