//! A plan's registry faults, as rules of the registry that serves the plan's images.
//!
//! # What a pull is
//! One request for a manifest. Each image has one layer, so faults of content are counted by
//! requests for layers. Podman asks again by itself, up to three times, when a layer ends early:
//! there one pull may use up several counts, and succeed in the end. That is what really happens,
//! and the registry counts what it did.

use wavetank_fixtures::registry::{Fault, RequestKind};
use wavetank_fixtures::test_image::test_program;
use wavetank_fixtures::{NoTestProgram, Registry, Rule, RuleId};
use wavetank_port::ErrorClass;
use wavetank_scenario::plan::Action;

use super::{LiveImages, Published};

/// Why a registry fault cannot be done for real.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// It is another kind of fault.
    #[error("`{0}` is no fault of a registry")]
    OtherAction(&'static str),
    /// Registries have no such answer.
    #[error("no answer of a registry means `{0}`")]
    Class(ErrorClass),
    /// There is nothing that could fail.
    #[error("no image of the plan is served under these names: {0:?}")]
    Images(Vec<String>),
    /// There is no other content that a tag could point to.
    #[error(transparent)]
    Program(#[from] NoTestProgram),
}

/// A fault in force. Heal it, or it stays.
#[derive(Debug)]
#[must_use = "only this can heal it"]
pub struct RegistryFault {
    rules: Vec<RuleId>,
}

impl RegistryFault {
    /// How many requests have met it so far.
    pub fn hits(&self, registry: &Registry) -> u64 {
        let rules = self.rules.iter();
        rules.filter_map(|rule| registry.fired(*rule)).sum()
    }

    /// Takes it back; pulls that stand still go on. Says how many requests have met it.
    pub fn heal(self, registry: &Registry) -> u64 {
        let rules = self.rules.iter();
        rules.filter_map(|rule| registry.remove_rule(*rule)).sum()
    }
}

impl LiveImages {
    /// Puts a plan's registry fault into force for these images of the plan, or for all if none
    /// is named.
    pub fn strike(
        &self,
        registry: &Registry,
        action: &Action,
        images: &[String],
    ) -> Result<RegistryFault, NotServed> {
        let targets = self.targets(images)?;
        let rules = match action {
            Action::RegistryError { class, count } => {
                let rule = counted(refusal(*class)?, *count).only(RequestKind::Manifest);
                vec![add_to_all(registry, &targets, rule)]
            }
            Action::RegistryTruncate { count } => {
                let least = targets.iter().map(|it| it.layer_bytes).min().unwrap_or(0);
                let fault = Fault::TruncateAfter(least / 2);
                vec![add_to_all(registry, &targets, counted(fault, *count))]
            }
            Action::RegistryWrongDigest { count } => {
                let rule = counted(Fault::WrongDigest, *count);
                vec![add_to_all(registry, &targets, rule)]
            }
            Action::RegistrySlow { bytes_per_second } => {
                let real = bytes_per_second.saturating_mul(self.speed.into());
                add_each(registry, &targets, |it| {
                    Fault::SlowRate(it.scaled(real).max(1))
                })
            }
            Action::RegistryStall { after_bytes } => add_each(registry, &targets, |it| {
                // At the end at the latest: a pull that stalls must not succeed.
                let last = it.layer_bytes.saturating_sub(1);
                Fault::StallAfter(it.scaled(*after_bytes).min(last))
            }),
            Action::RegistryMovedTag => self.move_tags(registry, &targets)?,
            other => return Err(NotServed::OtherAction(other.name())),
        };
        Ok(RegistryFault { rules })
    }

    fn targets(&self, images: &[String]) -> Result<Vec<&Published>, NotServed> {
        let wanted = |name: &String| images.is_empty() || images.contains(name);
        let served = self
            .by_name
            .iter()
            .filter(|(name, it)| wanted(name) && it.plan.exists);
        let targets: Vec<&Published> = served.map(|(_, published)| published).collect();
        match targets.is_empty() {
            true => Err(NotServed::Images(images.to_vec())),
            false => Ok(targets),
        }
    }

    /// The other content goes into each repository under its digest alone.
    fn move_tags(
        &self,
        registry: &Registry,
        targets: &[&Published],
    ) -> Result<Vec<RuleId>, NotServed> {
        let program = test_program()?;
        Ok(add_each(registry, targets, |it| {
            let moved = it.moved(program);
            registry.publish(&it.repository, &[], &moved);
            Fault::MovedTag(moved.manifest.digest)
        }))
    }
}

fn counted(fault: Fault, count: Option<u32>) -> Rule {
    Rule {
        times: count.map(u64::from),
        ..Rule::always(fault)
    }
}

/// One rule, so that its count is that of all images together.
fn add_to_all(registry: &Registry, targets: &[&Published], rule: Rule) -> RuleId {
    let repositories: Vec<&str> = targets.iter().map(|it| it.repository.as_str()).collect();
    registry.add_rule_to(&repositories, rule)
}

fn add_each(
    registry: &Registry,
    targets: &[&Published],
    fault: impl Fn(&Published) -> Fault,
) -> Vec<RuleId> {
    let targets = targets.iter();
    let add = |it: &&Published| registry.add_rule(&it.repository, Rule::always(fault(it)));
    targets.map(add).collect()
}

/// How a registry says this class.
fn refusal(class: ErrorClass) -> Result<Fault, NotServed> {
    Ok(match class {
        ErrorClass::NotFound => Fault::Missing,
        ErrorClass::Unauthenticated => Fault::Unauthorized,
        // Podman waits by itself: for as long as it is told to, and for a minute if it is not.
        ErrorClass::ResourceExhausted => Fault::TooManyRequests {
            retry_after_seconds: Some(1),
        },
        ErrorClass::Unavailable => Fault::Status(503),
        other => return Err(NotServed::Class(other)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::super::tests::{image, images, registry};
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    /// Short enough to wait for in vain.
    const SHORT: Duration = Duration::from_millis(300);

    async fn bed() -> (Registry, LiveImages) {
        let registry = registry().await;
        let ghost = wavetank_scenario::plan::Image {
            exists: false,
            ..image(1)
        };
        let plan = images([
            ("job", image(4 << 20)),
            ("web", image(40 << 20)),
            ("ghost", ghost),
        ]);
        let live = LiveImages::publish(&plan, 10, &registry).unwrap();
        (registry, live)
    }

    async fn connect(registry: &Registry, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(registry.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn get(registry: &Registry, path: &str) -> (String, Vec<u8>) {
        let mut stream = connect(registry, path).await;
        let mut bytes = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut bytes)).await;
        read.expect("the connection ends").unwrap();
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        (head, bytes.split_off(end))
    }

    async fn manifest(registry: &Registry, image: &str) -> String {
        let (head, _) = get(registry, &format!("/v2/live/{image}/manifests/latest")).await;
        head[9..12].to_owned()
    }

    async fn layer_path(registry: &Registry, image: &str) -> String {
        let (_, body) = get(registry, &format!("/v2/live/{image}/manifests/latest")).await;
        let manifest: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        format!(
            "/v2/live/{image}/blobs/{}",
            layers[0]["digest"].as_str().unwrap()
        )
    }

    #[tokio::test]
    async fn an_error_is_met_by_so_many_pulls_of_all_images_together() {
        let (registry, live) = bed().await;
        let class = ErrorClass::Unavailable;
        let count = Some(2);
        let fault = live.strike(&registry, &Action::RegistryError { class, count }, &[]);
        let fault = fault.unwrap();
        let mut statuses = Vec::new();
        for image in ["web", "job", "web", "job"] {
            statuses.push(manifest(&registry, image).await);
        }
        assert_eq!(statuses, ["503", "503", "200", "200"]);
        assert_eq!(fault.hits(&registry), 2);
        assert_eq!(fault.heal(&registry), 2);
    }

    #[tokio::test]
    async fn classes_have_their_statuses_until_healed_and_other_images_are_served() {
        let (registry, live) = bed().await;
        let cases = [
            (ErrorClass::NotFound, "404"),
            (ErrorClass::Unauthenticated, "401"),
            (ErrorClass::ResourceExhausted, "429"),
            (ErrorClass::Unavailable, "503"),
        ];
        for (class, status) in cases {
            let action = Action::RegistryError { class, count: None };
            let fault = live
                .strike(&registry, &action, &["web".to_owned()])
                .unwrap();
            assert_eq!(manifest(&registry, "web").await, status);
            assert_eq!(manifest(&registry, "job").await, "200");
            assert_eq!(fault.heal(&registry), 1);
            assert_eq!(manifest(&registry, "web").await, "200");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_served_says_why() {
        let (registry, live) = bed().await;
        let refused = |action: &Action, images: &[String]| {
            let struck = live.strike(&registry, action, images);
            struck.map(drop).unwrap_err().to_string()
        };
        let class = ErrorClass::FailedPrecondition;
        let impossible = Action::RegistryError { class, count: None };
        assert!(refused(&impossible, &[]).contains("failed-precondition"));
        assert!(refused(&Action::ProcessKill, &[]).contains("process-kill"));
        for absent in ["ghost", "other"] {
            let images = [absent.to_owned()];
            assert!(refused(&Action::RegistryMovedTag, &images).contains(absent));
        }
    }

    #[tokio::test]
    async fn content_is_cut_or_damaged_as_often_as_planned() {
        let (registry, live) = bed().await;
        let path = layer_path(&registry, "job").await;
        let (_, right) = get(&registry, &path).await;
        let count = Some(1);
        let cut = live
            .strike(&registry, &Action::RegistryTruncate { count }, &[])
            .unwrap();
        let wrong = live.strike(&registry, &Action::RegistryWrongDigest { count: None }, &[]);
        let (_, first) = get(&registry, &path).await;
        assert_eq!(first.len(), right.len() / 2);
        let (_, second) = get(&registry, &path).await;
        let differ = right.iter().zip(&second).filter(|(a, b)| a != b).count();
        assert_eq!((second.len(), differ), (right.len(), 1));
        // Of two rules that match, one request is met by the older alone.
        assert_eq!(
            (cut.heal(&registry), wrong.unwrap().heal(&registry)),
            (1, 1)
        );
        assert!(get(&registry, &path).await.1 == right);
    }

    #[tokio::test]
    async fn a_stalled_pull_stops_at_the_planned_share_and_goes_on_when_healed() {
        let (registry, live) = bed().await;
        let path = layer_path(&registry, "web").await;
        let whole = get(&registry, &path).await.1.len();
        let after_bytes = 10 << 20;
        let stall = Action::RegistryStall { after_bytes };
        let fault = live.strike(&registry, &stall, &[]).unwrap();
        let mut stream = connect(&registry, &path).await;
        let mut bytes = Vec::new();
        while timeout(SHORT, stream.read_buf(&mut bytes)).await.is_ok() {}
        // A quarter of the planned 40 MiB is a quarter of what is served.
        assert!(
            bytes.len().abs_diff(whole / 4) < 1024,
            "{} of {whole}",
            bytes.len()
        );
        fault.heal(&registry);
        let read = timeout(LONG, stream.read_to_end(&mut bytes)).await;
        read.expect("the connection ends").unwrap();
        assert!(bytes.len() > whole);
        let beyond = Action::RegistryStall {
            after_bytes: u64::MAX,
        };
        let fault = live.strike(&registry, &beyond, &[]).unwrap();
        let mut stream = connect(&registry, &path).await;
        let end = timeout(SHORT * 5, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_err(), "a stalled pull ended");
        fault.heal(&registry);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_pull_takes_its_planned_time_divided_by_the_speed() {
        let (registry, live) = bed().await;
        let path = layer_path(&registry, "web").await;
        let bytes_per_second = 4 << 20;
        let slow = Action::RegistrySlow { bytes_per_second };
        let fault = live.strike(&registry, &slow, &[]).unwrap();
        let start = tokio::time::Instant::now();
        let mut stream = connect(&registry, &path).await;
        // No timeout: this clock jumps ahead whenever everybody waits.
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        // 40 MiB at 4 MiB a second are 10 s, and a second of real time at ten times the speed.
        let took = start.elapsed();
        assert!(
            took.abs_diff(Duration::from_secs(1)) < Duration::from_millis(200),
            "{took:?}"
        );
        fault.heal(&registry);
    }

    #[tokio::test]
    async fn a_moved_tag_names_other_content_while_in_force() {
        let (registry, live) = bed().await;
        let usual = layer_path(&registry, "web").await;
        let fault = live
            .strike(&registry, &Action::RegistryMovedTag, &[])
            .unwrap();
        let moved = layer_path(&registry, "web").await;
        assert_ne!(moved, usual);
        assert!(get(&registry, &moved).await.0.starts_with("HTTP/1.1 200"));
        fault.heal(&registry);
        assert_eq!(layer_path(&registry, "web").await, usual);
    }
}
