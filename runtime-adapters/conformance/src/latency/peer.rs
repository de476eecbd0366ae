//! The runtimes' own command lines, set to do what our adapters do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wavetank_fixtures::Program;
use wavetank_fixtures::program::PROGRAM_PATH;
use wavetank_fixtures::test_image::test_program;
use wavetank_port::ImageReference;

use super::Step;

/// A command line that does what our adapter does. A step that it cannot do apart has no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Program and arguments by step; `{id}` stands for the container's id.
    pub commands: BTreeMap<Step, Vec<String>>,
}

impl Peer {
    /// containerd's `ctr`. It deletes the task of a container that it has seen end.
    pub fn ctr(socket: &Path, namespace: &str, image: &ImageReference, program: &Program) -> Self {
        let socket = socket.display().to_string();
        let base = ["ctr", "--address", &socket, "--namespace", namespace];
        let mut create = words(&["containers", "create", &image.0, "{id}"]);
        create.extend(program.command());
        Peer::of(
            &base,
            [
                (
                    Step::Pull,
                    words(&["images", "pull", "--plain-http", &image.0]),
                ),
                (Step::Create, create),
                (
                    Step::StartToExit,
                    words(&["tasks", "start", "--null-io", "{id}"]),
                ),
                (Step::Delete, words(&["containers", "delete", "{id}"])),
            ],
        )
    }

    /// `podman` as a client of the same service.
    pub fn podman(socket: &Path, image: &ImageReference, program: &Program) -> Self {
        let url = format!("unix://{}", socket.display());
        let base = ["podman", "--url", &url];
        let mut create = words(&["create", "--network", "none", "--name", "{id}", &image.0]);
        create.extend(program.command());
        Peer::of(
            &base,
            [
                (
                    Step::Pull,
                    words(&["pull", "--quiet", "--tls-verify=false", &image.0]),
                ),
                (Step::Create, create),
                (Step::StartToExit, words(&["start", "--attach", "{id}"])),
                (Step::Delete, words(&["rm", "{id}"])),
            ],
        )
    }

    /// `runc` on a bundle made once in `directory`. It knows no images, and nobody tells it when a
    /// process has ended.
    pub fn runc(directory: &Path, program: &Program) -> io::Result<Self> {
        let bundle = directory.join("bundle");
        make_bundle(&bundle, program)?;
        let root = directory.join("state").display().to_string();
        let bundle = bundle.display().to_string();
        let base = ["runc", "--root", &root];
        Ok(Peer::of(
            &base,
            [
                (
                    Step::Create,
                    words(&["create", "--bundle", &bundle, "{id}"]),
                ),
                (Step::Start, words(&["start", "{id}"])),
                (Step::Delete, words(&["delete", "--force", "{id}"])),
            ],
        ))
    }

    fn of<const N: usize>(base: &[&str], steps: [(Step, Vec<String>); N]) -> Self {
        let with_base = |(step, rest): (Step, Vec<String>)| {
            let mut command = words(base);
            command.extend(rest);
            (step, command)
        };
        Peer {
            commands: steps.into_iter().map(with_base).collect(),
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A bundle with the test program alone in its root file system, and namespaces as our adapters
/// ask for.
fn make_bundle(bundle: &Path, program: &Program) -> io::Result<()> {
    let path = bundle
        .join("rootfs")
        .join(PROGRAM_PATH.trim_start_matches('/'));
    for folder in ["proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(bundle.join("rootfs").join(folder))?;
    }
    fs::create_dir_all(path.parent().unwrap_or(bundle))?;
    fs::write(&path, test_program().map_err(io::Error::other)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let namespaces = ["pid", "mount", "ipc", "uts", "network"];
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": program.command(),
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": namespaces.map(|it| serde_json::json!({ "type": it })) },
    });
    fs::write(bundle.join("config.json"), config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_names_its_container_where_there_is_one() {
        let image = ImageReference("127.0.0.1:1/t:1".into());
        let peer = Peer::ctr(Path::new("/s"), "n", &image, &Program::exit(0));
        for (step, command) in &peer.commands {
            assert_eq!(command.iter().any(|it| it == "{id}"), *step != Step::Pull);
            assert_eq!(command[..3], ["ctr", "--address", "/s"]);
        }
    }
}
