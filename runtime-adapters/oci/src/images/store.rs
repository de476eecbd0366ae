//! What is on disk of images: manifests and configurations by digest, unpacked layers by digest,
//! and for each name the manifest that it means.
//!
//! Every name is a sealed file of its own, renamed into place after all it needs is there, so that
//! two programs may pull at the same time and none ever sees half an image. Compressed layers are
//! not kept: that halves the space, and its price is that a damaged unpacked layer cannot be seen.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempDir};
use wavetank_distribution::{Digest, ImageConfiguration, ImageManifest, Verifier};
use wavetank_port::{Image, ImageReference};

use crate::sealed::{self, Outlives, Sealed};

/// No manifest or configuration is larger, in bytes: the larger of the limits at the registry.
const BLOB_BYTES_MAX: u64 = wavetank_distribution::CONFIG_BYTES_MAX;

/// An image that is here as a whole.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Its name and the digest of its manifest.
    pub image: Image,
    /// How to run it.
    pub configuration: ImageConfiguration,
    /// The digests of its layers' content, lowest first.
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Name {
    reference: String,
    digest: String,
}

/// The store in one folder.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: PathBuf,
}

impl ImageStore {
    /// The store in `root`, which is made if it is not there.
    pub fn open(root: &Path) -> io::Result<Self> {
        for folder in ["names", "blobs", "layers", "unfinished"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(ImageStore {
            root: root.to_owned(),
        })
    }

    /// The file that whoever fetches locks in common and whoever cleans up locks alone.
    pub fn fetch_lock(&self) -> PathBuf {
        self.root.join("fetch.lock")
    }

    /// The file that whoever makes a container locks in common and whoever removes an image alone.
    pub fn use_lock(&self) -> PathBuf {
        self.root.join("use.lock")
    }

    /// The image of this name; `None` if it is absent or damaged: then the next pull fetches it.
    pub fn find(&self, reference: &str) -> io::Result<Option<StoredImage>> {
        match sealed::read::<Name>(&self.root.join("names"), &file_of(reference))? {
            Sealed::Valid(name) if name.reference == reference => self.load(name),
            Sealed::Valid(_) | Sealed::Damaged(_) | Sealed::Absent => Ok(None),
        }
    }

    /// All whole images, in order of their names.
    pub fn images(&self) -> io::Result<Vec<Image>> {
        let mut images = Vec::new();
        for name in self.names()? {
            images.extend(self.load(name)?.map(|stored| stored.image));
        }
        images.sort();
        Ok(images)
    }

    fn names(&self) -> io::Result<Vec<Name>> {
        let folder = self.root.join("names");
        let mut names = Vec::new();
        for item in fs::read_dir(&folder)? {
            if let Some(file) = item?.file_name().to_str() {
                names.extend(sealed::read::<Name>(&folder, file)?.valid());
            }
        }
        Ok(names)
    }

    fn load(&self, name: Name) -> io::Result<Option<StoredImage>> {
        let Some(manifest) = self.blob(&name.digest)? else {
            return Ok(None);
        };
        let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&manifest) else {
            return Ok(None);
        };
        let Some(configuration) = self.blob(manifest.config().digest().as_ref())? else {
            return Ok(None);
        };
        let Ok(configuration) = serde_json::from_slice::<ImageConfiguration>(&configuration) else {
            return Ok(None);
        };
        let layers = configuration.rootfs().diff_ids().clone();
        for layer in &layers {
            if !self.has_layer(layer)? {
                return Ok(None);
            }
        }
        let image = Image {
            reference: ImageReference(name.reference),
            digest: name.digest,
        };
        Ok(Some(StoredImage {
            image,
            configuration,
            layers,
        }))
    }

    /// A manifest or configuration; `None` if it is absent or not what its digest says.
    pub fn blob(&self, digest: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.root.join("blobs").join(file_of(digest))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, BLOB_BYTES_MAX + 1), &mut bytes)?;
        Ok(is_content_of(digest, &bytes).then_some(bytes))
    }

    /// Keeps a manifest or configuration.
    pub fn put_blob(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.unfinished_file()?;
        io::Write::write_all(&mut file, bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.root.join("blobs").join(file_of(digest)))?;
        sealed::sync_folder(&self.root.join("blobs"))
    }

    /// True if the layer with this content is here.
    pub fn has_layer(&self, diff_id: &str) -> io::Result<bool> {
        self.layer(diff_id).try_exists()
    }

    /// The folder of a layer.
    pub fn layer(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(file_of(diff_id))
    }

    /// Keeps an unpacked layer. Somebody else may have been first; theirs is the same.
    pub fn put_layer(&self, diff_id: &str, unpacked: TempDir) -> io::Result<()> {
        // Whole after a power loss, not only after a crash of ours.
        rustix::fs::syncfs(File::open(unpacked.path())?)?;
        let to = self.layer(diff_id);
        match renameat_with(CWD, unpacked.path(), CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // It is no longer where it was, so there is nothing to clean up.
                drop(unpacked.keep());
                sealed::sync_folder(&self.root.join("layers"))
            }
            Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A new file that vanishes unless it is kept.
    pub fn unfinished_file(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join("unfinished"))
    }

    /// A new folder that vanishes unless it is kept.
    pub fn unfinished_folder(&self) -> io::Result<TempDir> {
        let folder = TempDir::new_in(self.root.join("unfinished"))?;
        // Not by the umask: users other than root must get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// Gives an image, all of which is here, a name.
    pub fn put_name(&self, reference: &str, digest: &str) -> io::Result<()> {
        let name = Name {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
        };
        sealed::replace(
            &self.root.join("names"),
            &file_of(reference),
            &name,
            Outlives::PowerLoss,
        )
    }

    /// Forgets a name. Absent: nothing happens.
    pub fn remove_name(&self, reference: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join("names").join(file_of(reference))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what no name and no container needs. Only under both locks, alone.
    pub fn collect(&self, layers_in_use: &BTreeSet<String>) -> io::Result<()> {
        let mut layers: BTreeSet<String> = layers_in_use.iter().map(|it| file_of(it)).collect();
        let mut blobs = BTreeSet::new();
        for name in self.names()? {
            blobs.insert(file_of(&name.digest));
            if let Some(bytes) = self.blob(&name.digest)?
                && let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes)
            {
                blobs.insert(file_of(manifest.config().digest().as_ref()));
            }
            let stored = self.load(name)?;
            layers.extend(
                stored
                    .iter()
                    .flat_map(|it| &it.layers)
                    .map(|it| file_of(it)),
            );
        }
        retain(&self.root.join("blobs"), &blobs)?;
        retain(&self.root.join("layers"), &layers)?;
        retain(&self.root.join("unfinished"), &BTreeSet::new())
    }
}

fn retain(folder: &Path, names: &BTreeSet<String>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let item = item?;
        let keep = item
            .file_name()
            .to_str()
            .is_some_and(|it| names.contains(it));
        if keep {
            continue;
        }
        if item.file_type()?.is_dir() {
            fs::remove_dir_all(item.path())?;
        } else {
            fs::remove_file(item.path())?;
        }
    }
    Ok(())
}

/// A file name for a digest or a reference, whatever characters are in it. 128 bits of SHA-256:
/// short, because the paths of all layers of an image must fit into one mount call.
fn file_of(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn is_content_of(digest: &str, bytes: &[u8]) -> bool {
    let Ok(digest) = Digest::from_str(digest) else {
        return false;
    };
    let Ok(mut verifier) = Verifier::new("blob", &digest) else {
        return false;
    };
    verifier.update(bytes);
    verifier.finish().is_ok()
}
