//! What a plan's images are in real life: images of the test program, served by the run's own
//! registry. Each behaves as the plan says, by itself: nobody has to steer its containers.
//!
//! Map: this file (names, what is published), `behaviour` (from the plan's words to the program's
//! steps), `faults` (from a plan's registry faults to rules of the registry).
//!
//! # Sizes
//! A layer has [`LAYER_BYTES_MAX`] at most, whatever the plan says: five debug builds that fetch
//! and unpack 40 MiB at once on one machine take longer than the link the plan stands for. Rates
//! and offsets of faults are scaled by the same share, so that a pull takes as long as planned.
//! The smallest image is the test program itself, of 1 to 2 MiB.

mod behaviour;
mod faults;

use std::collections::BTreeMap;

use bytes::Bytes;
use wavetank_fixtures::image::{Entry, Image, ImageParts, Layer};
use wavetank_fixtures::test_image::{base_layer, incompressible, test_program};
use wavetank_fixtures::{NoTestProgram, Registry};
use wavetank_port::ImageReference;
use wavetank_scenario::plan;

pub use behaviour::{behaviour, health_command, healthy_command, set_health, unhealthy_command};
pub use faults::{NotServed, RegistryFault};

/// The largest layer that is served, in bytes.
pub const LAYER_BYTES_MAX: u64 = 8 << 20;
/// All repositories begin so.
const REPOSITORIES: &str = "live";
/// The only tag of each repository.
const TAG: &str = "latest";

/// Why a plan's images cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is none that registries know.
    #[error(
        "image `{0}`: no registry knows such a name; use lower-case letters, digits, `.`, `-`, \
         `_`, `/`, and one `:` before a tag"
    )]
    Name(String),
    /// A digest cannot be chosen.
    #[error("image `{0}`: a digest says what is in an image, which the plan does not; use a tag")]
    Digest(String),
    /// Two names would be one.
    #[error("images `{0}` and `{1}` would be one repository; rename one")]
    Taken(String, String),
    /// A process cannot do that.
    #[error("image `{image}`: {code} is no exit code of a process; use 0 to 255")]
    ExitCode {
        /// Which image.
        image: String,
        /// What it should exit with.
        code: i32,
    },
    /// This build has nothing to put into images.
    #[error(transparent)]
    Program(#[from] NoTestProgram),
}

/// A plan's images, published in a registry.
#[derive(Debug)]
pub struct LiveImages {
    host: String,
    speed: u32,
    by_name: BTreeMap<String, Published>,
}

#[derive(Debug)]
struct Published {
    plan: plan::Image,
    repository: String,
    command: Vec<String>,
    /// The layer as it is served, in bytes.
    layer_bytes: u64,
}

impl LiveImages {
    /// Makes the images and publishes them, for a run whose times are divided by `speed`. The
    /// registry must already listen at the address by which runtimes reach it.
    pub fn publish(
        images: &BTreeMap<String, plan::Image>,
        speed: u32,
        registry: &Registry,
    ) -> Result<Self, ImageError> {
        let program = test_program()?;
        let mut live = LiveImages {
            host: registry.host(),
            speed: speed.max(1),
            by_name: BTreeMap::new(),
        };
        for (name, image) in images {
            let published = live.publish_one(name, image, program, registry)?;
            live.by_name.insert(name.clone(), published);
        }
        Ok(live)
    }

    fn publish_one(
        &self,
        name: &str,
        image: &plan::Image,
        program: &'static [u8],
        registry: &Registry,
    ) -> Result<Published, ImageError> {
        let repository = repository(name)?;
        let same = self
            .by_name
            .iter()
            .find(|(_, it)| it.repository == repository);
        if let Some((other, _)) = same {
            return Err(ImageError::Taken(other.clone(), name.to_owned()));
        }
        let command = behaviour(name, image, self.speed)?.command();
        let built = build(name, &command, image.pull_bytes, program);
        let layer_bytes = built.layers.iter().map(|it| it.bytes.len() as u64).sum();
        if image.exists {
            registry.publish(&repository, &[TAG], &built);
        }
        Ok(Published {
            plan: image.clone(),
            repository,
            command,
            layer_bytes,
        })
    }

    /// What runtimes call the plan's image of this name; `None` if the plan has none.
    pub fn reference(&self, name: &str) -> Option<ImageReference> {
        let published = self.by_name.get(name)?;
        Some(self.reference_of(&published.repository))
    }

    /// The plan's name of an image that a runtime or a node speaks of, by tag or by digest; `None`
    /// if it is none of the plan's.
    pub fn name(&self, reference: &str) -> Option<&str> {
        let rest = reference.strip_prefix(&self.host)?.strip_prefix('/')?;
        let repository = rest.split(['@', ':']).next()?;
        let mut images = self.by_name.iter();
        images
            .find(|(_, it)| it.repository == repository)
            .map(|(name, _)| name.as_str())
    }

    fn reference_of(&self, repository: &str) -> ImageReference {
        ImageReference(format!("{}/{repository}:{TAG}", self.host))
    }
}

impl Published {
    /// A number of bytes of the planned image, in those of the served one.
    fn scaled(&self, bytes: u64) -> u64 {
        let (planned, served) = (self.plan.pull_bytes.max(1), self.layer_bytes);
        let scaled = u128::from(bytes) * u128::from(served) / u128::from(planned);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// The same behaviour with other content.
    fn moved(&self, program: &'static [u8]) -> Image {
        let name = format!("{} moved", self.repository);
        build(&name, &self.command, self.plan.pull_bytes, program)
    }
}

/// One layer, so that a pull is one request for a manifest, one for a configuration and one for a
/// layer, and faults can be counted in pulls.
fn build(name: &str, command: &[String], pull_bytes: u64, program: &'static [u8]) -> Image {
    let mut layer: Layer = base_layer(name, program);
    let wanted = usize::try_from(pull_bytes.min(LAYER_BYTES_MAX)).unwrap_or(usize::MAX);
    let filling = Bytes::from(incompressible(wanted.saturating_sub(program.len())));
    layer.insert("usr/filling".to_owned(), Entry::File(0o644, filling));
    Image::build(&ImageParts {
        layers: vec![layer],
        command: command.to_vec(),
        environment: vec!["PATH=/bin".to_owned()],
        stop_signal: None,
    })
}

/// The repository that an image has to itself, so that a fault of one image is none of another:
/// `web` is `live/web`, `web:1` is `live/web/1`.
fn repository(name: &str) -> Result<String, ImageError> {
    if name.contains('@') {
        return Err(ImageError::Digest(name.to_owned()));
    }
    let path = name.replacen(':', "/", 1);
    match path.split('/').all(is_component) {
        true => Ok(format!("{REPOSITORIES}/{path}")),
        false => Err(ImageError::Name(name.to_owned())),
    }
}

/// A path component of the OCI distribution specification 1.0: words of lower-case letters and
/// digits, with single separators between them.
fn is_component(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
    };
    text.split(['.', '_', '-']).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wavetank_fixtures::registry::Authentication;

    pub(super) async fn registry() -> Registry {
        let address = ([127, 0, 0, 1], 0).into();
        let registry = Registry::start(address, Authentication::Basic).await;
        registry.expect("a free port of the loopback")
    }

    pub(super) fn image(pull_bytes: u64) -> plan::Image {
        plan::Image {
            run_for: None,
            exit_code: 0,
            on_term: plan::OnTerm::Ignores,
            health: plan::Health::Ok,
            pull_bytes,
            exists: true,
            memory_bytes: 0,
        }
    }

    pub(super) fn images<const N: usize>(
        images: [(&str, plan::Image); N],
    ) -> BTreeMap<String, plan::Image> {
        images.map(|(name, image)| (name.to_owned(), image)).into()
    }

    #[tokio::test]
    async fn names_are_found_again_by_tag_and_by_digest() {
        let registry = registry().await;
        let names = ["web", "web:1", "team/job-2:v1.0"];
        let plan = images(names.map(|name| (name, image(1))));
        let live = LiveImages::publish(&plan, 10, &registry).unwrap();
        for name in names {
            let reference = live.reference(name).unwrap().0;
            assert_eq!(live.name(&reference), Some(name));
            let tagless = reference.strip_suffix(":latest").unwrap();
            assert_eq!(live.name(&format!("{tagless}@sha256:0")), Some(name));
        }
        let host = registry.host();
        assert_eq!(
            live.reference("web:1").unwrap().0,
            format!("{host}/live/web/1:latest")
        );
        assert_eq!(live.reference("other"), None);
        for foreign in [
            "web",
            "docker.io/live/web:latest",
            &format!("{host}/live/we:latest"),
        ] {
            assert_eq!(live.name(foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn what_no_registry_can_have_is_refused_by_name() {
        let registry = registry().await;
        let refused = |names: &[&str]| {
            let plan = names.iter().map(|name| ((*name).to_owned(), image(1)));
            let published = LiveImages::publish(&plan.collect(), 1, &registry);
            published
                .map(drop)
                .map_err(|error| error.to_string())
                .unwrap_err()
        };
        for name in [
            "", "Web", "web:", ":1", "a//b", "web:1:2", "a..b", "-a", "ä",
        ] {
            assert!(
                refused(&[name]).contains(&format!("image `{name}`")),
                "{name}"
            );
        }
        assert!(refused(&["web@sha256:0"]).contains("use a tag"));
        assert!(refused(&["web/1", "web:1"]).contains("`web/1` and `web:1`"));
    }

    #[tokio::test]
    async fn layers_are_as_large_as_planned_up_to_a_limit() {
        let registry = registry().await;
        let (large, huge) = (4 << 20, 40 << 20);
        let plan = images([
            ("large", image(large)),
            ("huge", image(huge)),
            ("none", image(0)),
        ]);
        let live = LiveImages::publish(&plan, 1, &registry).unwrap();
        let slack = 64 << 10;
        let of = |name: &str| &live.by_name[name];
        let is_about = |bytes: u64, wanted: u64| bytes.abs_diff(wanted) < slack;
        assert!(is_about(of("large").layer_bytes, large));
        assert!(is_about(of("huge").layer_bytes, LAYER_BYTES_MAX));
        assert!(is_about(of("huge").scaled(huge / 2), LAYER_BYTES_MAX / 2));
        let program = test_program().unwrap().len() as u64;
        assert!(is_about(of("none").layer_bytes, program));
    }

    #[tokio::test]
    async fn an_image_that_does_not_exist_has_a_name_and_no_content() {
        let registry = registry().await;
        let absent = plan::Image {
            exists: false,
            ..image(1)
        };
        let live = LiveImages::publish(&images([("ghost", absent)]), 1, &registry).unwrap();
        assert!(live.reference("ghost").is_some());
        assert_eq!(registry.reference_by_digest("live/ghost", TAG), None);
    }
}
