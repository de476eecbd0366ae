//! What the stage asks of whoever simulates machines and links.

use wavetank_scenario::plan::Action;

use crate::links::Links;

/// A simulator, between two moments of the run. Hosts go by their places.
pub trait Simulator {
    /// Why it cannot do what an action says; `None` if it can.
    fn unable(&self, action: &Action) -> Option<&'static str>;

    /// A machine's process starts.
    fn start(&mut self, place: u32);

    /// A machine's process ends, and its connections with it.
    fn stop(&mut self, place: u32);

    /// A machine stands still.
    fn pause(&mut self, place: u32);

    /// A machine goes on where it was.
    fn resume(&mut self, place: u32);

    /// Links are like this from now on.
    fn set_links(&mut self, links: &Links);

    /// Something was handed to a machine from outside.
    fn nudge(&mut self, place: u32) {
        let _ = place;
    }
}
