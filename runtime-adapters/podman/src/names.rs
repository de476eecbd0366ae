//! How ids of the port become names in Podman, and back.

use std::collections::BTreeMap;

use wavetank_port::{ContainerId, ErrorClass};

use crate::config::Namespace;
use crate::error::{Error, Result};

/// Marks what belongs to a namespace, so that the service itself can select it.
pub(crate) const NAMESPACE_LABEL: &str = "wavetank.podman.namespace";

/// The longest id, in bytes: what containerd allows, so that an id is good everywhere.
const ID_BYTES_MAX: usize = 76;

/// The name of a container in Podman: `<namespace>.<id>`. The dot keeps it from ever being taken
/// for the beginning of one of Podman's own ids, which are hexadecimal.
pub(crate) fn container_name(namespace: &Namespace, id: &ContainerId) -> Result<String> {
    check("container id", &id.0)?;
    Ok(format!("{}.{}", namespace.as_str(), id.0))
}

/// The name of a volume in Podman.
pub(crate) fn volume_name(namespace: &Namespace, volume: &str) -> Result<String> {
    check("volume name", volume)?;
    Ok(format!("{}.{volume}", namespace.as_str()))
}

/// The id in a name that [`container_name`] made; `None` for a foreign name.
pub(crate) fn id_in(namespace: &Namespace, name: &str) -> Option<ContainerId> {
    let id = name.strip_prefix(namespace.as_str())?.strip_prefix('.')?;
    check("container id", id).ok()?;
    Some(ContainerId(id.to_owned()))
}

/// A container's labels as Podman keeps them.
pub(crate) fn labels_with_namespace(
    namespace: &Namespace,
    labels: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    if labels.contains_key(NAMESPACE_LABEL) {
        let message = format!("the label {NAMESPACE_LABEL} is the adapter's own");
        return Err(Error::ours(ErrorClass::InvalidArgument, message));
    }
    let mut all = labels.clone();
    all.insert(NAMESPACE_LABEL.to_owned(), namespace.as_str().to_owned());
    Ok(all)
}

/// What Podman and containerd both take: letters, digits, `_`, `.`, `-`, the first one a letter
/// or digit.
fn check(what: &str, text: &str) -> Result<()> {
    let fits = (1..=ID_BYTES_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it));
    if fits {
        return Ok(());
    }
    let shown: String = text.chars().take(ID_BYTES_MAX).collect();
    let message = format!(
        "`{shown}` is no {what}: 1 to {ID_BYTES_MAX} of a-z, A-Z, 0-9, `_`, `.` and `-`, \
         beginning with a letter or digit"
    );
    Err(Error::ours(ErrorClass::InvalidArgument, message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use wavetank_port::{ContainerId, ErrorClass};

    use super::{NAMESPACE_LABEL, container_name, id_in, labels_with_namespace};
    use crate::config::Namespace;

    fn namespace(name: &str) -> Namespace {
        name.parse().expect("a namespace")
    }

    #[test]
    fn namespaces_do_not_overlap() {
        let name = container_name(&namespace("a"), &ContainerId("b.c".to_owned()));
        let name = name.expect("a name");
        assert_eq!(
            id_in(&namespace("a"), &name),
            Some(ContainerId("b.c".to_owned()))
        );
        assert_eq!(id_in(&namespace("a-b"), &name), None);
        assert_eq!(id_in(&namespace("b"), &name), None);
        assert_eq!(id_in(&namespace("a"), "pensive_spence"), None);
    }

    #[test]
    fn the_namespace_cannot_be_forged_by_a_label() {
        let forged = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), "other".to_owned())]);
        let error = labels_with_namespace(&namespace("a"), &forged).expect_err("forged");
        assert_eq!(error.class(), ErrorClass::InvalidArgument);
    }

    proptest! {
        #[test]
        fn every_name_gives_its_id_back(id: String) {
            let id = ContainerId(id);
            match container_name(&namespace("n"), &id) {
                Ok(name) => prop_assert_eq!(id_in(&namespace("n"), &name), Some(id)),
                Err(error) => prop_assert_eq!(error.class(), ErrorClass::InvalidArgument),
            }
        }
    }
}
