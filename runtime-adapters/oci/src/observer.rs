//! A look at a root from outside: what its containers are, and what happens to them. It reads
//! only, so it may look at a root that somebody else works on, or that nobody does.
//!
//! An adapter that looks brings a container to rest: it records an end that nobody else has, and
//! gives a living container a monitor. An observer leaves all as it is: a container whose end
//! nobody has recorded is shown as it was last.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wavetank_port::{ContainerId, ContainerState, EventCursor, EventStream};

use crate::deadline::{Result, blocking, unknown, within};
use crate::events::Subscription;
use crate::journal::Journal;
use crate::record::is_valid_id;
use crate::view::View;

/// Watches the containers of one root.
#[derive(Clone, Debug)]
pub struct Observer {
    root: PathBuf,
}

impl Observer {
    /// Of the root at this path, which need not be there yet.
    pub fn of(root: &Path) -> Self {
        Observer {
            root: root.to_owned(),
        }
    }

    /// All containers, in id order. An error where there is no root: then nothing is known.
    pub async fn list(&self, limit: Duration) -> Result<Vec<ContainerState>> {
        let containers = self.root.join("containers");
        within(limit, "list", blocking(move || list(&containers))).await
    }

    /// As the port's `events`. An error where there is no root.
    pub async fn events(
        &self,
        since: Option<&EventCursor>,
        limit: Duration,
    ) -> Result<Box<dyn EventStream>> {
        let (folder, since) = (self.root.join("events"), since.cloned());
        let open = async {
            // Opening it would make it.
            fs::metadata(&folder).map_err(|error| unknown(&error))?;
            let journal = Journal::open(&folder).map_err(|error| unknown(&error))?;
            Subscription::open(journal, since).await
        };
        Ok(Box::new(within(limit, "events", open).await?))
    }
}

fn list(containers: &Path) -> Result<Vec<ContainerState>> {
    let mut states = Vec::new();
    for item in fs::read_dir(containers).map_err(|error| unknown(&error))? {
        let name = item.map_err(|error| unknown(&error))?.file_name();
        let id = name.to_str().map(|name| ContainerId(name.to_owned()));
        let Some(id) = id.filter(is_valid_id) else {
            continue;
        };
        if let Some(view) = View::look(containers, &id)? {
            states.push(view.state()?);
        }
    }
    states.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(states)
}
