//! Cost of the shell: what a cluster of real node processes spends while nothing happens, and while
//! much does.

use serde::{Deserialize, Serialize};

use crate::figures;
use crate::table::{Style, empty, number, right};

/// What all nodes of one role spend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleCost {
    /// How many there are.
    pub nodes: u32,
    /// Messages that they write to connections, per second, all together.
    pub messages_per_second: f64,
    /// Bytes that they write to connections, per second, all together; TLS included.
    pub bytes_per_second: f64,
    /// Processor seconds per second, all together.
    pub cpu_seconds_per_second: f64,
    /// Resident memory of the node in the middle.
    pub resident_bytes_median: u64,
    /// Resident memory of the largest.
    pub resident_bytes_max: u64,
    /// Memory of the node in the middle, with what several processes share divided among them.
    pub proportional_bytes_median: u64,
}

/// What one cluster spends under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShellRow {
    /// `idle` or `busy`.
    pub load: String,
    /// For how long it was measured.
    pub seconds: f64,
    /// Writes of clients that were acknowledged, per second.
    pub writes_per_second: f64,
    /// Changes of services that were acknowledged, per second.
    pub changes_per_second: f64,
    /// The managers.
    pub managers: RoleCost,
    /// The agents.
    pub agents: RoleCost,
}

/// The rows for a person.
pub fn render(rows: &[ShellRow], style: Style) -> String {
    let header = [
        "load",
        "nodes",
        "messages/s",
        "KiB/s",
        "CPU s/s",
        "resident",
        "largest",
        "PSS",
    ];
    let mut table = empty(style, &header);
    for row in rows {
        for (role, cost) in [("manager", &row.managers), ("agent", &row.agents)] {
            table.add_row(vec![
                row.load.clone().into(),
                right(figures::plural(cost.nodes as usize, role)),
                number(rounded(cost.messages_per_second)),
                number(rounded(cost.bytes_per_second / 1024.0)),
                right(format!("{:.2}", cost.cpu_seconds_per_second)),
                right(figures::mebibytes(cost.resident_bytes_median)),
                right(figures::mebibytes(cost.resident_bytes_max)),
                right(figures::mebibytes(cost.proportional_bytes_median)),
            ]);
        }
    }
    let busy = rows.iter().filter(|row| row.writes_per_second > 0.0);
    let lines = busy.map(|row| {
        format!(
            "{} with {}: {} writes/s and {:.1} changes of services/s were acknowledged\n",
            row.load,
            figures::plural(row.agents.nodes as usize, "agent"),
            figures::count(rounded(row.writes_per_second)),
            row.changes_per_second
        )
    });
    format!("{table}\n{}", lines.collect::<String>())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are no less than zero and far below 2^64; the cast saturates"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}
