//! How a pull goes: time, bytes and faults of the image registry.

use std::collections::BTreeMap;

use wavetank_port::{Credentials, ErrorClass, ImageReference, RuntimeError};
use wavetank_scenario::plan::Image;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Bytes a second that a healthy registry delivers to one pull: a 1 Gbit/s link.
const BYTES_PER_SECOND: u64 = 125_000_000;

/// How long it takes to ask for a manifest.
const MANIFEST_NS: u64 = 20_000_000;

/// What a rule does to a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEffect {
    /// Fails with this class.
    Error(ErrorClass),
    /// Runs at this many bytes a second.
    Slow(u64),
    /// Hangs after this many bytes.
    Stall(u64),
    /// Ends early.
    Truncate,
    /// Brings other bytes than promised.
    WrongDigest,
    /// The tag names other content.
    MovedTag,
}

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRule {
    /// The fault that made it.
    pub fault: u32,
    /// Images it applies to; empty for all.
    pub images: Vec<String>,
    /// What it does.
    pub effect: RegistryEffect,
    /// Pulls left; `None` for all.
    pub count: Option<u32>,
}

/// How one pull will go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// How long until the result (or until it hangs), in nanoseconds.
    pub duration_ns: u64,
    /// It then hangs until this fault heals.
    pub hangs: Option<u32>,
    /// The image's digest, or why there is none.
    pub result: Result<String, RuntimeError>,
    /// Faults that had a part in it.
    pub hit: Vec<u32>,
}

/// The registry that all machines pull from.
#[derive(Clone, Debug)]
pub struct Registry {
    images: BTreeMap<String, Image>,
    /// Further names of images.
    aliases: BTreeMap<String, String>,
    /// What private images ask for.
    credentials: BTreeMap<String, Credentials>,
    /// How often an image's content was fetched.
    fetched: BTreeMap<String, u64>,
    rules: Vec<RegistryRule>,
}

impl Registry {
    /// A healthy registry.
    pub fn new(images: BTreeMap<String, Image>) -> Self {
        Registry {
            images,
            aliases: BTreeMap::new(),
            credentials: BTreeMap::new(),
            fetched: BTreeMap::new(),
            rules: Vec::new(),
        }
    }

    /// An image goes by another name as well.
    pub fn add_alias(&mut self, alias: &ImageReference, image: &ImageReference) {
        self.aliases.insert(alias.0.clone(), image.0.clone());
    }

    /// An image is served only to those who know this.
    pub fn make_private(&mut self, image: &ImageReference, credentials: Credentials) {
        self.credentials.insert(image.0.clone(), credentials);
    }

    /// What an image is served for; `None` for a public one.
    pub fn credentials_of(&self, image: &ImageReference) -> Option<&Credentials> {
        self.credentials.get(self.canonical(image))
    }

    /// How often an image's content has been fetched.
    pub fn fetched(&self, image: &ImageReference) -> u64 {
        let count = self.fetched.get(self.canonical(image));
        count.copied().unwrap_or(0)
    }

    /// The digest of an image, as long as nothing is wrong with it.
    pub fn digest_of(&self, image: &ImageReference) -> String {
        digest(&ImageReference(self.canonical(image).to_owned()), 0)
    }

    fn canonical<'a>(&'a self, image: &'a ImageReference) -> &'a str {
        self.aliases.get(&image.0).unwrap_or(&image.0)
    }

    /// A rule comes into force.
    pub fn add_rule(&mut self, rule: RegistryRule) {
        self.rules.push(rule);
    }

    /// All rules of a fault are gone.
    pub fn remove_rules(&mut self, fault: u32) {
        self.rules.retain(|rule| rule.fault != fault);
    }

    /// How containers of an image behave.
    pub fn image(&self, reference: &ImageReference) -> Option<&Image> {
        self.images.get(self.canonical(reference))
    }

    /// As [`Registry::pull`], by any name; content that the caller has is not fetched again.
    pub fn pull_of(
        &mut self,
        reference: &ImageReference,
        unchanged: impl Fn(&str) -> bool,
    ) -> Pull {
        let canonical = ImageReference(self.canonical(reference).to_owned());
        let mut pull = self.pull(&canonical);
        if pull.result.as_deref().is_ok_and(unchanged) {
            pull.duration_ns = MANIFEST_NS;
            pull.hangs = None;
        } else if !is_refused(&pull) {
            *self.fetched.entry(canonical.0).or_default() += 1;
        }
        pull
    }

    /// Decides how a pull that starts now will go.
    pub fn pull(&mut self, reference: &ImageReference) -> Pull {
        let Some(image) = self.images.get(&reference.0).filter(|image| image.exists) else {
            return Pull {
                duration_ns: MANIFEST_NS,
                hangs: None,
                result: Err(RuntimeError::new(
                    ErrorClass::NotFound,
                    format!("manifest for {reference} not found"),
                )),
                hit: Vec::new(),
            };
        };
        let bytes = image.pull_bytes;
        let mut pull = Pull {
            duration_ns: transfer_ns(bytes, BYTES_PER_SECOND),
            hangs: None,
            result: Ok(digest(reference, 0)),
            hit: Vec::new(),
        };
        for rule in &mut self.rules {
            let applies = rule.images.is_empty() || rule.images.contains(&reference.0);
            if !applies || rule.count == Some(0) {
                continue;
            }
            if let Some(count) = &mut rule.count {
                *count -= 1;
            }
            pull.meet(rule, reference, bytes);
        }
        pull
    }
}

impl Pull {
    fn meet(&mut self, rule: &RegistryRule, reference: &ImageReference, bytes: u64) {
        self.hit.push(rule.fault);
        match rule.effect {
            RegistryEffect::Error(class) => {
                self.duration_ns = 10_000_000;
                let words = match class {
                    ErrorClass::NotFound => "manifest unknown",
                    ErrorClass::Unauthenticated => "401 unauthorized",
                    ErrorClass::ResourceExhausted => "429 too many requests",
                    ErrorClass::Unavailable => "503 service unavailable",
                    _ => "registry error",
                };
                self.result = Err(RuntimeError::new(
                    class,
                    format!("pull {reference}: {words}"),
                ));
            }
            RegistryEffect::Slow(rate) => self.duration_ns = transfer_ns(bytes, rate),
            RegistryEffect::Stall(after) => {
                self.duration_ns = transfer_ns(after.min(bytes), BYTES_PER_SECOND);
                self.hangs = Some(rule.fault);
            }
            RegistryEffect::Truncate => self.fail("unexpected end of layer", reference),
            RegistryEffect::WrongDigest => self.fail("layer digest mismatch", reference),
            RegistryEffect::MovedTag => {
                if self.result.is_ok() {
                    self.result = Ok(digest(reference, 1));
                }
            }
        }
    }

    fn fail(&mut self, words: &str, reference: &ImageReference) {
        let message = format!("pull {reference}: {words}");
        self.result = Err(RuntimeError::new(ErrorClass::Unknown, message));
    }
}

/// True if a pull ends before any content is asked for.
fn is_refused(pull: &Pull) -> bool {
    let refused = |error: &RuntimeError| error.class != ErrorClass::Unknown;
    pull.result.as_ref().is_err_and(refused)
}

/// Time for `bytes` at `rate` bytes a second, in nanoseconds.
fn transfer_ns(bytes: u64, rate: u64) -> u64 {
    let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// A stand-in digest that has a real one's form and depends on the name and the content version.
fn digest(reference: &ImageReference, version: u64) -> String {
    let half = |seed| xxh3_128_with_seed(reference.0.as_bytes(), seed);
    format!(
        "sha256:{:032x}{:032x}",
        half(version),
        half(version + 1_000)
    )
}
