//! A node's folder on disk, besides its identity and its journal.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use wavetank_model::{Incarnation, NodeRole};

use super::ServeError;
use crate::Journal;
use crate::durable;
use crate::identity::{Folder, Identity};
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::AddressBook;

/// Where managers are, as far as this node knows.
const MANAGERS: &str = "managers.json";
/// There from `init` until the first manager has a log: it may make a cluster of its own.
const FOUNDER: &str = "founder";
const JOURNAL: &str = "journal.redb";
/// What an operator of the new cluster needs.
const OPERATOR: &str = "operator";
/// In an operator's folder: where the API is, one address a line.
const API: &str = "api";

/// A node's folder.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
}

impl StateFolder {
    /// Makes the folder if it does not exist, for its owner's eyes only.
    pub fn create(path: &Path) -> Result<Self, ServeError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        made.map_err(|source| ServeError::Folder {
            path: path.to_owned(),
            source,
        })?;
        Ok(StateFolder {
            path: path.to_owned(),
        })
    }

    /// A folder that exists.
    pub fn at(path: &Path) -> Self {
        StateFolder {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity files.
    pub fn identity_files(&self) -> Folder {
        Folder::new(&self.path)
    }

    /// The folder of the cluster's first operator.
    pub fn operator(&self) -> Result<StateFolder, ServeError> {
        StateFolder::create(&self.path.join(OPERATOR))
    }

    /// Refuses a folder that somebody lives in.
    pub fn must_be_free(&self) -> Result<(), ServeError> {
        match self.identity_files().identity()? {
            None => Ok(()),
            Some(identity) => Err(ServeError::Taken {
                path: self.path.clone(),
                node: identity.node(),
            }),
        }
    }

    /// Whoever lives here, if it is one of this role.
    pub fn identity_of(&self, wanted: NodeRole) -> Result<Identity, ServeError> {
        let path = self.path.clone();
        match self.identity_files().identity()? {
            None => Err(ServeError::Empty { path }),
            Some(identity) if identity.node().role == wanted => Ok(identity),
            Some(identity) => Err(ServeError::Role {
                path,
                node: identity.node(),
                wanted,
            }),
        }
    }

    /// Opens the journal and counts this boot.
    pub fn journal(&self) -> Result<(Journal, Incarnation), ServeError> {
        let path = self.path.join(JOURNAL);
        let open = || {
            let mut journal = Journal::open(&path)?;
            let incarnation = journal.begin_boot(Os::new().wall())?;
            Ok((journal, incarnation))
        };
        open().map_err(|source| ServeError::Journal {
            path: path.clone(),
            source,
        })
    }

    /// Where managers were last heard of; nowhere if nobody said.
    pub fn managers(&self) -> Result<AddressBook, ServeError> {
        let path = self.path.join(MANAGERS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(AddressBook::default());
            }
            Err(source) => return Err(ServeError::Folder { path, source }),
        };
        serde_json::from_str(&text).map_err(|error| ServeError::Folder {
            path,
            source: error.into(),
        })
    }

    /// Keeps where managers are.
    pub fn keep_managers(&self, book: &AddressBook) -> Result<(), ServeError> {
        let text = serde_json::to_string(book).map_err(|error| ServeError::Folder {
            path: self.path.join(MANAGERS),
            source: error.into(),
        })?;
        self.replace(MANAGERS, &text)
    }

    /// Whether the node may begin a cluster of its own.
    pub fn is_founder(&self) -> bool {
        self.path.join(FOUNDER).exists()
    }

    /// Lets the node begin a cluster.
    pub fn allow_founding(&self) -> Result<(), ServeError> {
        self.replace(FOUNDER, "")
    }

    /// From now on the node has a cluster, whatever becomes of its log.
    pub fn forbid_founding(&self) -> Result<(), ServeError> {
        let path = self.path.join(FOUNDER);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServeError::Folder {
                path,
                source: error,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where the API is, for an operator's folder.
    pub fn api(&self) -> Result<Vec<String>, ServeError> {
        let path = self.path.join(API);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|source| ServeError::Folder { path, source })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// Keeps where the API is.
    pub fn keep_api(&self, addresses: &[String]) -> Result<(), ServeError> {
        self.replace(API, &(addresses.join("\n") + "\n"))
    }

    fn replace(&self, name: &str, text: &str) -> Result<(), ServeError> {
        let replaced = durable::replace(&self.path, name, text.as_bytes());
        replaced.map_err(|source| ServeError::Folder {
            path: self.path.join(name),
            source,
        })
    }
}
