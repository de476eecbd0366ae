//! When a fault strikes: `at`, `every`, `after`, `on` and what goes with them.

use std::time::Duration;

use wavetank_trace::view::EVENT_KINDS;

use super::fault::{OCCURRENCES_MAX, Reader, TriggerDefinition};
use crate::diagnostic::{Problem, hint};
use crate::expression::Expression;
use crate::plan::{Point, Range};
use crate::scalars;
use crate::yaml::{Entry, Node};

impl Reader<'_, '_> {
    /// Reads when a fault strikes.
    pub fn trigger(&mut self, node: &Node) -> Option<TriggerDefinition> {
        let kind = self.trigger_kind(node)?;
        self.check_trigger_fields(node, kind);
        let delay = node.duration("delay").unwrap_or_default();
        let jitter = node.duration("jitter").unwrap_or_default();
        match kind {
            "at" => {
                let at = node.range("at")?;
                Some(TriggerDefinition::At { at, jitter })
            }
            "every" => self.every(node, jitter),
            "after" => {
                let place = node.get("after")?;
                let fault = self.position(place)?;
                Some(TriggerDefinition::After { fault, delay })
            }
            _ => self.on(node),
        }
    }

    fn trigger_kind(&mut self, node: &Node) -> Option<&'static str> {
        let given: Vec<(&'static str, &Entry)> = ["every", "at", "after", "on"]
            .into_iter()
            .filter_map(|key| Some((key, node.entry(key)?)))
            .collect();
        match given.as_slice() {
            [] => {
                let message = "when does this fault strike?";
                self.problems.add(
                    Problem::error("scenario::missing-field", node.span, message)
                        .label("neither `at`, `every`, `after` nor `on`")
                        .help("for example `at: 30s`"),
                );
                None
            }
            [(kind, _)] | [(kind @ "every", _), ("at", _)] => Some(kind),
            [(_, first), .., (_, last)] => {
                let message = format!("`{}` and `{}` exclude each other", first.key, last.key);
                self.problems.add(
                    Problem::error("scenario::conflict", last.key_span, message)
                        .label("this time")
                        .also(first.key_span, "or that?"),
                );
                None
            }
        }
    }

    fn check_trigger_fields(&mut self, node: &Node, kind: &str) {
        let fields: [(&str, &[&str]); 4] = [
            ("jitter", &["at", "every"]),
            ("until", &["every"]),
            ("times", &["every", "on"]),
            ("delay", &["after"]),
        ];
        for (key, kinds) in fields {
            let Some(entry) = node.entry(key).filter(|_| !kinds.contains(&kind)) else {
                continue;
            };
            let message = format!("`{key}` means nothing with `{kind}`");
            let help = format!("it goes with `{}`", kinds.join("` and `"));
            self.problems.add(
                Problem::error("scenario::conflict", entry.key_span, message)
                    .label("has no effect")
                    .help(help),
            );
        }
    }

    fn every(&mut self, node: &Node, jitter: Duration) -> Option<TriggerDefinition> {
        let every = node.duration("every")?;
        let first = node.range("at").unwrap_or(Range {
            min: every,
            max: every,
        });
        let until = node.duration("until").unwrap_or(self.world.horizon);
        let place = node.get("every")?.span;
        if every.is_zero() {
            let message = "`every` is zero";
            self.problems
                .add(Problem::error("scenario::invalid-value", place, message));
            return None;
        }
        let room = until.saturating_sub(first.min).as_nanos() / every.as_nanos() + 1;
        let times = node.number::<u32>("times");
        let most = room.min(times.map_or(u128::MAX, u128::from));
        if most > OCCURRENCES_MAX {
            let message = format!("this fault would strike {most} times");
            self.problems.add(
                Problem::error("scenario::invalid-value", place, message)
                    .label(format!(
                        "every {} until {}",
                        scalars::show(every),
                        scalars::show(until)
                    ))
                    .help("use a longer interval, `until` or `times`"),
            );
            return None;
        }
        let times = times.unwrap_or(u32::MAX);
        Some(TriggerDefinition::Every {
            first,
            every,
            jitter,
            until,
            times,
        })
    }

    fn position(&mut self, place: &Node) -> Option<usize> {
        let name = place.text()?;
        let position = self.names.iter().position(|known| known == name);
        if position.is_none() {
            let names = self.names.iter().map(String::as_str);
            self.problems.add(
                Problem::error(
                    "scenario::unknown-fault",
                    place.span,
                    format!("there is no fault `{name}`"),
                )
                .label("unknown fault")
                .maybe_help(hint(name, "the faults are", names)),
            );
        }
        position
    }

    fn on(&mut self, node: &Node) -> Option<TriggerDefinition> {
        let on = node.get("on")?;
        let event = on.get("event")?;
        let name = event.text()?;
        let Some(kind) = EVENT_KINDS.iter().find(|kind| kind.name == name) else {
            let names = EVENT_KINDS.iter().map(|kind| kind.name);
            self.problems.add(
                Problem::error(
                    "scenario::unknown-event",
                    event.span,
                    format!("there is no event `{name}`"),
                )
                .label("unknown event")
                .maybe_help(hint(name, "the events are", names)),
            );
            return None;
        };
        let host = kind.fields.iter().any(|(field, _)| *field == "host");
        let wants_host = node.get("target").and_then(|target| target.word("role"));
        if !host && wants_host == Some("event-host") {
            let message = format!("event `{name}` happens on no node");
            self.problems
                .add(Problem::error("scenario::conflict", event.span, message));
        }
        let point = match on.word("point") {
            Some("before") => Point::Before,
            _ => Point::After,
        };
        if let (Point::Before, Some(entry)) = (point, on.entry("delay")) {
            let message = "a fault before an event cannot be delayed";
            self.problems.add(Problem::error(
                "scenario::conflict",
                entry.key_span,
                message,
            ));
        }
        let condition = on
            .get("where")
            .and_then(|place| self.condition(name, place));
        Some(TriggerDefinition::On {
            event: name.to_owned(),
            condition,
            occurrence: on.number("occurrence").unwrap_or(1),
            point,
            delay: on.duration("delay").unwrap_or_default(),
            times: node.number("times").unwrap_or(1),
        })
    }

    fn condition(&mut self, event: &str, place: &Node) -> Option<String> {
        let source = place.text()?;
        match Expression::compile_event(event, source) {
            Ok(expression) => {
                let known = self.workload.known(self.world);
                expression.report_doubts(place, &known, self.problems);
                Some(source.to_owned())
            }
            Err(error) => {
                self.problems.add(error.problem(place));
                None
            }
        }
    }
}
