//! Which images can come to rest, by what the plan says of their behaviour.

use std::time::Duration;

use wavetank_model::{RestartCondition, ServiceMode, ServiceSpec};
use wavetank_scenario::plan::{Health, Image};

use crate::model::Model;

/// The plan's image of a spec: by its name, or by its name without registry and tag.
fn image_of<'a>(model: &'a Model, spec: &ServiceSpec) -> Option<&'a Image> {
    let reference = spec.image.0.as_str();
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let bare = last.split([':', '@']).next().unwrap_or(last);
    let images = &model.plan.images;
    images
        .get(reference)
        .or_else(|| images.get(last))
        .or_else(|| images.get(bare))
}

/// Can a service with this spec reach a state that lasts?
pub(super) fn comes_to_rest(model: &Model, spec: &ServiceSpec) -> bool {
    let Some(image) = image_of(model, spec) else {
        return false;
    };
    let limit = spec.resources.memory_bytes;
    let fits = limit == 0 || image.memory_bytes <= limit;
    image.exists && fits && gets_healthy(image, spec) && behaves(image, spec)
}

fn gets_healthy(image: &Image, spec: &ServiceSpec) -> bool {
    match (&spec.health, image.health) {
        (None, _) | (_, Health::Ok) => true,
        (Some(check), Health::After(delay)) => delay <= check.start_period,
        (Some(_), Health::Never) => false,
    }
}

fn behaves(image: &Image, spec: &ServiceSpec) -> bool {
    match spec.mode {
        ServiceMode::Job { .. } => {
            // A job that is started again after any end is a contradiction: nothing is owed.
            let gives_up = spec.restart.condition == RestartCondition::Never;
            let succeeds =
                image.exit_code == 0 && spec.restart.condition != RestartCondition::Always;
            image.run_for.is_some() && (gives_up || succeeds)
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => image.run_for.is_none(),
    }
}

/// The longest that a process of this spec runs by itself.
pub(super) fn run_for(model: &Model, spec: &ServiceSpec) -> Duration {
    let run_for = image_of(model, spec).and_then(|image| image.run_for);
    run_for.map_or(Duration::ZERO, |range| range.max)
}

/// The longest until a running process is seen to be ready.
pub(super) fn ready_after(model: &Model, spec: &ServiceSpec) -> Duration {
    let Some(check) = &spec.health else {
        return Duration::ZERO;
    };
    let delay = match image_of(model, spec).map(|image| image.health) {
        Some(Health::After(delay)) => delay,
        _ => Duration::ZERO,
    };
    delay + (check.interval + check.timeout) * 2
}
