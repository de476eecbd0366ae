//! What a container is given: the OCI runtime spec from the image's configuration and the
//! caller's wishes.
//!
//! Like Docker and Podman without their extras: their default capabilities, masked paths, a private
//! view of processes, no seccomp filter, no limits that were not asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::Config;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilities, LinuxCpuBuilder, LinuxMemoryBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, User, get_default_mounts,
};
use prost_types::Any;
use wavetank_port::{ContainerSpec, ErrorClass, Limits, Network, Signal, runtime::Result};

use crate::error::error;

/// What Docker and Podman leave to root in a container (Docker: "Runtime privilege and Linux
/// capabilities").
const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
    Capability::AuditWrite,
];
/// The kernel's period for CPU limits, in microseconds, where nobody chose another.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The kernel refuses shorter quotas.
const CPU_QUOTA_MICROS_MIN: i64 = 1_000;
/// Programs are looked for here if the image says nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// containerd's limit for ids (`identifiers.maxLength`).
const ID_CHARS_MAX: usize = 76;

/// Refuses what could not be created, before anything is.
pub(crate) fn validate(spec: &ContainerSpec) -> Result<()> {
    if !is_identifier(&spec.id.0) {
        return Err(invalid(format!("`{}` is no id for a container", spec.id)));
    }
    if let Some(name) = spec.volumes.iter().find(|it| !is_identifier(it)) {
        return Err(invalid(format!("`{name}` is no name for a volume")));
    }
    let bad_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = spec.environment.keys().find(bad_name) {
        return Err(invalid(format!("`{name}` is no name for a variable")));
    }
    let mut texts = spec.command.iter().chain(spec.environment.values());
    if texts.any(|it| it.contains('\0')) {
        return Err(invalid("an argument or a variable contains a zero byte"));
    }
    if spec.stop_signal.is_some_and(|it| !it.is_valid()) {
        return Err(invalid("the stop signal is none"));
    }
    if spec.memory_bytes_max == Some(0) || spec.cpu_millis_max == Some(0) {
        return Err(invalid("a limit of nothing leaves nothing to run with"));
    }
    Ok(())
}

/// Letters and digits, and single `.`, `-` or `_` between them: what containerd takes.
fn is_identifier(text: &str) -> bool {
    let mut parts = text.split(['.', '-', '_']);
    let word = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= ID_CHARS_MAX && parts.all(word)
}

/// The machine's side of a container.
pub(crate) struct Place<'a> {
    pub user: User,
    pub cgroup: &'a str,
    pub volumes: &'a Path,
}

/// The OCI spec, as containerd takes it.
pub(crate) fn build(spec: &ContainerSpec, image: &Config, place: Place<'_>) -> Result<Any> {
    let linux = LinuxBuilder::default()
        .cgroups_path(place.cgroup)
        .namespaces(namespaces(spec.network))
        .resources(resources(spec.memory_bytes_max, spec.cpu_millis_max)?);
    let oci = SpecBuilder::default()
        .process(process(spec, image, place.user)?)
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(false)
                .build()
                .map_err(bad)?,
        )
        .hostname(spec.id.0.clone())
        .mounts(mounts(spec, place.volumes)?)
        .linux(linux.build().map_err(bad)?);
    any("Spec", &oci.build().map_err(bad)?)
}

/// The process of an exec: like the container's own, but for the command.
pub(crate) fn exec_process(container: &Any, command: &[String]) -> Result<Any> {
    let spec: Spec = serde_json::from_slice(&container.value)
        .map_err(|it| error(ErrorClass::Unknown, format!("the container's spec: {it}")))?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(command.to_vec()));
    any("Process", &process)
}

/// New limits for a running container.
pub(crate) fn limits(limits: &Limits) -> Result<Any> {
    let resources = resources(limits.memory_bytes_max, limits.cpu_millis_max)?;
    any("LinuxResources", &resources)
}

/// What a stop sends first: the caller's choice, the image's, or SIGTERM.
pub(crate) fn stop_signal(spec: &ContainerSpec, image: &Config) -> u8 {
    let image = image.stop_signal().as_deref().and_then(parse_signal);
    let number = spec.stop_signal.map(Signal::number).or(image).unwrap_or(15);
    u8::try_from(number).unwrap_or(15)
}

fn process(spec: &ContainerSpec, image: &Config, user: User) -> Result<Process> {
    let from_image = || {
        let words = [image.entrypoint(), image.cmd()];
        words.into_iter().flatten().flatten().cloned().collect()
    };
    let args: Vec<String> = if spec.command.is_empty() {
        from_image()
    } else {
        spec.command.clone()
    };
    if args.is_empty() {
        return Err(invalid("neither the caller nor the image says what to run"));
    }
    let cwd = image.working_dir().clone().filter(|it| !it.is_empty());
    let capabilities: Capabilities = CAPABILITIES.into_iter().collect();
    let mut allowed = LinuxCapabilities::default();
    allowed
        .set_bounding(Some(capabilities.clone()))
        .set_effective(Some(capabilities.clone()))
        .set_permitted(Some(capabilities))
        .set_inheritable(None)
        .set_ambient(None);
    let mut process = ProcessBuilder::default()
        .args(args)
        .env(environment(spec, image))
        .cwd(cwd.map_or(PathBuf::from("/"), PathBuf::from))
        .user(user)
        .capabilities(allowed)
        .no_new_privileges(false)
        .build()
        .map_err(bad)?;
    // Raising a limit needs CAP_SYS_RESOURCE, which we may not have; the daemon's own are kept.
    process.set_rlimits(None);
    Ok(process)
}

/// The image's variables with the caller's on top.
fn environment(spec: &ContainerSpec, image: &Config) -> Vec<String> {
    let defaults = [PATH.to_owned()];
    let image = image.env().iter().flatten();
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for pair in defaults.iter().chain(image) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.insert(name.to_owned(), value.to_owned());
    }
    all.extend(spec.environment.clone());
    all.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn namespaces(network: Network) -> Vec<LinuxNamespace> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    if network == Network::None {
        kinds.push(LinuxNamespaceType::Network);
    }
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    kinds
        .into_iter()
        .filter_map(|kind| new(kind).ok())
        .collect()
}

fn mounts(spec: &ContainerSpec, volumes: &Path) -> Result<Vec<Mount>> {
    // Without a cgroup namespace the cgroup files would show the whole machine.
    let mut all = get_default_mounts();
    all.retain(|it| it.destination() != Path::new("/sys/fs/cgroup"));
    if spec.network == Network::Host {
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            if Path::new(file).is_file() {
                all.push(bind(Path::new(file), Path::new(file), "ro")?);
            }
        }
    }
    for name in &spec.volumes {
        all.push(bind(
            &volumes.join(name),
            &Path::new("/volumes").join(name),
            "rw",
        )?);
    }
    Ok(all)
}

fn bind(source: &Path, destination: &Path, access: &str) -> Result<Mount> {
    let options = ["rbind", "rprivate", access].map(str::to_owned);
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(options)
        .build()
        .map_err(bad)
}

fn resources(memory_bytes: Option<u64>, cpu_millis: Option<u32>) -> Result<LinuxResources> {
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(bytes) = memory_bytes {
        let bytes = i64::try_from(bytes).map_err(|_| invalid("more memory than there can be"))?;
        let memory = LinuxMemoryBuilder::default().limit(bytes).build();
        resources = resources.memory(memory.map_err(bad)?);
    }
    if let Some(millis) = cpu_millis {
        let quota = i64::from(millis) * CPU_PERIOD_MICROS.cast_signed() / 1_000;
        let cpu = LinuxCpuBuilder::default()
            .period(CPU_PERIOD_MICROS)
            .quota(quota.max(CPU_QUOTA_MICROS_MIN))
            .build();
        resources = resources.cpu(cpu.map_err(bad)?);
    }
    resources.build().map_err(bad)
}

/// `SIGUSR1`, `USR1` or `10`, as images have it.
fn parse_signal(text: &str) -> Option<i32> {
    let number = text.parse().ok();
    let name = text.trim_start_matches("SIG").to_ascii_uppercase();
    let known = SIGNALS.iter().find(|(it, _)| *it == name);
    let number = number.or(known.map(|(_, number)| *number))?;
    (1..=64).contains(&number).then_some(number)
}

/// Linux' numbers, from signal(7), for x86 and ARM.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("WINCH", 28),
    ("PWR", 30),
    ("RTMIN", 34),
    ("RTMIN+3", 37),
];

/// A type of the OCI runtime specification, as containerd takes it: JSON under a name.
fn any(name: &str, value: &impl serde::Serialize) -> Result<Any> {
    let value = serde_json::to_vec(value)
        .map_err(|it| error(ErrorClass::Unknown, format!("{name}: {it}")))?;
    Ok(Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{name}"),
        value,
    })
}

fn invalid(message: impl Into<String>) -> wavetank_port::RuntimeError {
    error(ErrorClass::InvalidArgument, message)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn bad(cause: oci_spec::OciSpecError) -> wavetank_port::RuntimeError {
    invalid(cause.to_string())
}
