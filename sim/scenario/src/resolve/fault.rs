//! `faults`: what goes wrong, before anything is drawn. When is read by `trigger`, where by
//! `target`, arguments by `action`.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::NodeId;

use super::World;
use super::action::fixed_action;
use super::target::{TargetDefinition, Targets};
use super::workload::Workload;
use crate::diagnostic::{Problem, Problems, Span};
use crate::faults::{self, FaultInfo};
use crate::format::VERBS;
use crate::kind;
use crate::plan::{Action, Direction, Point, Range};
use crate::yaml::Node;

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
    Fixed(Box<Action>),
    BitRot,
    Partition {
        shape: ShapeDefinition,
        direction: Direction,
    },
}

/// What a partition cuts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ShapeDefinition {
    /// The target from the rest.
    Isolate,
    /// The target from the other managers.
    FromManagers,
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
    At {
        at: Range,
        jitter: Duration,
    },
    Every {
        first: Range,
        every: Duration,
        jitter: Duration,
        until: Duration,
        times: u32,
    },
    After {
        fault: usize,
        delay: Duration,
    },
    On {
        event: String,
        condition: Option<String>,
        occurrence: u32,
        point: Point,
        delay: Duration,
        times: u32,
    },
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
    let mut reader = Reader {
        world,
        workload,
        problems,
        names: &names,
    };
    let read = items
        .iter()
        .enumerate()
        .map(|(index, item)| reader.fault(index, item));
    // A fault that cannot be read leaves a gap; `after` counts positions, so gaps must not close.
    // They never reach a plan: each has been reported as an error.
    read.flatten().collect()
}

/// The faults' names by position; a name that is taken is reported.
fn names(items: &[Node], problems: &mut Problems) -> Vec<String> {
    let mut taken: BTreeMap<String, Span> = BTreeMap::new();
    let mut names = Vec::new();
    for item in items {
        let name = item
            .word("name")
            .or(item.word("action"))
            .unwrap_or("fault")
            .to_owned();
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
                let around: Vec<&str> = path
                    .iter()
                    .chain([&index])
                    .map(|step| names[*step].as_str())
                    .collect();
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

/// Reads one fault after another.
pub(super) struct Reader<'a, 'w> {
    pub world: &'a World<'w>,
    pub workload: &'a Workload,
    pub problems: &'a mut Problems,
    /// The names of all faults, by position.
    pub names: &'a [String],
}

impl Reader<'_, '_> {
    fn fault(&mut self, index: usize, node: &Node) -> Option<FaultDefinition> {
        let trigger = self.trigger(node);
        let info = self.info(node.get("action")?)?;
        self.check_args(node, info);
        let args = node.get("args").unwrap_or(node);
        let shape = self.shape(args, info);
        let target = match (&shape, args.word("shape")) {
            (Some(ShapeDefinition::Groups(groups)), _) if node.get("target").is_none() => {
                let nodes = groups.iter().flatten().copied().collect();
                Some(TargetDefinition::Pool {
                    nodes,
                    mode: super::target::Mode::All,
                })
            }
            (Some(_), Some("leader")) if node.get("target").is_none() => {
                Some(TargetDefinition::Leader)
            }
            _ => {
                let (world, workload) = (self.world, self.workload);
                Targets {
                    world,
                    workload,
                    problems: self.problems,
                }
                .target(node, info)
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
                Problem::error(
                    "scenario::unknown-action",
                    node.span,
                    format!("there is no action `{name}`"),
                )
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
                self.problems.add(Problem::error(
                    "scenario::invalid-value",
                    args.span,
                    message,
                ));
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
                    .also(
                        node.entry("heal").map_or(node.span, |heal| heal.key_span),
                        "for ever",
                    ),
            );
        }
        !never
    }

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
                self.problems.add(
                    problem.help("for example `groups: [[manager-1], [manager-2, manager-3]]`"),
                );
                None
            }
            (Some(shape), Some(_)) => {
                let span = args
                    .entry("groups")
                    .map_or(args.span, |entry| entry.key_span);
                let message = format!("shape `{shape}` takes no `groups`");
                self.problems
                    .add(Problem::error("scenario::conflict", span, message));
                None
            }
            (None | Some("isolate" | "leader"), None) => Some(ShapeDefinition::Isolate),
            (Some("from-managers"), None) => Some(ShapeDefinition::FromManagers),
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
                let mut targets = Targets {
                    world,
                    workload,
                    problems: self.problems,
                };
                let Some(id) = targets.known_node(item) else {
                    continue;
                };
                if let Some(first) = seen.insert(id, item.span) {
                    self.problems.add(
                        Problem::error(
                            "scenario::conflict",
                            item.span,
                            format!("`{id}` is in two places"),
                        )
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
            self.problems.add(Problem::error(
                "scenario::invalid-value",
                node.span,
                message,
            ));
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
            ShapeDefinition::Isolate
            | ShapeDefinition::FromManagers
            | ShapeDefinition::Groups(_) => return,
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
            self.problems
                .add(Problem::error("scenario::invalid-target", span, message).label("too few"));
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
                Some(ActionDefinition::Partition {
                    shape: shape?,
                    direction,
                })
            }
            "bit-rot" => Some(ActionDefinition::BitRot),
            "operator" => {
                let mut services = Workload::default();
                services.adopt(self.workload);
                let operation = services.operation(args, self.world, self.problems)?;
                Some(ActionDefinition::Fixed(Box::new(Action::Operator {
                    operation,
                })))
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
            name => {
                let action = fixed_action(name, args)?;
                Some(ActionDefinition::Fixed(Box::new(action)))
            }
        }
    }
}
