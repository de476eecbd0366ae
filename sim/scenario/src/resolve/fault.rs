//! `faults` and `swarm`: what goes wrong, before anything is drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_port::ErrorClass;
use wavetank_trace::view::EVENT_KINDS;

use super::World;
use super::target::{TargetDefinition, Targets};
use super::workload::Workload;
use crate::diagnostic::{Problem, Problems, Span, hint};
use crate::expression::Expression;
use crate::faults::{self, FaultInfo};
use crate::format::VERBS;
use crate::kind;
use crate::plan::{Action, Direction, Point, Range};
use crate::scalars;
use crate::yaml::{Entry, Node};

/// Most occurrences that one fault, or the swarm, may have in a run.
pub(crate) const OCCURRENCES_MAX: u128 = 10_000;

/// One fault of the file.
#[derive(Clone, Debug)]
pub(crate) struct FaultDefinition {
    pub name: String,
    pub span: Span,
    pub info: &'static FaultInfo,
    pub action: ActionDefinition,
    pub target: TargetDefinition,
    pub trigger: TriggerDefinition,
    pub duration: Option<Range>,
    pub heals: bool,
    pub optional: bool,
}

/// What it does; actions with draws of their own are told apart.
#[derive(Clone, Debug)]
pub(crate) enum ActionDefinition {
    Fixed(Action),
    BitRot,
    Partition { shape: ShapeDefinition, direction: Direction },
}

/// What a partition cuts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ShapeDefinition {
    /// The target from the rest.
    Isolate,
    /// One node of the target from the rest.
    One,
    /// A drawn minority of the target from the rest.
    Minority,
    /// A drawn majority of the target from the rest.
    Majority,
    /// The target in two, in node order.
    Halves,
    /// The target in two, drawn.
    RandomHalves,
    /// The target in two, but for one node that reaches both.
    Bridge,
    /// Each node of the target hears a majority, and no two the same.
    MajoritiesRing,
    /// As the file says.
    Groups(Vec<Vec<NodeId>>),
}

/// When it strikes.
#[derive(Clone, Debug)]
pub(crate) enum TriggerDefinition {
    At { at: Range, jitter: Duration },
    Every { first: Range, every: Duration, jitter: Duration, until: Duration, times: u32 },
    After { fault: usize, delay: Duration },
    On { event: String, condition: Option<String>, occurrence: u32, point: Point, delay: Duration, times: u32 },
}

/// Faults that are drawn for each seed.
#[derive(Clone, Debug)]
pub(crate) struct SwarmDefinition {
    pub actions: Vec<&'static FaultInfo>,
    pub rate: (u32, Duration),
    pub duration: Range,
}

/// Reads all faults.
pub(crate) fn faults(
    node: Option<&Node>,
    world: &World<'_>,
    workload: &Workload,
    problems: &mut Problems,
) -> Vec<FaultDefinition> {
    let items = node.map(Node::items).unwrap_or_default();
    let names = names(items, problems);
    check_cycles(items, &names, problems);
    let mut reader = Reader { world, workload, problems, names: &names };
    let read = items.iter().enumerate().map(|(index, item)| reader.fault(index, item));
    // A fault that cannot be read leaves a gap; `after` counts positions, so gaps must not close.
    // They never reach a plan: each has been reported as an error.
    read.flatten().collect()
}

/// The faults' names by position; a name that is taken is reported.
fn names(items: &[Node], problems: &mut Problems) -> Vec<String> {
    let mut taken: BTreeMap<String, Span> = BTreeMap::new();
    let mut names = Vec::new();
    for item in items {
        let name = item.word("name").or(item.word("action")).unwrap_or("fault").to_owned();
        let span = item.get("name").or(item.get("action")).unwrap_or(item).span;
        if let Some(first) = taken.insert(name.clone(), span) {
            let message = format!("two faults are called `{name}`");
            let help = if item.get("name").is_some() {
                "rename one of them"
            } else {
                "a fault without `name` is called after its action: name one of them"
            };
            problems.add(
                Problem::error("scenario::duplicate-name", span, message)
                    .label("the second")
                    .also(first, "the first")
                    .help(help),
            );
        }
        names.push(name);
    }
    names
}

/// A fault that waits for itself, perhaps by way of others, never fires.
fn check_cycles(items: &[Node], names: &[String], problems: &mut Problems) {
    let next = |index: usize| {
        let after = items.get(index)?.word("after")?;
        names.iter().position(|name| name == after)
    };
    for (index, item) in items.iter().enumerate() {
        let mut path = vec![index];
        let mut at = index;
        while let Some(to) = next(at) {
            if to == index && path.iter().min() == Some(&index) {
                let around: Vec<&str> =
                    path.iter().chain([&index]).map(|step| names[*step].as_str()).collect();
                let span = item.get("after").unwrap_or(item).span;
                problems.add(
                    Problem::error("scenario::cycle", span, "this fault waits for itself")
                        .label(around.join(" after "))
                        .help("give one of them a time or an event"),
                );
            }
            if path.contains(&to) {
                break;
            }
            path.push(to);
            at = to;
        }
    }
}

struct Reader<'a, 'w> {
    world: &'a World<'w>,
    workload: &'a Workload,
    problems: &'a mut Problems,
    names: &'a [String],
}

impl Reader<'_, '_> {
    fn fault(&mut self, index: usize, node: &Node) -> Option<FaultDefinition> {
        let trigger = self.trigger(node);
        let info = self.info(node.get("action")?)?;
        self.check_args(node, info);
        let args = node.get("args").unwrap_or(node);
        let shape = self.shape(args, info);
        let whole = matches!(
            shape,
            Some(
                ShapeDefinition::Halves
                    | ShapeDefinition::RandomHalves
                    | ShapeDefinition::Bridge
                    | ShapeDefinition::MajoritiesRing
                    | ShapeDefinition::One
                    | ShapeDefinition::Minority
                    | ShapeDefinition::Majority
            )
        );
        let target = match (&shape, args.word("shape")) {
            (Some(ShapeDefinition::Groups(groups)), _) if node.get("target").is_none() => {
                let nodes = groups.iter().flatten().copied().collect();
                Some(TargetDefinition::Pool { nodes, mode: super::target::Mode::All })
            }
            (Some(_), Some("leader")) if node.get("target").is_none() => {
                Some(TargetDefinition::Leader)
            }
            _ => {
                let (world, workload) = (self.world, self.workload);
                Targets { world, workload, problems: self.problems }.target(node, info, whole)
            }
        };
        if let (Some(shape), Some(target)) = (&shape, &target) {
            self.check_shape(node, args, shape, target);
        }
        let action = self.action(args, info, shape);
        Some(FaultDefinition {
            name: self.names.get(index)?.clone(),
            span: node.span,
            info,
            action: action?,
            target: target?,
            trigger: trigger?,
            duration: node.range("for"),
            heals: self.heals(node),
            optional: node.flag("optional").unwrap_or(false),
        })
    }

    fn info(&mut self, node: &Node) -> Option<&'static FaultInfo> {
        let name = node.text()?;
        let info = faults::find(name);
        if info.is_none() {
            let near = crate::diagnostic::nearest(name, faults::names());
            let help = near.map_or_else(
                || "`wavetank faults` lists all actions".to_owned(),
                |near| format!("did you mean `{near}`? `wavetank faults` lists all actions"),
            );
            self.problems.add(
                Problem::error("scenario::unknown-action", node.span, format!("there is no action `{name}`"))
                    .label("unknown action")
                    .help(help),
            );
        }
        info
    }

    fn check_args(&mut self, node: &Node, info: &'static FaultInfo) {
        let what = format!("`{}`", info.action);
        match node.get("args") {
            Some(args) if info.action == "operator" => {
                kind::check(args, kind::Kind::Verb(&[], VERBS), self.problems);
            }
            Some(args) if !args.is_null() && args.text().is_none() && args.items().is_empty() => {
                kind::check_fields(args, &what, info.args, self.problems);
            }
            Some(args) => {
                let message = format!("expected a mapping of arguments, found {}", args.describe());
                self.problems.add(Problem::error("scenario::invalid-value", args.span, message));
            }
            None if info.action == "operator" => {
                let message = "`operator` needs `args`: what does the operator do?";
                self.problems.add(
                    Problem::error("scenario::missing-field", node.span, message)
                        .label("`args` is missing here")
                        .help("for example `args: { drain: agent-1 }`"),
                );
            }
            None => {
                for arg in info.args.iter().filter(|arg| arg.required) {
                    let message = format!("{what} needs the argument `{}`", arg.name);
                    self.problems.add(
                        Problem::error("scenario::missing-field", node.span, message)
                            .label("`args` is missing here")
                            .help(format!("`{}`: {}", arg.name, arg.meaning)),
                    );
                }
            }
        }
    }

    fn heals(&mut self, node: &Node) -> bool {
        let never = node.word("heal") == Some("never");
        if let (true, Some(duration)) = (never, node.entry("for")) {
            let message = "a fault that never heals has no `for`";
            self.problems.add(
                Problem::error("scenario::conflict", duration.key_span, message)
                    .label("how long")
                    .also(node.entry("heal").map_or(node.span, |heal| heal.key_span), "for ever"),
            );
        }
        !never
    }

    // What.

    fn shape(&mut self, args: &Node, info: &FaultInfo) -> Option<ShapeDefinition> {
        if info.action != "partition" {
            return None;
        }
        let groups = args.get("groups").map(|groups| self.groups(groups));
        match (args.word("shape"), groups) {
            (None | Some("groups"), Some(groups)) => Some(ShapeDefinition::Groups(groups)),
            (Some("groups"), None) => {
                let message = "shape `groups` needs `groups`";
                let problem = Problem::error("scenario::missing-field", args.span, message);
                self.problems
                    .add(problem.help("for example `groups: [[manager-1], [manager-2, manager-3]]`"));
                None
            }
            (Some(shape), Some(_)) => {
                let span = args.entry("groups").map_or(args.span, |entry| entry.key_span);
                let message = format!("shape `{shape}` takes no `groups`");
                self.problems.add(Problem::error("scenario::conflict", span, message));
                None
            }
            (None | Some("isolate" | "leader"), None) => Some(ShapeDefinition::Isolate),
            (Some("one"), None) => Some(ShapeDefinition::One),
            (Some("minority"), None) => Some(ShapeDefinition::Minority),
            (Some("majority"), None) => Some(ShapeDefinition::Majority),
            (Some("halves"), None) => Some(ShapeDefinition::Halves),
            (Some("random-halves"), None) => Some(ShapeDefinition::RandomHalves),
            (Some("bridge"), None) => Some(ShapeDefinition::Bridge),
            (Some("majorities-ring"), None) => Some(ShapeDefinition::MajoritiesRing),
            (Some(_), None) => None,
        }
    }

    fn groups(&mut self, node: &Node) -> Vec<Vec<NodeId>> {
        let mut seen: BTreeMap<NodeId, Span> = BTreeMap::new();
        let mut groups = Vec::new();
        for list in node.items() {
            let mut group = Vec::new();
            for item in list.one_or_many() {
                let (world, workload) = (self.world, self.workload);
                let mut targets = Targets { world, workload, problems: self.problems };
                let Some(id) = targets.known_node(item) else { continue };
                if let Some(first) = seen.insert(id, item.span) {
                    self.problems.add(
                        Problem::error("scenario::conflict", item.span, format!("`{id}` is in two places"))
                            .label("the second")
                            .also(first, "the first"),
                    );
                }
                group.push(id);
            }
            groups.push(group);
        }
        if groups.len() < 2 {
            let message = "a partition needs two groups or more";
            self.problems.add(Problem::error("scenario::invalid-value", node.span, message));
        }
        groups
    }

    /// Shapes that split the target must know it before the run, and it must be large enough.
    fn check_shape(
        &mut self,
        node: &Node,
        args: &Node,
        shape: &ShapeDefinition,
        target: &TargetDefinition,
    ) {
        let least = match shape {
            ShapeDefinition::Isolate | ShapeDefinition::Groups(_) => return,
            ShapeDefinition::One => 1,
            ShapeDefinition::Halves | ShapeDefinition::RandomHalves => 2,
            ShapeDefinition::Majority => 2,
            ShapeDefinition::Minority => 3,
            ShapeDefinition::Bridge | ShapeDefinition::MajoritiesRing => 3,
        };
        let name = args.word("shape").unwrap_or("isolate");
        let span = node.get("target").unwrap_or(node).span;
        let TargetDefinition::Pool { nodes, mode } = target else {
            let message = format!("shape `{name}` needs nodes that are known before the run");
            self.problems.add(
                Problem::error("scenario::invalid-target", span, message)
                    .label("known only in the run")
                    .help("use role manager, agent or node, or names"),
            );
            return;
        };
        let smallest = match mode {
            super::target::Mode::Random(_) => 1,
            mode => mode.most(nodes.len()),
        };
        if smallest < least {
            let message = format!("shape `{name}` needs {least} nodes, the target has {smallest}");
            self.problems.add(
                Problem::error("scenario::invalid-target", span, message).label("too few"),
            );
        }
    }

    fn action(
        &mut self,
        args: &Node,
        info: &FaultInfo,
        shape: Option<ShapeDefinition>,
    ) -> Option<ActionDefinition> {
        match info.action {
            "partition" => {
                let direction = match args.word("direction") {
                    Some("from") => Direction::From,
                    Some("to") => Direction::To,
                    _ => Direction::Both,
                };
                Some(ActionDefinition::Partition { shape: shape?, direction })
            }
            "bit-rot" => Some(ActionDefinition::BitRot),
            "operator" => {
                let mut services = Workload::default();
                services.adopt(self.workload);
                let operation = services.operation(args, self.world, self.problems)?;
                Some(ActionDefinition::Fixed(Action::Operator { operation }))
            }
            "registry-slow" | "link-bandwidth" if args.size("bytes_per_second") == Some(0) => {
                let span = args.get("bytes_per_second")?.span;
                let message = "a rate of zero is a stall";
                self.problems.add(
                    Problem::error("scenario::invalid-value", span, message)
                        .help("`registry-stall` and `link-hold` stop traffic"),
                );
                None
            }
            name => fixed_action(name, args).map(ActionDefinition::Fixed),
        }
    }

    // When.

    fn trigger(&mut self, node: &Node) -> Option<TriggerDefinition> {
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
            _ => self.on(node, delay),
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
            ("delay", &["after", "on"]),
        ];
        for (key, kinds) in fields {
            let Some(entry) = node.entry(key).filter(|_| !kinds.contains(&kind)) else { continue };
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
        let first = node.range("at").unwrap_or(Range { min: every, max: every });
        let until = node.duration("until").unwrap_or(self.world.horizon);
        let place = node.get("every")?.span;
        if every.is_zero() {
            let message = "`every` is zero";
            self.problems.add(Problem::error("scenario::invalid-value", place, message));
            return None;
        }
        let room = until.saturating_sub(first.min).as_nanos() / every.as_nanos() + 1;
        let times = node.number::<u32>("times");
        let most = room.min(times.map_or(u128::MAX, u128::from));
        if most > OCCURRENCES_MAX {
            let message = format!("this fault would strike {most} times");
            self.problems.add(
                Problem::error("scenario::invalid-value", place, message)
                    .label(format!("every {} until {}", scalars::show(every), scalars::show(until)))
                    .help("use a longer interval, `until` or `times`"),
            );
            return None;
        }
        let times = times.unwrap_or(u32::MAX);
        Some(TriggerDefinition::Every { first, every, jitter, until, times })
    }

    fn position(&mut self, place: &Node) -> Option<usize> {
        let name = place.text()?;
        let position = self.names.iter().position(|known| known == name);
        if position.is_none() {
            let names = self.names.iter().map(String::as_str);
            self.problems.add(
                Problem::error("scenario::unknown-fault", place.span, format!("there is no fault `{name}`"))
                    .label("unknown fault")
                    .maybe_help(hint(name, "the faults are", names)),
            );
        }
        position
    }

    fn on(&mut self, node: &Node, delay: Duration) -> Option<TriggerDefinition> {
        let on = node.get("on")?;
        let event = on.get("event")?;
        let name = event.text()?;
        let Some(kind) = EVENT_KINDS.iter().find(|kind| kind.name == name) else {
            let names = EVENT_KINDS.iter().map(|kind| kind.name);
            self.problems.add(
                Problem::error("scenario::unknown-event", event.span, format!("there is no event `{name}`"))
                    .label("unknown event")
                    .maybe_help(hint(name, "the events are", names)),
            );
            return None;
        };
        let host = kind.fields.iter().any(|(field, _)| *field == "host");
        let wants_host = node.get("target").and_then(|target| target.word("role"));
        if !host && wants_host == Some("event-host") {
            let message = format!("event `{name}` happens on no node");
            self.problems.add(Problem::error("scenario::conflict", event.span, message));
        }
        let point = match on.word("point") {
            Some("before") => Point::Before,
            _ => Point::After,
        };
        if let (Point::Before, Some(entry)) = (point, node.entry("delay")) {
            let message = "a fault before an event cannot be delayed";
            self.problems.add(Problem::error("scenario::conflict", entry.key_span, message));
        }
        let condition = on.get("where").and_then(|place| self.condition(name, place));
        Some(TriggerDefinition::On {
            event: name.to_owned(),
            condition,
            occurrence: on.number("occurrence").unwrap_or(1),
            point,
            delay,
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

/// An action whose arguments say everything. `None` if one is missing, which has been said.
pub(crate) fn fixed_action(name: &str, args: &Node) -> Option<Action> {
    let call = || args.word("call").map(str::to_owned);
    let event = || args.word("event").unwrap_or("exit").to_owned();
    let field = |key: &str| args.word(key).map(str::to_owned);
    let count = || args.number::<u32>("count");
    let one = || count().unwrap_or(1);
    let code = |default: i32| args.number("code").unwrap_or(default);
    let percent = || args.number::<u32>("percent");
    let by = || args.range("by");
    Some(match name {
        "process-exit" => Action::ProcessExit,
        "process-kill" => Action::ProcessKill,
        "power-loss" => Action::PowerLoss { torn: args.flag("torn").unwrap_or(false) },
        "wipe" => Action::Wipe,
        "pause" => Action::Pause,
        "slow-cpu" => Action::SlowCpu { factor: args.number("factor").unwrap_or(10) },
        "clock-jump" => Action::ClockJump { by_ns: scalars::signed_nanos(args.word("by")?).ok()? },
        "clock-drift" => Action::ClockDrift { ppm: args.number("ppm")? },
        "link-delay" => Action::LinkDelay { by: by()? },
        "link-loss" => Action::LinkLoss { percent: percent()? },
        "link-duplicate" => Action::LinkDuplicate { percent: percent()? },
        "link-reorder" => Action::LinkReorder { percent: percent()?, by: args.duration("by")? },
        "link-corrupt" => Action::LinkCorrupt { percent: percent()? },
        "link-bandwidth" => Action::LinkBandwidth { bytes_per_second: args.size("bytes_per_second")? },
        "link-hold" => Action::LinkHold,
        "disk-full" => Action::DiskFull,
        "disk-slow" => Action::DiskSlow { by: by()? },
        "disk-error" => Action::DiskError,
        "disk-lies" => Action::DiskLies,
        "registry-error" => {
            Action::RegistryError { class: registry_class(args.word("error")?)?, count: count() }
        }
        "registry-slow" => Action::RegistrySlow { bytes_per_second: args.size("bytes_per_second")? },
        "registry-stall" => {
            Action::RegistryStall { after_bytes: args.size("after_bytes").unwrap_or(0) }
        }
        "registry-truncate" => Action::RegistryTruncate { count: count() },
        "registry-wrong-digest" => Action::RegistryWrongDigest { count: count() },
        "registry-moved-tag" => Action::RegistryMovedTag,
        "runtime-error" => {
            let class = args.word("class").map_or(Some(ErrorClass::Unavailable), class_named)?;
            Action::RuntimeError { call: call(), class, count: count() }
        }
        "runtime-delay" => Action::RuntimeDelay { call: call(), by: by()? },
        "runtime-hang" => Action::RuntimeHang { call: call() },
        "runtime-lost-reply" => Action::RuntimeLostReply { call: call()?, count: one() },
        "runtime-event-drop" => Action::RuntimeEventDrop { event: event(), count: count() },
        "runtime-event-duplicate" => {
            Action::RuntimeEventDuplicate { event: event(), count: count() }
        }
        "runtime-event-delay" => {
            Action::RuntimeEventDelay { event: event(), by: by()?, count: count() }
        }
        "exit-before-start" => Action::ExitBeforeStart { count: one(), code: code(0) },
        "exit-code-lost" => Action::ExitCodeLost { count: one() },
        "exit-time-missing" => Action::ExitTimeMissing { count: one() },
        "kill-dead-errors" => Action::KillDeadErrors,
        "monitor-kill" => Action::MonitorKill,
        "daemon-restart" => {
            Action::DaemonRestart { keeps_state: args.flag("keeps_state").unwrap_or(true) }
        }
        "empty-listing" => Action::EmptyListing { count: count() },
        "orphan" => Action::Orphan,
        "task-exit" => Action::TaskExit { code: code(1) },
        "task-oom" => Action::TaskOom,
        "task-unhealthy" => Action::TaskUnhealthy,
        "membership" => Action::Membership { join: args.flag("join")? },
        "codec-retype" => Action::CodecRetype { message: field("message")?, field: field("field")? },
        "codec-rename" => Action::CodecRename { message: field("message")?, field: field("field")? },
        "codec-missing" => {
            Action::CodecMissing { message: field("message")?, field: field("field")? }
        }
        _ => return None,
    })
}

fn registry_class(error: &str) -> Option<ErrorClass> {
    Some(match error {
        "missing" => ErrorClass::NotFound,
        "unauthorised" => ErrorClass::Unauthenticated,
        "rate-limited" => ErrorClass::ResourceExhausted,
        "server-error" => ErrorClass::Unavailable,
        _ => return None,
    })
}

fn class_named(name: &str) -> Option<ErrorClass> {
    ErrorClass::ALL.into_iter().find(|class| class.name() == name)
}

/// Reads `swarm`.
pub(crate) fn swarm(
    node: Option<&Node>,
    world: &World<'_>,
    problems: &mut Problems,
) -> Option<SwarmDefinition> {
    let node = node?;
    let mut actions = Vec::new();
    for item in node.get("actions").map(Node::one_or_many).unwrap_or_default() {
        let Some(name) = item.text() else { continue };
        match faults::find(name) {
            Some(info) if info.swarm => actions.push(info),
            Some(_) => problems.add(
                Problem::error("scenario::invalid-value", item.span, format!("`{name}` cannot be drawn"))
                    .label("needs arguments that only a person can choose")
                    .help("give it an entry of its own under `faults`"),
            ),
            None => problems.add(
                Problem::error("scenario::unknown-action", item.span, format!("there is no action `{name}`"))
                    .label("unknown action")
                    .maybe_help(
                        crate::diagnostic::nearest(name, faults::names())
                            .map(|near| format!("did you mean `{near}`?")),
                    ),
            ),
        }
    }
    let rate = node.word("rate").and_then(|text| scalars::rate(text).ok());
    let rate = rate.unwrap_or((2, Duration::from_secs(60)));
    let most = world.horizon.as_nanos() * u128::from(rate.0) / rate.1.as_nanos().max(1);
    if most > OCCURRENCES_MAX {
        let span = node.get("rate").unwrap_or(node).span;
        problems.add(Problem::error(
            "scenario::invalid-value",
            span,
            format!("this would be {most} faults in a run"),
        ));
        return None;
    }
    let second = Duration::from_secs(1);
    let duration = node.range("for").unwrap_or(Range { min: second, max: second * 20 });
    (!actions.is_empty()).then_some(SwarmDefinition { actions, rate, duration })
}
