//! Speed of the engine: how many events, and how much virtual time, a second of one core buys.

use serde::{Deserialize, Serialize};

use crate::figures;
use crate::table::{Style, empty, number, right};

/// One size of cluster in its steady state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// Managers.
    pub managers: u32,
    /// Agents.
    pub agents: u32,
    /// Events of the measured run.
    pub events: u64,
    /// Events per second of wall-clock time.
    pub events_per_second: u64,
    /// Virtual seconds per second of wall-clock time.
    pub virtual_seconds_per_second: f64,
    /// The process's largest resident set; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

/// The rows for a person.
pub fn render(rows: &[BenchRow], style: Style) -> String {
    let header = [
        "managers",
        "agents",
        "events",
        "events/s",
        "virtual seconds/s",
        "peak memory",
    ];
    let mut table = empty(style, &header);
    for row in rows {
        let memory = row
            .peak_rss_bytes
            .map_or_else(|| "unknown".to_owned(), figures::mebibytes);
        table.add_row(vec![
            number(u64::from(row.managers)),
            number(u64::from(row.agents)),
            number(row.events),
            number(row.events_per_second),
            right(format!("{:.1}", row.virtual_seconds_per_second)),
            right(memory),
        ]);
    }
    format!("{table}\n")
}
