//! Who leads, as far as the world can see: the newest that says so.

use wavetank_model::{ConsensusRole, Epoch};

/// The leader by its place, and the epoch in which it said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    newest: Option<(Epoch, u32)>,
}

impl Leadership {
    /// Who leads.
    pub fn leader(self) -> Option<u32> {
        self.newest.map(|(_, place)| place)
    }

    /// A manager says what part it plays.
    pub fn follow(&mut self, place: u32, role: ConsensusRole, epoch: Epoch) {
        let newest = self.newest.is_none_or(|(newest, _)| epoch >= newest);
        let leads = role == ConsensusRole::Leader;
        if leads && newest {
            self.newest = Some((epoch, place));
        } else if !leads {
            self.forget(place);
        }
    }

    /// A manager's process is gone.
    pub fn forget(&mut self, place: u32) {
        if self.leader() == Some(place) {
            self.newest = None;
        }
    }
}
