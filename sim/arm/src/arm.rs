//! What a case may break, done to a simulated machine and its registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use wavetank_conformance::{Arm, ArmError, Images, RegistryFault, Resources, TestImage};
use wavetank_fixtures::registry::{PASSWORD, USER};
use wavetank_model::NodeId;
use wavetank_port::{ContainerId, ContainerRuntime, Credentials, ErrorClass, ImageReference};
use wavetank_scenario::plan::{Cluster, Health, Image, OnTerm, Range, RuntimeSteps};
use wavetank_sim_runtime::{SharedRegistry, SimConfig, SimRuntime, Stepper};
use wavetank_trace::ExitCause;
use wavetank_world::{Registry, RegistryEffect, RegistryRule, RuntimeEffect, RuntimeRule};

use crate::program::interpret;

/// The simulated registry's name.
const HOST: &str = "registry.sim/wavetank";
/// Size of every test image, in bytes.
const IMAGE_BYTES: u64 = 2 << 20;
/// Time that a simulated call takes.
const LATENCY: Duration = Duration::from_millis(1);

/// Numbers of the faults that an arm makes. Those of images begin at [`IMAGE_FAULTS`].
const DAEMON_FAULT: u32 = 1;
const CREATE_FAULT: u32 = 2;
const UNREACHABLE_FAULT: u32 = 3;
const IMAGE_FAULTS: u32 = 100;

/// A simulated machine with a registry of its own.
pub struct SimArm {
    machine: Arc<SimRuntime>,
    others: Mutex<Vec<Arc<SimRuntime>>>,
    registry: SharedRegistry,
}

impl SimArm {
    /// A machine without images or containers. Needs a tokio runtime, whose clock it lives by.
    #[expect(
        clippy::new_without_default,
        reason = "it starts a task, which nobody expects of a default"
    )]
    pub fn new() -> Self {
        let registry = Arc::new(Mutex::new(registry()));
        SimArm {
            machine: machine(1, &registry),
            others: Mutex::default(),
            registry,
        }
    }

    /// A machine whose runtime takes as long as `cluster` says and does only what is due when it is
    /// stepped.
    pub fn stepped(cluster: &Cluster, seed: u64, stepper: Stepper) -> Self {
        let registry = Arc::new(Mutex::new(registry()));
        let config = SimConfig {
            seed,
            latency: cluster.runtime_latency,
            event_delay: cluster.event_delay,
            steps: cluster.runtime_steps.clone(),
            ..config(1)
        };
        let machine = SimRuntime::stepped(&config, Arc::clone(&registry), stepper);
        SimArm {
            machine: Arc::new(machine),
            others: Mutex::default(),
            registry,
        }
    }

    /// The machine.
    pub fn machine(&self) -> &SimRuntime {
        &self.machine
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn machine(number: u32, registry: &SharedRegistry) -> Arc<SimRuntime> {
    Arc::new(SimRuntime::new(&config(number), Arc::clone(registry)))
}

fn config(number: u32) -> SimConfig {
    let exactly = |time| Range {
        min: time,
        max: time,
    };
    SimConfig {
        node: NodeId::agent(number),
        seed: 1,
        latency: exactly(LATENCY),
        event_delay: exactly(LATENCY),
        steps: RuntimeSteps::new(),
        interpreter: Some(interpret),
    }
}

fn registry() -> Registry {
    let names = TestImage::ALL.map(TestImage::name);
    let served = names.into_iter().chain(["private"]).map(named);
    let served = served.chain([unreachable()]);
    let mut registry = Registry::new(served.map(|name| (name.0, image())).collect());
    for name in names {
        let name = named(name);
        let repository = name.0.trim_end_matches(":1").to_owned();
        let digest = registry.digest_of(&name);
        for alias in [
            format!("{repository}:latest"),
            format!("{repository}@{digest}"),
        ] {
            registry.add_alias(&ImageReference(alias), &name);
        }
    }
    let credentials = Credentials {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    registry.make_private(&named("private"), credentials);
    registry.add_rule(RegistryRule {
        fault: UNREACHABLE_FAULT,
        images: vec![unreachable().0],
        effect: RegistryEffect::Error(ErrorClass::Unavailable),
        count: None,
    });
    registry
}

/// What of a test image the registry's model needs; what its process does is said elsewhere.
fn image() -> Image {
    Image {
        run_for: None,
        exit_code: 0,
        on_term: OnTerm::Ignores,
        health: Health::Ok,
        pull_bytes: IMAGE_BYTES,
        exists: true,
        memory_bytes: 0,
    }
}

fn named(name: &str) -> ImageReference {
    ImageReference(format!("{HOST}/{name}:1"))
}

fn unreachable() -> ImageReference {
    ImageReference("nobody.sim/wavetank/normal:1".to_owned())
}

fn fault_number(image: TestImage) -> u32 {
    let place = TestImage::ALL.iter().position(|it| *it == image);
    IMAGE_FAULTS + u32::try_from(place.unwrap_or(0)).unwrap_or(0)
}

fn effect(fault: RegistryFault) -> RegistryEffect {
    match fault {
        RegistryFault::Missing => RegistryEffect::Error(ErrorClass::NotFound),
        RegistryFault::Unauthorized => RegistryEffect::Error(ErrorClass::Unauthenticated),
        RegistryFault::TooManyRequests => RegistryEffect::Error(ErrorClass::ResourceExhausted),
        RegistryFault::Unavailable => RegistryEffect::Error(ErrorClass::Unavailable),
        RegistryFault::Slow(time) => RegistryEffect::Slow(IMAGE_BYTES / time.as_secs().max(1)),
        RegistryFault::StallAfter(bytes) => RegistryEffect::Stall(bytes),
        RegistryFault::TruncateAfter(_) => RegistryEffect::Truncate,
        RegistryFault::Corrupt => RegistryEffect::WrongDigest,
    }
}

impl Images for SimArm {
    fn image(&self, image: TestImage) -> ImageReference {
        named(image.name())
    }

    fn image_by_digest(&self, image: TestImage) -> ImageReference {
        let digest = self.registry().digest_of(&self.image(image));
        ImageReference(format!("{HOST}/{}@{digest}", image.name()))
    }

    fn missing_image(&self) -> ImageReference {
        named("missing")
    }

    fn unreachable_image(&self) -> ImageReference {
        unreachable()
    }

    fn private_image(&self) -> ImageReference {
        named("private")
    }

    fn set_registry_fault(&self, image: TestImage, fault: Option<RegistryFault>) {
        let number = fault_number(image);
        self.registry().remove_rules(number);
        self.machine
            .strike(|runtime, now, _| runtime.remove_rules(now, number));
        if let Some(fault) = fault {
            self.registry().add_rule(RegistryRule {
                fault: number,
                images: vec![self.image(image).0],
                effect: effect(fault),
                count: None,
            });
        }
    }

    fn blob_requests(&self, image: TestImage) -> u64 {
        self.registry().fetched(&self.image(image))
    }
}

#[async_trait]
impl Arm for SimArm {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::clone(&self.machine) as Arc<dyn ContainerRuntime>
    }

    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError> {
        let other = machine(2, &self.registry);
        lock(&self.others).push(Arc::clone(&other));
        Ok(other)
    }

    fn images(&self) -> &dyn Images {
        self
    }

    async fn corrupt_local_image(&self, image: TestImage) -> Result<(), ArmError> {
        let image = self.image(image);
        self.machine
            .strike(|runtime, _, _| runtime.damage_image(&image));
        Ok(())
    }

    async fn kill_daemon(&self) -> Result<(), ArmError> {
        self.machine.strike(|runtime, now, clock| {
            runtime.daemon_down(now, clock, DAEMON_FAULT, true);
        });
        Ok(())
    }

    async fn start_daemon(&self) -> Result<(), ArmError> {
        self.machine
            .strike(|runtime, now, _| runtime.daemon_up(now, DAEMON_FAULT));
        Ok(())
    }

    async fn reboot(&self) -> Result<(), ArmError> {
        self.machine.strike(|runtime, now, clock| {
            runtime.lose_power(now, clock);
            runtime.daemon_up(now, DAEMON_FAULT);
        });
        self.machine.hang_up();
        Ok(())
    }

    async fn kill_monitor(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.orphan_record(id).await
    }

    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError> {
        self.machine
            .strike(|runtime, now, _| runtime.set_hung(now, id, paused));
        Ok(())
    }

    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.machine.strike(|runtime, now, clock| {
            runtime.end_running(now, clock, id, 137, ExitCause::Fault);
        });
        Ok(())
    }

    async fn fail_next_create(&self) -> Result<(), ArmError> {
        let effect = RuntimeEffect::Error(Some("create".to_owned()), ErrorClass::Unknown);
        let rule = RuntimeRule {
            fault: CREATE_FAULT,
            effect,
            count: Some(1),
        };
        self.machine.strike(|runtime, _, _| runtime.add_rule(rule));
        Ok(())
    }

    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError> {
        self.machine.strike(|runtime, now, clock| {
            runtime.forget_exit(now, clock, id, ExitCause::Fault);
        });
        Ok(())
    }

    async fn resources(&self) -> Result<Resources, ArmError> {
        let mut all: Resources = BTreeMap::new();
        let others = lock(&self.others).clone();
        for machine in others.iter().chain([&self.machine]) {
            let counts = machine.strike(|runtime, _, _| runtime.counts());
            for (name, count) in counts {
                *all.entry(name.to_owned()).or_default() += count as u64;
            }
        }
        Ok(all)
    }

    async fn close(self: Box<Self>) -> Result<(), ArmError> {
        Ok(())
    }
}
