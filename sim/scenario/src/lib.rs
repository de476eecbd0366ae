//! Scenario files: from YAML to a [`plan::Plan`]. (contract stub)

pub mod plan;
