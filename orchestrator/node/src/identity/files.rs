//! Where a real node keeps its identity: two files in its state folder, readable by their owner
//! alone. Each is replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use pem::Pem;
use rustls::pki_types::CertificateDer;

use super::{Ca, Identity, IdentityError, PrivateKey};

/// Key, certificate and authority of the node.
const IDENTITY: &str = "identity.pem";
/// Certificate and key of the authority; on managers only.
const AUTHORITY: &str = "authority.pem";

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// Why identity files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed; what was there before is still there.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} should hold {wanted}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold, in this order.
        wanted: &'static str,
    },
    /// The parts do not make an identity.
    #[error("{} cannot be used", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
}

/// A node's state folder, as far as its identity is concerned.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder { path: path.into() }
    }

    /// The node's identity; nothing if it has none yet.
    pub fn identity(&self) -> Result<Option<Identity>, FileError> {
        let path = self.path.join(IDENTITY);
        let Some(parts) = read(&path)? else {
            return Ok(None);
        };
        let [key, certificate, authority] = tagged(
            &path,
            parts,
            [KEY, CERTIFICATE, CERTIFICATE],
            "a private key, the node's certificate and the authority's",
        )?;
        PrivateKey::from_pkcs8(key)
            .and_then(|key| Identity::new(key, certificate.into(), authority.into()))
            .map(Some)
            .map_err(|source| FileError::Identity { path, source })
    }

    /// Keeps an identity, in place of an older one.
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), FileError> {
        let parts = [
            (KEY, identity.key.pkcs8()),
            (CERTIFICATE, &identity.certificate),
            (CERTIFICATE, &identity.authority),
        ];
        self.replace(IDENTITY, &parts)
    }

    /// The cluster's authority; nothing if this node does not hold it.
    pub fn authority(&self) -> Result<Option<Ca>, FileError> {
        let path = self.path.join(AUTHORITY);
        let Some(parts) = read(&path)? else {
            return Ok(None);
        };
        let [certificate, key] = tagged(
            &path,
            parts,
            [CERTIFICATE, KEY],
            "the authority's certificate and private key",
        )?;
        PrivateKey::from_pkcs8(key)
            .and_then(|key| Ca::new(CertificateDer::from(certificate), key))
            .map(Some)
            .map_err(|source| FileError::Identity { path, source })
    }

    /// Keeps the authority.
    pub fn keep_authority(&self, authority: &Ca) -> Result<(), FileError> {
        let parts = [
            (CERTIFICATE, authority.certificate().as_ref()),
            (KEY, authority.key().pkcs8()),
        ];
        self.replace(AUTHORITY, &parts)
    }

    fn replace(&self, name: &str, parts: &[(&str, &[u8])]) -> Result<(), FileError> {
        let text: String = parts
            .iter()
            .map(|(tag, bytes)| pem::encode(&Pem::new(*tag, *bytes)))
            .collect();
        let path = self.path.join(name);
        write(&self.path, &path, text.as_bytes()).map_err(|source| FileError::Write {
            path: path.clone(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Option<Vec<Pem>>, FileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(FileError::Read { path, source });
        }
    };
    pem::parse_many(text)
        .map(Some)
        .map_err(|error| FileError::Read {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })
}

/// The parts of a file, if they are just those.
fn tagged<const N: usize>(
    path: &Path,
    parts: Vec<Pem>,
    tags: [&str; N],
    wanted: &'static str,
) -> Result<[Vec<u8>; N], FileError> {
    let wrong = || FileError::Content {
        path: path.to_owned(),
        wanted,
    };
    if !parts.iter().map(Pem::tag).eq(tags) {
        return Err(wrong());
    }
    let contents: Vec<Vec<u8>> = parts.into_iter().map(Pem::into_contents).collect();
    contents.try_into().map_err(|_| wrong())
}

/// Durable when it answers: the file before the rename, the name after it.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
