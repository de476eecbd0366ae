//! The OCI bundle of a container: `config.json` from the spec and the image's configuration.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, Process,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder, get_default_maskedpaths,
    get_default_mounts, get_default_readonly_paths,
};
use wavetank_distribution::ImageConfiguration;
use wavetank_port::{ContainerSpec, ErrorClass, Limits, Network, RuntimeError};

use crate::deadline::Result;
use crate::user::Ids;

/// The length of a CPU period in microseconds: the kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The image's `PATH` when it has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What Docker and containerd leave to root in a container.
const CAPABILITIES: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All that a bundle is made from.
pub struct Bundle<'a> {
    /// What was asked for.
    pub spec: &'a ContainerSpec,
    /// The image's defaults.
    pub image: &'a ImageConfiguration,
    /// Who the process runs as.
    pub ids: Ids,
    /// The cgroup, from the root of each hierarchy.
    pub cgroup: &'a str,
    /// Where named volumes are kept.
    pub volumes: &'a Path,
}

impl Bundle<'_> {
    /// The content of `config.json`.
    pub fn config(&self) -> Result<Spec> {
        let linux = LinuxBuilder::default()
            .namespaces(self.namespaces()?)
            .cgroups_path(self.cgroup)
            .resources(self.resources()?)
            .masked_paths(get_default_maskedpaths())
            .readonly_paths(get_default_readonly_paths())
            .build()
            .map_err(invalid)?;
        let root = RootBuilder::default()
            .path("rootfs")
            .readonly(false)
            .build();
        SpecBuilder::default()
            .version("1.0.2")
            .root(root.map_err(invalid)?)
            .hostname(self.hostname())
            .process(self.process()?)
            .mounts(self.mounts()?)
            .linux(linux)
            .build()
            .map_err(invalid)
    }

    /// A host name has at most 63 characters.
    fn hostname(&self) -> String {
        self.spec.id.0.chars().take(63).collect()
    }

    fn process(&self) -> Result<Process> {
        let arguments = self.arguments()?;
        process(arguments, self.environment(), self.directory(), self.ids)
    }

    /// The image's entry point, then the container's arguments or else the image's.
    fn arguments(&self) -> Result<Vec<String>> {
        let config = self.image.config().as_ref();
        let entry_point = config.and_then(|it| it.entrypoint().clone());
        let own = config.and_then(|it| it.cmd().clone());
        let mut arguments = entry_point.unwrap_or_default();
        if self.spec.command.is_empty() {
            arguments.extend(own.unwrap_or_default());
        } else {
            arguments.extend(self.spec.command.iter().cloned());
        }
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Err(invalid("an argument contains a zero byte"));
        }
        if arguments.is_empty() {
            return Err(invalid(
                "neither the container nor its image names a program",
            ));
        }
        Ok(arguments)
    }

    fn environment(&self) -> Vec<String> {
        let config = self.image.config().as_ref();
        let image = config.and_then(|it| it.env().clone()).unwrap_or_default();
        let mut merged: BTreeMap<String, String> = BTreeMap::new();
        let image = image.iter().map(String::as_str);
        for text in [PATH].into_iter().chain(image) {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            merged.insert(name.to_owned(), value.to_owned());
        }
        merged.extend(self.spec.environment.clone());
        let pairs = merged.into_iter();
        pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn directory(&self) -> &str {
        let config = self.image.config().as_ref();
        config
            .and_then(|it| it.working_dir().as_deref())
            .filter(|directory| !directory.is_empty())
            .unwrap_or("/")
    }

    fn mounts(&self) -> Result<Vec<Mount>> {
        // The container needs no view of cgroups, and not every machine can give it one.
        let mut mounts: Vec<Mount> = get_default_mounts()
            .into_iter()
            .filter(|mount| mount.destination() != Path::new("/sys/fs/cgroup"))
            .collect();
        for name in &self.spec.volumes {
            let to = format!("/volumes/{name}");
            mounts.push(bind(&self.volumes.join(name), Path::new(&to), "rw")?);
        }
        let resolver = Path::new("/etc/resolv.conf");
        if self.spec.network == Network::Host && resolver.exists() {
            mounts.push(bind(resolver, resolver, "ro")?);
        }
        Ok(mounts)
    }

    fn namespaces(&self) -> Result<Vec<LinuxNamespace>> {
        use LinuxNamespaceType::{Ipc, Mount, Network as Net, Pid, Uts};
        let own_network = self.spec.network == Network::None;
        let kinds = [Pid, Ipc, Uts, Mount];
        let kinds = kinds.into_iter().chain(own_network.then_some(Net));
        kinds
            .map(|kind| {
                LinuxNamespaceBuilder::default()
                    .typ(kind)
                    .build()
                    .map_err(invalid)
            })
            .collect()
    }

    fn resources(&self) -> Result<LinuxResources> {
        let limits = Limits {
            memory_bytes_max: self.spec.memory_bytes_max,
            cpu_millis_max: self.spec.cpu_millis_max,
        };
        let mut resources = resources(limits)?;
        resources.set_devices(Some(vec![no_devices()?]));
        Ok(resources)
    }
}

/// A process as `config.json` and `exec --process` have it.
pub fn process(
    arguments: Vec<String>,
    environment: Vec<String>,
    directory: &str,
    ids: Ids,
) -> Result<Process> {
    let capabilities: oci_spec::runtime::Capabilities = CAPABILITIES.iter().copied().collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(oci_spec::runtime::Capabilities::new())
        .ambient(oci_spec::runtime::Capabilities::new())
        .build()
        .map_err(invalid)?;
    let user = UserBuilder::default().uid(ids.uid).gid(ids.gid).build();
    ProcessBuilder::default()
        .args(arguments)
        .env(environment)
        .cwd(directory)
        .user(user.map_err(invalid)?)
        .capabilities(capabilities)
        // None: raising one needs a capability that a restricted machine does not have.
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .build()
        .map_err(invalid)
}

/// Limits as the runtime takes them, in `config.json` and for `update`.
pub fn resources(limits: Limits) -> Result<LinuxResources> {
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(bytes) = limits.memory_bytes_max {
        let bytes = i64::try_from(bytes).map_err(|_| invalid("the memory limit is too large"))?;
        let memory = LinuxMemoryBuilder::default().limit(bytes).build();
        resources = resources.memory(memory.map_err(invalid)?);
    }
    if let Some(millis) = limits.cpu_millis_max {
        let quota = u64::from(millis) * CPU_PERIOD_MICROS / 1000;
        let cpu = LinuxCpuBuilder::default()
            .period(CPU_PERIOD_MICROS)
            .quota(quota.cast_signed())
            .build();
        resources = resources.cpu(cpu.map_err(invalid)?);
    }
    resources.build().map_err(invalid)
}

/// No device but those that every runtime gives.
fn no_devices() -> Result<LinuxDeviceCgroup> {
    LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()
        .map_err(invalid)
}

fn bind(from: &Path, to: &Path, access: &str) -> Result<Mount> {
    let options = ["rbind", "rprivate", access].map(str::to_owned).to_vec();
    MountBuilder::default()
        .destination(to)
        .typ("bind")
        .source(from)
        .options(options)
        .build()
        .map_err(invalid)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "so that `map_err` takes it as it is"
)]
fn invalid(error: impl ToString) -> RuntimeError {
    RuntimeError::new(ErrorClass::InvalidArgument, error.to_string())
}
