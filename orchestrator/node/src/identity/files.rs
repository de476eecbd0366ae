//! Where a real node keeps its identity: two files in its state folder, readable by their owner
//! alone. Each is replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pem::Pem;
use rustls::pki_types::CertificateDer;

use super::{Ca, Identity, IdentityError, PrivateKey};
use crate::durable;

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
        let replaced = durable::replace(&self.path, name, text.as_bytes());
        replaced.map_err(|source| FileError::Write {
            path: self.path.join(name),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use wavetank_model::NodeId;

    use super::*;
    use crate::identity::LIFETIME;
    use crate::os::Os;
    use crate::platform::Platform as _;

    fn authority() -> Ca {
        let os = Os::new();
        Ca::create(PrivateKey::generate(&os), os.wall()).expect("an authority")
    }

    fn identity(authority: &Ca) -> Identity {
        let os = Os::new();
        let key = PrivateKey::generate(&os);
        let minted = authority.mint(NodeId::manager(1), key, os.wall(), LIFETIME);
        minted.expect("an identity")
    }

    #[test]
    fn what_is_kept_comes_back_and_is_its_owners_alone() -> Result<(), FileError> {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Folder::new(folder.path());
        assert!(kept.identity()?.is_none());
        assert!(kept.authority()?.is_none());
        let authority = authority();
        let (first, second) = (identity(&authority), identity(&authority));
        kept.keep_authority(&authority)?;
        kept.keep_identity(&first)?;
        kept.keep_identity(&second)?;
        let read = kept.identity()?.expect("it was kept");
        assert_eq!(read.node(), NodeId::manager(1));
        assert_eq!(read.certificate, second.certificate);
        assert_eq!(read.authority(), authority.certificate());
        let read = kept.authority()?.expect("it was kept");
        assert!(read.key() == authority.key());
        for file in fs::read_dir(folder.path()).expect("a folder") {
            let metadata = file.and_then(|file| file.metadata()).expect("a file");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        Ok(())
    }

    #[test]
    fn files_that_hold_something_else_are_named() -> Result<(), FileError> {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Folder::new(folder.path());
        let (ours, theirs) = (authority(), authority());
        kept.keep_identity(&identity(&ours))?;
        let path = folder.path().join(IDENTITY);
        let text = fs::read_to_string(&path).expect("a file");

        fs::write(&path, &text[..text.len() / 2]).expect("written");
        let error = kept.identity().expect_err("it is cut off");
        assert!(error.to_string().contains("identity.pem"), "{error}");

        let parts = read(&path)?.unwrap_or_default();
        assert!(parts.len() < 3);
        let key = pem::encode(&Pem::new(KEY, theirs.key().pkcs8()));
        let certificates = text
            .split_once("-----BEGIN CERTIFICATE")
            .expect("it has some")
            .1;
        let mixed = format!("{key}-----BEGIN CERTIFICATE{certificates}");
        fs::write(&path, mixed).expect("written");
        let error = kept.identity().expect_err("the key is another one");
        assert!(matches!(
            error,
            FileError::Identity {
                source: IdentityError::OtherKey { .. },
                ..
            }
        ));
        Ok(())
    }
}
