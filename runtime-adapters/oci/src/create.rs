//! Creation of a container: folder, record, file system, bundle, monitor.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use wavetank_distribution::Reference;
use wavetank_port::{ContainerId, ContainerSpec, ErrorClass, RuntimeError, Signal};

use crate::adapter::Shared;
use crate::bundle::Bundle;
use crate::clock;
use crate::deadline::{Lock, Result, Sharing, blocking, unknown};
use crate::images::StoredImage;
use crate::monitor::create_fifos;
use crate::monitor::protocol::Verb;
use crate::monitor_client::{ask, spawn};
use crate::record::{ContainerFolder, Phase, Record, file, is_valid_id};
use crate::user;
use crate::view::View;

/// How often a container that another caller is creating is looked at again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

impl Shared {
    /// Does what the port says. Must be run to its end: whoever asked may lose patience.
    pub(crate) async fn create(self: Arc<Self>, spec: ContainerSpec) -> Result<()> {
        check(&spec)?;
        let _using = Lock::acquire(&self.images.use_lock(), Sharing::Common).await?;
        let image = self.image_of(&spec).await?;
        let folder = self.folder(&spec.id);
        let _lock = self.claim(&folder, &spec.id).await?;
        let made = self.make(&folder, spec, image).await;
        if made.is_err() {
            let (shared, folder) = (self.clone(), folder.clone());
            if let Err(error) = blocking(move || shared.remove_made(&folder)).await {
                tracing::warn!(%error, "a container that could not be made is not gone");
            }
        }
        made
    }

    async fn image_of(self: &Arc<Self>, spec: &ContainerSpec) -> Result<StoredImage> {
        let name = Reference::try_from(&spec.image)?.to_string();
        let shared = self.clone();
        blocking(move || {
            let found = shared.images.find(&name).map_err(|error| unknown(&error))?;
            found.ok_or_else(|| {
                RuntimeError::new(
                    ErrorClass::NotFound,
                    format!("the image {name} is not here"),
                )
            })
        })
        .await
    }

    /// Makes the folder and locks it. One that a dead caller left half made is removed first.
    async fn claim(self: &Arc<Self>, folder: &ContainerFolder, id: &ContainerId) -> Result<Lock> {
        loop {
            match fs::create_dir(folder.path()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.finish_removal(folder).await?;
                    if is_taken(folder).map_err(|error| unknown(&error))? {
                        let message = format!("there is a container {id}");
                        return Err(RuntimeError::new(ErrorClass::AlreadyExists, message));
                    }
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                    continue;
                }
                Err(error) => return Err(unknown(&error)),
            }
            // Between the two calls somebody may have taken the folder for a left-over.
            if let Some(lock) = Lock::try_acquire(folder.path(), Sharing::Alone)? {
                return Ok(lock);
            }
        }
    }

    async fn make(
        self: &Arc<Self>,
        folder: &ContainerFolder,
        spec: ContainerSpec,
        image: StoredImage,
    ) -> Result<()> {
        let (shared, at) = (self.clone(), folder.clone());
        blocking(move || shared.prepare(&at, spec, &image)).await?;
        let child = spawn(&self.config.monitor, folder)?;
        self.attend_child(folder, child);
        ask(folder, Verb::Create).await
    }

    /// Everything that needs no process.
    fn prepare(
        &self,
        folder: &ContainerFolder,
        spec: ContainerSpec,
        image: &StoredImage,
    ) -> Result<()> {
        let failed = |error: io::Error| unknown(&error);
        let record = self.record(spec, image)?;
        folder.write_record(&record).map_err(failed)?;
        create_fifos(folder).map_err(failed)?;
        fs::create_dir_all(folder.rootfs()).map_err(failed)?;
        for name in &record.spec.volumes {
            fs::create_dir_all(self.volumes.join(name)).map_err(failed)?;
        }
        self.mount(folder, &record.layers)?;
        let user = image.configuration.config().as_ref();
        let user = user.and_then(|it| it.user().clone()).unwrap_or_default();
        let ids = user::resolve(&folder.rootfs(), &user).map_err(failed)?;
        let unknown_user = || invalid(format!("the image has no user `{user}`"));
        let bundle = Bundle {
            spec: &record.spec,
            image: &image.configuration,
            ids: ids.ok_or_else(unknown_user)?,
            cgroup: &record.cgroup,
            volumes: &self.volumes,
        };
        let config = serde_json::to_vec(&bundle.config()?).map_err(|it| failed(it.into()))?;
        fs::write(folder.join(file::BUNDLE).join("config.json"), config).map_err(failed)
    }

    fn record(&self, spec: ContainerSpec, image: &StoredImage) -> Result<Record> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Record {
            incarnation: format!("{:x}.{}.{number}", clock::now().0, std::process::id()),
            image_digest: image.image.digest.clone(),
            image_reference: image.image.reference.0.clone(),
            layers: image.layers.clone(),
            stop_signal: stop_signal(&spec, image)?,
            runtime: self.config.runtime.clone(),
            runtime_root: self.config.runtime_root.clone(),
            journal: self.journal.folder().to_owned(),
            cgroup: format!("/{}/{}", self.config.cgroup(), spec.id),
            spec,
        })
    }

    /// Mounts the image's layers under a layer of the container's own.
    fn mount(&self, folder: &ContainerFolder, layers: &[String]) -> Result<()> {
        let failed = |error: io::Error| unknown(&error);
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        let empty = folder.join("empty");
        for made in [&upper, &work, &empty] {
            fs::create_dir(made).map_err(failed)?;
        }
        let mut lower: Vec<String> = layers
            .iter()
            .rev()
            .map(|layer| self.images.layer(layer).display().to_string())
            .collect();
        if lower.is_empty() {
            lower.push(empty.display().to_string());
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        // The kernel takes one page of options.
        if options.len() >= 4096 {
            return Err(invalid(format!("{} layers are too many", layers.len())));
        }
        let options = std::ffi::CString::new(options).map_err(|it| failed(it.into()))?;
        mount(
            "overlay",
            folder.rootfs(),
            "overlay",
            MountFlags::empty(),
            &*options,
        )
        .map_err(|error| failed(error.into()))
    }
}

/// True for a container that was made to its end, or whose monitor is making it.
fn is_taken(folder: &ContainerFolder) -> io::Result<bool> {
    match View::look_into(folder.clone())? {
        Some(view) => Ok(!view.facts.deleting && view.phase != Phase::HalfMade),
        None => Ok(folder.record()?.exists()),
    }
}

fn check(spec: &ContainerSpec) -> Result<()> {
    if !is_valid_id(&spec.id) {
        return Err(invalid(format!("`{}` is not an id", spec.id)));
    }
    for name in &spec.volumes {
        if !is_valid_id(&ContainerId(name.clone())) {
            return Err(invalid(format!("`{name}` is not the name of a volume")));
        }
    }
    for (name, value) in &spec.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!(
                "`{name}` cannot be an environment variable"
            )));
        }
    }
    if spec.memory_bytes_max == Some(0) || spec.cpu_millis_max == Some(0) {
        return Err(invalid(
            "a limit of zero leaves nothing to run with".to_owned(),
        ));
    }
    if spec.stop_signal.is_some_and(|signal| !signal.is_valid()) {
        return Err(invalid("the stop signal is none".to_owned()));
    }
    Ok(())
}

fn stop_signal(spec: &ContainerSpec, image: &StoredImage) -> Result<i32> {
    if let Some(signal) = spec.stop_signal {
        return Ok(signal.number());
    }
    let config = image.configuration.config().as_ref();
    let Some(name) = config.and_then(|it| it.stop_signal().clone()) else {
        return Ok(Signal::Terminate.number());
    };
    signal_number(&name).ok_or_else(|| invalid(format!("the image's stop signal `{name}` is none")))
}

/// A signal by number or by name, with or without `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let short = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == short)
        .map(|(_, number)| *number)
}

/// Names of signal(7), with the numbers that x86 and ARM share.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMIN+3", 37),
];

fn invalid(message: String) -> RuntimeError {
    RuntimeError::new(ErrorClass::InvalidArgument, message)
}

/// True if something is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let wanted = path.display().to_string();
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|at| at == wanted))
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_have_names_and_numbers() {
        let table = [
            ("SIGUSR1", Some(10)),
            ("usr1", Some(10)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("0", None),
            ("65", None),
            ("SIGNOTHING", None),
        ];
        for (name, number) in table {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }
}
