//! What is wrong with the links of a run, from all rules in force.

use wavetank_engine::roster::Roster;
use wavetank_model::NodeId;
use wavetank_world::{LinkEffect, LinkRule};

use crate::room::NetworkState;
use crate::scene::{Scene, SceneError};

impl Scene {
    /// Makes the network what the rules say.
    pub async fn set_network(&self, rules: &[LinkRule], roster: Roster) -> Result<(), SceneError> {
        let mut state = NetworkState::default();
        let places = || (0..).zip(roster.nodes());
        for rule in rules {
            for (from, source) in places() {
                let others = places().filter(|(to, _)| *to != from);
                let met = others.filter(|(to, _)| rule.selection.matches(from, *to));
                let met: Vec<NodeId> = met.map(|(_, id)| id).collect();
                self.meet(&mut state, &rule.effect, source, &met, roster);
            }
        }
        Ok(self.room.set_network(state).await?)
    }

    /// What a rule does to packets from one host to those for which it holds.
    fn meet(
        &self,
        state: &mut NetworkState,
        effect: &LinkEffect,
        source: NodeId,
        sinks: &[NodeId],
        roster: Roster,
    ) {
        let name = source.to_string();
        // Rules about loss, delay and rate are about hosts: all that they send and get.
        let is_all = sinks.len() + 1 == roster.nodes().count();
        match effect {
            // What is held waits in the sender's queue, as what is lost does, until it gets
            // through.
            LinkEffect::Cut | LinkEffect::Hold => {
                let cuts = sinks.iter().map(|sink| (name.clone(), sink.to_string()));
                state.cuts.extend(cuts);
            }
            LinkEffect::Loss(percent) if is_all => {
                let percent = u8::try_from(*percent).unwrap_or(100).min(100);
                state.loss_percent.insert(name, percent);
            }
            LinkEffect::Delay(by) if is_all => {
                state.delay.insert(name, self.pace.real(by.max));
            }
            LinkEffect::Bandwidth(rate) if is_all => {
                let real = rate.saturating_mul(u64::from(self.pace.speed));
                state.bytes_per_second_max.insert(name, real);
            }
            _ => {}
        }
    }
}
