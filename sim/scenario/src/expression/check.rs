//! Types of expressions: finds unknown names, wrong types and values that no field ever has. Says
//! nothing of what is true; `evaluate` does.

use cel::IdedExpr;
use cel::Program;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, SelectExpr};
use wavetank_trace::view::EVENT_KINDS;

use super::types::{Type, field_type, literal_type, record_named, text_of};
use super::vocabulary::{FUNCTIONS, FieldType, Form, RecordType, VOCABULARY};
use super::{Named, Remark, Report, Scope};
use crate::diagnostic::{hint, nearest};

/// Checks a program for its scope.
pub(super) fn check(program: &Program, source: &str, scope: Scope) -> Result<Report, Remark> {
    let mut checker = Checker {
        program,
        source: source.chars().collect(),
        scope,
        bound: Vec::new(),
        doubts: Vec::new(),
        names: Vec::new(),
    };
    let root = program.expression();
    let result = checker.visit(root)?;
    if !result.is_bool() {
        let message = format!("this is {}, not true or false", result.name());
        let help = Some("compare it with something: `... == 4`".to_owned());
        return Err(Remark {
            message,
            place: None,
            help,
        });
    }
    Ok(Report {
        doubts: checker.doubts,
        names: checker.names,
    })
}

struct Checker<'p> {
    program: &'p Program,
    source: Vec<char>,
    scope: Scope,
    /// Variables of the macros around, innermost last.
    bound: Vec<(String, Type)>,
    doubts: Vec<Remark>,
    names: Vec<Named>,
}

impl Checker<'_> {
    fn visit(&mut self, node: &IdedExpr) -> Result<Type, Remark> {
        Ok(match &node.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => self.variable(node, name)?,
            Expr::Select(select) => self.select(node, select)?,
            Expr::Call(call) => self.call(node, call)?,
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
            Expr::List(list) => {
                let mut element = Type::Any;
                for item in &list.elements {
                    element = self.visit(item)?;
                }
                Type::List(Box::new(element))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key)?;
                        self.visit(&entry.value)?;
                    }
                }
                Type::Map(Box::new(Type::Any))
            }
            Expr::Struct(_) | Expr::Unspecified => {
                return Err(self.error(node, "there is no such type", None));
            }
        })
    }

    fn error(&self, node: &IdedExpr, message: impl Into<String>, help: Option<String>) -> Remark {
        Remark {
            message: message.into(),
            place: self.place(node),
            help,
        }
    }

    /// First character of a node's own token and how many it has.
    fn place(&self, node: &IdedExpr) -> Option<(usize, usize)> {
        let (start, stop) = self.program.source_info().offset_for(node.id)?;
        let (start, stop) = (usize::try_from(start).ok()?, usize::try_from(stop).ok()?);
        Some((start, stop.saturating_sub(start) + 1))
    }

    /// An error about a name that stands right before or after a node's token: a call's token is
    /// its parenthesis, a field's its dot.
    fn name_error(
        &self,
        node: &IdedExpr,
        name: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Remark {
        let length = name.chars().count();
        let is_name = |first: &usize| {
            let found = self.source.get(*first..*first + length);
            found.is_some_and(|found| found.iter().copied().eq(name.chars()))
        };
        let place = self.place(node).map(|(at, count)| {
            let beside = [Some(at), Some(at + 1), at.checked_sub(length)];
            beside
                .into_iter()
                .flatten()
                .find(is_name)
                .map_or((at, count), |at| (at, length))
        });
        Remark {
            message: message.into(),
            place,
            help,
        }
    }

    fn variable(&mut self, node: &IdedExpr, name: &str) -> Result<Type, Remark> {
        if let Some((_, known)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Ok(known.clone());
        }
        if let Scope::Event(kind) = self.scope {
            let fields = EVENT_KINDS[kind].fields;
            return match fields.iter().find(|(field, _)| *field == name) {
                Some((field, of)) => Ok(field_type("event", field, FieldType::named(of))),
                None => {
                    let event = EVENT_KINDS[kind].name;
                    let message = format!("event `{event}` has no field `{name}`");
                    let names = fields.iter().map(|(field, _)| *field);
                    Err(self.error(node, message, hint(name, "its fields are", names)))
                }
            };
        }
        let terms = VOCABULARY.iter().filter(|term| term.form != Form::Lookup);
        match terms.clone().find(|term| term.name == name) {
            Some(term) if term.moment && self.scope == Scope::Eventually => {
                let message = format!("`{name}` is known only in `never`");
                let help = format!("say it of all: `{name}s.exists(x, ...)`");
                Err(self.error(node, message, (name != "event").then_some(help)))
            }
            Some(term) => Ok(match term.form {
                Form::List => Type::List(Box::new(Type::Record(term.record.name))),
                Form::Map => Type::Map(Box::new(Type::Record(term.record.name))),
                Form::Record | Form::Lookup => Type::Record(term.record.name),
            }),
            None => {
                let eventually = self.scope == Scope::Eventually;
                let names = terms.filter(|term| !(eventually && term.moment));
                let names: Vec<&str> = names.map(|term| term.name).collect();
                let lookup = VOCABULARY
                    .iter()
                    .any(|term| term.form == Form::Lookup && term.name == name)
                    .then(|| format!("it is a function: `{name}(\"...\")`"));
                let help = lookup.or_else(|| hint(name, "the variables are", names));
                Err(self.error(node, format!("there is no variable `{name}`"), help))
            }
        }
    }

    fn select(&mut self, node: &IdedExpr, select: &SelectExpr) -> Result<Type, Remark> {
        let operand = self.visit(&select.operand)?;
        let found = match &operand {
            Type::Record(name) => self.field(node, name, &select.field)?,
            Type::Map(value) => (**value).clone(),
            Type::Any => Type::Any,
            other => {
                let message = format!("{} has no field `{}`", other.name(), select.field);
                let help = matches!(other, Type::List(_))
                    .then(|| format!("say it of each: `.exists(x, x.{})`", select.field));
                return Err(self.name_error(node, &select.field, message, help));
            }
        };
        Ok(if select.test { Type::Bool } else { found })
    }

    fn field(&self, node: &IdedExpr, record: &'static str, field: &str) -> Result<Type, Remark> {
        let fields = record_named(record).map_or(&[][..], |record| record.fields);
        match fields.iter().find(|fact| fact.name == field) {
            Some(fact) => Ok(field_type(record, fact.name, fact.kind)),
            None => {
                let names = fields.iter().map(|fact| fact.name);
                let help = hint(field, "its fields are", names);
                let message = format!("a {record} has no field `{field}`");
                Err(self.name_error(node, field, message, help))
            }
        }
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Type, Remark> {
        if let Some(target) = &call.target {
            return self.method(node, call, target);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, args) => {
                for arg in args {
                    self.truth(arg)?;
                }
                Ok(Type::Bool)
            }
            (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [arg]) => {
                self.truth(arg)?;
                Ok(Type::Bool)
            }
            (op::CONDITIONAL, [condition, yes, no]) => {
                self.truth(condition)?;
                self.visit(yes)?;
                self.visit(no)
            }
            (op::EQUALS | op::NOT_EQUALS, [left, right]) => self.equality(node, left, right),
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right]) => {
                self.order(node, left, right)
            }
            (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [left, right]) => {
                self.arithmetic(node, &call.func_name, left, right)
            }
            (op::NEGATE, [arg]) => self.number(arg),
            (op::IN, [item, list]) => self.membership(node, item, list),
            (op::INDEX, [operand, key]) => self.index(node, operand, key),
            (name, args) => self.function(node, name, args),
        }
    }

    fn truth(&mut self, node: &IdedExpr) -> Result<(), Remark> {
        let found = self.visit(node)?;
        if found.is_bool() {
            return Ok(());
        }
        let message = format!("this is {}, not true or false", found.name());
        Err(self.error(node, message, Some("compare it with something".to_owned())))
    }

    fn number(&mut self, node: &IdedExpr) -> Result<Type, Remark> {
        let found = self.visit(node)?;
        if found.is_number() {
            return Ok(found);
        }
        Err(self.error(
            node,
            format!("this is {}, not a number", found.name()),
            None,
        ))
    }

    fn equality(
        &mut self,
        node: &IdedExpr,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Type, Remark> {
        let (a, b) = (self.visit(left)?, self.visit(right)?);
        if !a.comparable(&b) {
            let message = format!("{} is compared with {}", a.name(), b.name());
            return Err(self.error(node, message, Some("they are never equal".to_owned())));
        }
        self.doubt_value(&a, right);
        self.doubt_value(&b, left);
        Ok(Type::Bool)
    }

    /// A text that is none of the values that the other side can have.
    fn doubt_value(&mut self, values: &Type, node: &IdedExpr) {
        let Type::Text(Some(values)) = values else {
            return;
        };
        let Some(text) = text_of(node) else { return };
        if values.contains(&text) {
            return;
        }
        let near = nearest(text, values.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the values are: {}", crate::diagnostic::listed(values)),
        };
        let message = format!("no value is ever `{text}`");
        self.doubts.push(Remark {
            message,
            place: self.place(node),
            help: Some(help),
        });
    }

    fn order(
        &mut self,
        node: &IdedExpr,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Type, Remark> {
        let (a, b) = (self.visit(left)?, self.visit(right)?);
        if (a.is_number() && b.is_number()) || (a.is_text() && b.is_text()) {
            return Ok(Type::Bool);
        }
        let message = format!("{} is compared with {}", a.name(), b.name());
        Err(self.error(
            node,
            message,
            Some("compare numbers with numbers".to_owned()),
        ))
    }

    fn arithmetic(
        &mut self,
        node: &IdedExpr,
        operator: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Type, Remark> {
        let (a, b) = (self.visit(left)?, self.visit(right)?);
        match (&a, &b) {
            _ if a.is_number() && b.is_number() => Ok(a),
            _ if operator == op::ADD && a.is_text() && b.is_text() => Ok(Type::Text(None)),
            // Macros build their results by adding lists.
            (Type::List(_), Type::List(item)) if operator == op::ADD => {
                Ok(Type::List(item.clone()))
            }
            _ => {
                let message = format!("{} and {} cannot be combined", a.name(), b.name());
                Err(self.error(node, message, None))
            }
        }
    }

    fn membership(
        &mut self,
        node: &IdedExpr,
        item: &IdedExpr,
        list: &IdedExpr,
    ) -> Result<Type, Remark> {
        let found = self.visit(item)?;
        match self.visit(list)? {
            Type::List(element) if element.comparable(&found) => {
                if let Expr::List(list) = &list.expr {
                    list.elements
                        .iter()
                        .for_each(|element| self.doubt_value(&found, element));
                }
                Ok(Type::Bool)
            }
            Type::Map(_) if found.is_text() => Ok(Type::Bool),
            Type::Any => Ok(Type::Bool),
            other => {
                let message = format!("{} cannot be in {}", found.name(), other.name());
                Err(self.error(node, message, None))
            }
        }
    }

    fn index(
        &mut self,
        node: &IdedExpr,
        operand: &IdedExpr,
        key: &IdedExpr,
    ) -> Result<Type, Remark> {
        let (of, by) = (self.visit(operand)?, self.visit(key)?);
        match of {
            Type::List(element) if by.is_number() => Ok(*element),
            Type::Map(value) if by.is_text() => Ok(*value),
            Type::Record(record) => match text_of(key) {
                Some(field) => self.field(key, record, field),
                None => Ok(Type::Any),
            },
            Type::Any => Ok(Type::Any),
            other => {
                let message = format!("{} has no element for {}", other.name(), by.name());
                Err(self.error(node, message, None))
            }
        }
    }

    fn function(&mut self, node: &IdedExpr, name: &str, args: &[IdedExpr]) -> Result<Type, Remark> {
        let cluster = !matches!(self.scope, Scope::Event(_));
        let lookups = VOCABULARY
            .iter()
            .filter(|term| cluster && term.form == Form::Lookup);
        if let Some(term) = lookups.clone().find(|term| term.name == name) {
            return self.lookup(node, term.name, term.record, args);
        }
        let types = args
            .iter()
            .map(|arg| self.visit(arg))
            .collect::<Result<Vec<_>, _>>()?;
        match (name, types.as_slice()) {
            ("size", [Type::List(_) | Type::Map(_) | Type::Text(_) | Type::Any])
            | ("int", [Type::Int | Type::Double | Type::Text(_) | Type::Any]) => Ok(Type::Int),
            ("string", [_]) => Ok(Type::Text(None)),
            ("size" | "int" | "string", _) => Err(self.unfit(node, name)),
            _ => {
                let known = FUNCTIONS.iter().map(|function| function.name);
                let known: Vec<&str> = known.chain(lookups.map(|term| term.name)).collect();
                let help = hint(name, "the functions are", known);
                Err(self.name_error(node, name, format!("there is no function `{name}`"), help))
            }
        }
    }

    fn unfit(&self, node: &IdedExpr, name: &str) -> Remark {
        let usage = FUNCTIONS.iter().find(|function| function.name == name);
        let help = usage.map(|function| format!("for example `{}`", function.usage));
        self.error(node, format!("`{name}` does not take this"), help)
    }

    fn lookup(
        &mut self,
        node: &IdedExpr,
        function: &'static str,
        record: &'static RecordType,
        args: &[IdedExpr],
    ) -> Result<Type, Remark> {
        let [arg] = args else {
            let message = format!("`{function}` takes one name");
            return Err(self.error(node, message, Some(format!("`{function}(\"web\")`"))));
        };
        let found = self.visit(arg)?;
        if !found.is_text() {
            let message = format!("`{function}` takes a name, not {}", found.name());
            return Err(self.error(arg, message, None));
        }
        if let Some(name) = text_of(arg) {
            let name = name.to_owned();
            self.names.push(Named {
                function,
                name,
                place: self.place(arg),
            });
        }
        Ok(Type::Record(record.name))
    }

    fn method(
        &mut self,
        node: &IdedExpr,
        call: &CallExpr,
        target: &IdedExpr,
    ) -> Result<Type, Remark> {
        let name = call.func_name.as_str();
        if !FUNCTIONS.iter().any(|function| function.name == name) {
            let known = FUNCTIONS.iter().map(|function| function.name);
            let help = hint(name, "the functions are", known);
            let message = format!("there is no function `{name}`");
            return Err(self.name_error(node, name, message, help));
        }
        let of = self.visit(target)?;
        let types = call
            .args
            .iter()
            .map(|arg| self.visit(arg))
            .collect::<Result<Vec<_>, _>>()?;
        match (name, of.is_text(), types.as_slice()) {
            ("contains" | "startsWith" | "endsWith" | "matches", true, [arg]) if arg.is_text() => {
                Ok(Type::Bool)
            }
            ("size", true, []) => Ok(Type::Int),
            ("size", false, []) if matches!(of, Type::List(_) | Type::Map(_)) => Ok(Type::Int),
            _ => Err(self.unfit(node, name)),
        }
    }

    /// What `exists`, `all`, `filter` and `map` are made of.
    fn comprehension(&mut self, macros: &ComprehensionExpr) -> Result<Type, Remark> {
        let element = match self.visit(&macros.iter_range)? {
            Type::List(element) => *element,
            Type::Map(_) => Type::Text(None),
            Type::Any => Type::Any,
            other => {
                let message = format!("{} has no elements", other.name());
                return Err(self.error(&macros.iter_range, message, None));
            }
        };
        let start = self.visit(&macros.accu_init)?;
        let depth = self.bound.len();
        self.bound.push((macros.iter_var.clone(), element));
        self.bound.push((macros.accu_var.clone(), start.clone()));
        self.visit(&macros.loop_cond)?;
        let step = self.visit(&macros.loop_step)?;
        // A list grows from an empty one, whose elements say nothing yet.
        let built = if matches!(start, Type::List(_)) {
            step
        } else {
            start
        };
        self.bound.truncate(depth);
        self.bound.push((macros.accu_var.clone(), built));
        let result = self.visit(&macros.result);
        self.bound.truncate(depth);
        result
    }
}
