//! A root of its own per test, with one image made from the machine's busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use wavetank_distribution::{Registries, sha256};
use wavetank_oci::cgroup::Cgroup;
use wavetank_oci::images::ImageStore;
use wavetank_oci::record::ContainerFolder;
use wavetank_oci::sealed::Sealed;
use wavetank_oci::{Config, MonitorProgram, OciRuntime};
use wavetank_port::{
    ContainerId, ContainerRuntime as _, ContainerSpec, ImageReference, ListFilter, LogOptions,
    Network,
};

/// Longer than anything here takes, on a loaded machine too.
pub const LONG: Duration = Duration::from_secs(60);

const BUSYBOX: &str = "/bin/busybox";
const IMAGE: &str = "localhost:1/busybox:latest";

/// What a test has to itself.
pub struct Bed {
    pub folder: TempDir,
    pub runtime: OciRuntime,
}

impl Bed {
    /// `None`, said aloud, where the machine lacks what it takes.
    pub async fn new() -> Option<Self> {
        Self::with_runtime(Path::new("runc")).await
    }

    /// The same with another OCI runtime.
    pub async fn with_runtime(program: &Path) -> Option<Self> {
        if let Err(reason) = usable() {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            assert!(required.is_none_or(|it| it.is_empty()), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().expect("folder");
        make_image(&folder.path().join("root/images"));
        let runtime = open(config(folder.path(), program)).await;
        Some(Bed { folder, runtime })
    }

    /// Another adapter on the same root, as after a restart of the caller.
    pub async fn reopened(&self) -> OciRuntime {
        open(config(self.folder.path(), Path::new("runc"))).await
    }

    /// The folder of a container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.folder.path().join("root/containers").join(&id.0)
    }

    /// A created container that runs `script` by a shell.
    pub async fn create(&self, name: &str, script: &str) -> ContainerId {
        let spec = spec(name, &["/bin/sh", "-c", script]);
        self.runtime.create(&spec, LONG).await.expect("create");
        spec.id
    }

    /// The same, started.
    pub async fn run(&self, name: &str, script: &str) -> ContainerId {
        let id = self.create(name, script).await;
        self.runtime.start(&id, LONG).await.expect("start");
        id
    }

    /// Waits until the container has written `text`: a signal that comes before a shell has set its
    /// trap would be lost.
    pub async fn has_said(&self, id: &ContainerId, text: &str) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !self.output(id).await.contains(text) {
            assert!(tokio::time::Instant::now() < deadline, "{id}: no `{text}`");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the container has written by now.
    pub async fn output(&self, id: &ContainerId) -> String {
        let options = LogOptions::default();
        let mut log = self.runtime.logs(id, &options, LONG).await.expect("logs");
        let mut text = Vec::new();
        while let Some(chunk) = log.next().await.expect("chunk") {
            text.extend(chunk.bytes);
        }
        String::from_utf8(text).expect("text")
    }

    /// Removes all containers, so that nothing outlives the test.
    pub async fn close(self) {
        delete_all(&self.runtime).await;
    }
}

impl Drop for Bed {
    /// Ends what a failed test has left, monitors first, and removes the control group around all
    /// containers, which the adapter keeps. Best effort: the test has had its say.
    fn drop(&mut self) {
        for container in entries(&self.folder.path().join("root/containers")) {
            let folder = ContainerFolder::at(container.into());
            let Ok(facts) = folder.facts() else { continue };
            if let Some(monitor) = facts.monitor.valid() {
                let _ = monitor.kill();
            }
            let _ = unmount(folder.rootfs(), UnmountFlags::DETACH);
            if let Ok(Some(record)) = folder.record().map(Sealed::valid)
                && let Ok(cgroup) = Cgroup::open(&record.cgroup)
            {
                let _ = cgroup.kill_all();
                cgroup.remove();
            }
        }
        let around = config(self.folder.path(), Path::new("runc")).cgroup();
        if let Ok(around) = Cgroup::open(&around) {
            around.remove();
        }
    }
}

/// Removes every container that there is.
pub async fn delete_all(runtime: &OciRuntime) {
    let all = runtime.list(&ListFilter::default(), LONG).await;
    for state in all.expect("list") {
        let deleted = runtime.delete(&state.id, true, LONG).await;
        deleted.expect("delete");
    }
}

/// How the tests' adapters are set up below `folder`.
pub fn config(folder: &Path, runtime: &Path) -> Config {
    Config {
        root: folder.join("root"),
        runtime_root: folder.join("run"),
        runtime: runtime.to_owned(),
        monitor: MonitorProgram::Program(env!("CARGO_BIN_EXE_wavetank-monitor").into()),
        registries: Registries::default(),
    }
}

async fn open(config: Config) -> OciRuntime {
    OciRuntime::open(config, LONG).await.expect("open")
}

/// A container that runs `command`.
pub fn spec(name: &str, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        command: command.iter().map(|it| (*it).to_owned()).collect(),
        network: Network::None,
        ..ContainerSpec::of(
            ContainerId(name.to_owned()),
            ImageReference(IMAGE.to_owned()),
        )
    }
}

/// A shell script as a program at `path`. Another process writes it: what we have open for writing,
/// a child forked meanwhile has too, and then it cannot be executed.
pub fn script(path: &Path, text: &str) {
    let source = path.with_extension("text");
    fs::write(&source, format!("#!/bin/sh\n{text}")).expect("script");
    let mut install = std::process::Command::new("install");
    let installed = install.args(["-m", "755"]).args([&source, path]).status();
    assert!(installed.expect("install").success());
}

fn usable() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("an OCI runtime needs root here".to_owned());
    }
    if !Path::new(BUSYBOX).exists() {
        return Err(format!("there is no {BUSYBOX}"));
    }
    let runc = std::process::Command::new("runc").arg("--version").output();
    if !runc.is_ok_and(|output| output.status.success()) {
        return Err("there is no runc".to_owned());
    }
    Ok(())
}

fn make_image(root: &Path) {
    let store = ImageStore::open(root).expect("store");
    let layer = store.unfinished_folder().expect("folder");
    for folder in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        fs::create_dir(layer.path().join(folder)).expect("folder");
    }
    fs::copy(BUSYBOX, layer.path().join("bin/busybox")).expect("busybox");
    for name in [
        "sh", "sleep", "true", "echo", "cat", "kill", "head", "yes", "id",
    ] {
        let link = layer.path().join("bin").join(name);
        std::os::unix::fs::symlink("busybox", link).expect("link");
    }
    let diff_id = format!("sha256:{}", "5".repeat(64));
    store.put_layer(&diff_id, layer).expect("layer");
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = serde_json::to_vec(&config).expect("json");
    let config_digest = sha256(&config).to_string();
    store.put_blob(&config_digest, &config).expect("blob");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": [],
    });
    let manifest = serde_json::to_vec(&manifest).expect("json");
    let digest = sha256(&manifest).to_string();
    store.put_blob(&digest, &manifest).expect("blob");
    store.put_name(IMAGE, &digest).expect("name");
}

/// What is left of the containers below `folder`: folders, mounts, control groups, processes.
pub fn leftovers(folder: &Path) -> Vec<String> {
    let root = folder.join("root");
    let mut left = Vec::new();
    for name in ["containers", "trash", "images/unfinished"] {
        left.extend(entries(&root.join(name)));
    }
    left.extend(entries(&folder.join("run")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let own = folder.display().to_string();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    left.extend(points.filter(|at| at.starts_with(&own)).map(str::to_owned));
    let around = config(folder, Path::new("runc")).cgroup();
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let groups = entries(&Path::new(&hierarchy).join(&around));
        left.extend(groups.into_iter().filter(|group| Path::new(group).is_dir()));
    }
    for process in entries(Path::new("/proc")) {
        let line = fs::read_to_string(Path::new(&process).join("cmdline")).unwrap_or_default();
        if line.starts_with("wavetank-monitor") && line.contains(&own) {
            left.push(format!("{process}: {}", line.replace('\0', " ")));
        }
    }
    left
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("entry").path());
    paths.map(|path| path.display().to_string()).collect()
}
