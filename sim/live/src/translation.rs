//! The plan's words and the nodes': names of images, spans of time, and what asks a container for
//! its health. Nodes are told theirs; whatever they say is recorded in the plan's.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use wavetank_model::{Operation, ServiceSpec};
use wavetank_scenario::plan::{Health, Plan};

use crate::images::{LiveImages, health_command};
use crate::pace::Pace;

/// What is said in two ways.
#[derive(Debug)]
pub struct Translation {
    pace: Pace,
    images: Arc<LiveImages>,
    /// Images whose health is not that their process lives.
    probed: BTreeSet<String>,
}

impl Translation {
    /// Of a plan with these images.
    pub fn new(plan: &Plan, pace: Pace, images: Arc<LiveImages>) -> Self {
        let images_of_plan = plan.images.iter();
        let probed = images_of_plan.filter(|(_, image)| image.health != Health::Ok);
        Translation {
            pace,
            images,
            probed: probed.map(|(name, _)| name.clone()).collect(),
        }
    }

    /// An operation as the nodes are to carry it out.
    ///
    /// # Errors
    /// Never: an operation is plain data.
    pub fn operation(&self, planned: &Operation) -> serde_json::Result<Operation> {
        let mut operation = self.pace.operation(planned)?;
        if let Operation::Deploy { spec } = &mut operation {
            self.spec(spec);
        }
        Ok(operation)
    }

    fn spec(&self, spec: &mut ServiceSpec) {
        let is_probed = self.probed.contains(&spec.image.0);
        if let Some(health) = &mut spec.health
            && is_probed
            && health.command.is_empty()
        {
            health.command = health_command();
        }
        // An image that the plan lacks is one that no registry has under any name.
        if let Some(reference) = self.images.reference(&spec.image.0) {
            spec.image = reference;
        }
    }

    /// Puts what a node said into the plan's words.
    pub fn planned(&self, said: &mut Value) {
        self.pace.stretch(said);
        self.rename(said);
    }

    fn rename(&self, said: &mut Value) {
        match said {
            Value::String(text) => {
                if let Some(name) = self.images.name(text) {
                    *text = name.to_owned();
                }
            }
            Value::Array(items) if *items == health_command() => *said = json!([]),
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.rename(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
