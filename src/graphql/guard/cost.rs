//! What the parts of a document cost. A fragment's cost is computed once, however often it is
//! spread.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
    SelectionSet,
};
use async_graphql::{Name, Positioned};
use async_graphql_value::{ConstValue, Value};

use super::shapes::{DEFAULT_RECENTS, Many, Reads, SHAPES};
use crate::config::Limits;

type Variables = serde_json::Map<String, serde_json::Value>;

/// Counted with every fragment as often as it is spread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Fields, spreads, directives, arguments, and variables.
    pub(super) fields: usize,
    /// Every field, spread and inline fragment is a level.
    pub(super) depth: usize,
    /// Bytes of the values of variables: wherever one is used, its value is copied.
    pub(super) copied: usize,
    /// Values of the answer, fields as often as the lists that they are in may have entries; what
    /// is read for them; and entries of lists that are given.
    pub(super) complexity: usize,
    pub(super) aliases: usize,
    pub(super) directives: usize,
    /// Fields of the largest operation's root.
    pub(super) root_fields: usize,
    /// Variables that operations define.
    pub(super) variables: usize,
    /// Most arguments of one field or directive.
    pub(super) arguments: usize,
    /// Whether it asks for the schema.
    pub(super) introspects: bool,
    /// Fields on the top level of a selection.
    width: usize,
}

impl Cost {
    const ONE: Self = Self {
        fields: 1,
        ..Self::ZERO
    };
    const ZERO: Self = Self {
        fields: 0,
        depth: 0,
        copied: 0,
        complexity: 0,
        aliases: 0,
        directives: 0,
        root_fields: 0,
        variables: 0,
        arguments: 0,
        introspects: false,
        width: 0,
    };

    /// Of both, side by side.
    fn and(self, other: Self) -> Self {
        Self {
            fields: self.fields.saturating_add(other.fields),
            depth: self.depth.max(other.depth),
            copied: self.copied.saturating_add(other.copied),
            complexity: self.complexity.saturating_add(other.complexity),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            root_fields: self.root_fields.max(other.root_fields),
            variables: self.variables.saturating_add(other.variables),
            arguments: self.arguments.max(other.arguments),
            introspects: self.introspects || other.introspects,
            width: self.width.saturating_add(other.width),
        }
    }
}

/// A number of entries, if its field takes it: one that is out of range is refused before anything
/// is read.
fn within(asked: usize, limit: u32) -> usize {
    if asked > limit as usize { 0 } else { asked }
}

/// What is too deep to be entered.
#[derive(Debug)]
pub(super) struct TooDeep;

/// What a variable's value is.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    bytes: usize,
    /// Entries of its lists, and of lists in them.
    entries: usize,
    /// Parts of a text with `|` between them.
    parts: usize,
}

impl Size {
    fn of(value: &serde_json::Value) -> Self {
        let mut size = Self {
            bytes: value.to_string().len(),
            entries: 0,
            parts: value.as_str().map_or(0, parts),
        };
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            match value {
                serde_json::Value::Array(values) => {
                    size.entries += values.len();
                    open.extend(values);
                }
                serde_json::Value::Object(values) => open.extend(values.values()),
                _ => {}
            }
        }
        size
    }
}

/// Entries of a `lastMsgSeqs`.
fn parts(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        text.matches('|').count() + 1
    }
}

/// Costs of the parts of a document.
pub(super) struct Costs<'a> {
    document: &'a ExecutableDocument,
    /// What comes with the document.
    variables: Option<&'a Variables>,
    /// What each variable's value is.
    sizes: HashMap<&'a str, Size>,
    limits: &'a Limits,
    max_depth: usize,
    /// The largest `msgCount` of the document.
    recents: usize,
    /// `None` while a fragment is being computed: a cycle costs nothing here and is refused by
    /// validation.
    fragments: HashMap<&'a Name, Option<Cost>>,
}

impl<'a> Costs<'a> {
    pub(super) fn of(
        document: &'a ExecutableDocument,
        variables: Option<&'a Variables>,
        limits: &'a Limits,
    ) -> Result<Cost, TooDeep> {
        let sizes = variables
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), Size::of(value)))
            .collect();
        let max_depth = limits.document_depth;
        let fragments = HashMap::new();
        let mut costs = Self {
            document,
            variables,
            sizes,
            limits,
            max_depth,
            recents: DEFAULT_RECENTS,
            fragments,
        };
        costs.recents = costs.largest_msg_count()?;
        costs.total()
    }

    /// Of all operations, and of all fragments by themselves: validation looks also at those that
    /// nobody runs or spreads.
    fn total(mut self) -> Result<Cost, TooDeep> {
        let document = self.document;
        let mut total = Cost::default();
        for name in document.fragments.keys() {
            total = total.and(self.fragment(name, 1)?);
        }
        // What runs is one of the operations; the others are only looked at.
        let (mut complexity, mut root_fields) = (0, 0);
        for (_, operation) in document.operations.iter() {
            let cost = self.operation(&operation.node)?;
            complexity = complexity.max(cost.complexity);
            root_fields = root_fields.max(cost.width);
            total = total.and(cost);
        }
        Ok(Cost {
            complexity,
            root_fields,
            ..total
        })
    }

    fn operation(&mut self, operation: &'a OperationDefinition) -> Result<Cost, TooDeep> {
        let root = match operation.ty {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        };
        let mut total = self
            .selection(&operation.selection_set, root, 1)?
            .and(self.directives(&operation.directives));
        for variable in &operation.variable_definitions {
            total = total
                .and(Cost {
                    variables: 1,
                    ..Cost::ONE
                })
                .and(self.directives(&variable.node.directives));
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &Name, level: usize) -> Result<Cost, TooDeep> {
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Ok(Cost::default());
        };
        if let Some(known) = self.fragments.get(name) {
            return Ok(known.unwrap_or_default());
        }
        self.fragments.insert(name, None);
        let on = fragment.node.type_condition.node.on.node.as_str();
        let cost = self
            .selection(&fragment.node.selection_set, on, level)?
            .and(self.directives(&fragment.node.directives));
        self.fragments.insert(name, Some(cost));
        Ok(cost)
    }

    /// Of a selection set of a type whose selections are on this level. None is entered that is too
    /// deep: a call is a level.
    fn selection(
        &mut self,
        set: &'a Positioned<SelectionSet>,
        of: &'a str,
        level: usize,
    ) -> Result<Cost, TooDeep> {
        let mut total = Cost::default();
        for selection in &set.node.items {
            if level > self.max_depth {
                return Err(TooDeep);
            }
            let mut cost = match &selection.node {
                Selection::Field(field) => self.field(&field.node, of, level)?,
                Selection::InlineFragment(inline) => {
                    let on = inline
                        .node
                        .type_condition
                        .as_ref()
                        .map_or(of, |condition| condition.node.on.node.as_str());
                    let inner = self.selection(&inline.node.selection_set, on, level + 1)?;
                    // Validation compares what is in it also with what is beside it, and that again
                    // on every level.
                    Cost {
                        fields: inner.fields.saturating_mul(2).saturating_add(1),
                        ..inner
                    }
                }
                Selection::FragmentSpread(spread) => self
                    .fragment(&spread.node.fragment_name.node, level + 1)?
                    .and(Cost::ONE),
            };
            cost.depth += 1;
            total = total
                .and(cost)
                .and(self.directives(selection.node.directives()));
        }
        Ok(total)
    }

    fn field(&mut self, field: &'a Field, of: &'a str, level: usize) -> Result<Cost, TooDeep> {
        let name = field.name.node.as_str();
        let shape = SHAPES.field(of, name);
        let inner = self.selection(
            &field.selection_set,
            shape.map_or("", |shape| &shape.returns),
            level + 1,
        )?;
        let many = shape.map_or(1, |shape| self.entries(shape.many, field));
        let cost = inner.and(self.arguments(&field.arguments));
        let reads = match shape.map_or(Reads::Nothing, |shape| shape.reads) {
            Reads::Nothing => 0,
            Reads::Price(price) => price,
            Reads::Rows => many,
        };
        let values = many
            .saturating_mul(inner.complexity.max(1))
            .saturating_add(usize::from(inner.complexity > 0));
        Ok(Cost {
            complexity: values
                .saturating_add(reads)
                .saturating_add(self.given(field)),
            aliases: cost.aliases + usize::from(field.alias.is_some()),
            introspects: cost.introspects || name == "__schema" || name == "__type",
            width: 1,
            ..cost
        })
    }

    fn entries(&self, many: Many, field: &Field) -> usize {
        match many {
            Many::One => 1,
            Many::About(number) => number,
            Many::Paged(number) => {
                let asked = self
                    .number(field, "first")
                    .or_else(|| self.number(field, "last"));
                asked.map_or(number, |asked| within(asked, self.limits.page_size))
            }
            Many::Recents => self
                .number(field, "last")
                .map_or(self.recents, |asked| within(asked, self.limits.msg_count)),
            Many::Ids => match field.get_argument("ids").map(|value| &value.node) {
                Some(Value::List(ids)) => ids.len(),
                Some(Value::Variable(name)) => match self
                    .variables
                    .and_then(|variables| variables.get(name.as_str()))
                {
                    Some(serde_json::Value::Array(ids)) => ids.len(),
                    _ => 1,
                },
                _ => 1,
            },
        }
    }

    /// Entries of the lists that are given to a field, in itself or by variables, also in the
    /// objects among its arguments.
    fn given(&self, field: &Field) -> usize {
        let mut entries = 0_usize;
        let mut open: Vec<(bool, &Value)> = Vec::new();
        open.extend(
            field
                .arguments
                .iter()
                .map(|(name, value)| (name.node == "lastMsgSeqs", &value.node)),
        );
        while let Some((has_parts, value)) = open.pop() {
            let more = match value {
                Value::Variable(name) => {
                    let size = self.sizes.get(name.as_str()).copied().unwrap_or_default();
                    if has_parts { size.parts } else { size.entries }
                }
                Value::String(text) if has_parts => parts(text),
                Value::List(values) => {
                    open.extend(values.iter().map(|value| (false, value)));
                    values.len()
                }
                Value::Object(values) => {
                    open.extend(values.values().map(|value| (false, value)));
                    0
                }
                _ => 0,
            };
            entries = entries.saturating_add(more);
        }
        entries
    }

    /// What an argument says, in itself, by a variable, or by a variable's default.
    fn number(&self, field: &Field, argument: &str) -> Option<usize> {
        let counted = |number: Option<u64>| {
            Some(number.map_or(0, |number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        match &field.get_argument(argument)?.node {
            Value::Number(number) => counted(number.as_u64()),
            Value::Variable(name) => match self
                .variables
                .and_then(|variables| variables.get(name.as_str()))
            {
                Some(serde_json::Value::Number(number)) => counted(number.as_u64()),
                Some(_) => None,
                None => self.default_of(name),
            },
            _ => None,
        }
    }

    fn default_of(&self, variable: &Name) -> Option<usize> {
        let operations = self.document.operations.iter();
        let defined = operations.flat_map(|(_, operation)| &operation.node.variable_definitions);
        let defaults = defined
            .filter(|definition| definition.node.name.node == *variable)
            .filter_map(
                |definition| match &definition.node.default_value.as_ref()?.node {
                    ConstValue::Number(number) => usize::try_from(number.as_u64()?).ok(),
                    _ => None,
                },
            );
        defaults.max()
    }

    /// Selection sets are visited once each.
    fn largest_msg_count(&self) -> Result<usize, TooDeep> {
        let operations = self
            .document
            .operations
            .iter()
            .map(|(_, operation)| &operation.node.selection_set);
        let fragments = self
            .document
            .fragments
            .values()
            .map(|fragment| &fragment.node.selection_set);
        let mut largest = DEFAULT_RECENTS;
        let mut open: Vec<(&SelectionSet, usize)> = operations
            .chain(fragments)
            .map(|set| (&set.node, 1))
            .collect();
        while let Some((set, level)) = open.pop() {
            if level > self.max_depth && !set.items.is_empty() {
                return Err(TooDeep);
            }
            for selection in &set.items {
                match &selection.node {
                    Selection::Field(field) => {
                        let asked = self.number(&field.node, "msgCount").unwrap_or(0);
                        largest = largest.max(within(asked, self.limits.msg_count));
                        open.push((&field.node.selection_set.node, level + 1));
                    }
                    Selection::InlineFragment(inline) => {
                        open.push((&inline.node.selection_set.node, level + 1))
                    }
                    Selection::FragmentSpread(_) => {}
                }
            }
        }
        Ok(largest)
    }

    fn directives(&self, directives: &[Positioned<Directive>]) -> Cost {
        let costs = directives
            .iter()
            .map(|directive| self.arguments(&directive.node.arguments));
        costs.fold(Cost::default(), |total, cost| {
            total.and(Cost {
                directives: 1,
                ..cost
            })
        })
    }

    /// A name with arguments: a directive, or a field but for what is selected in it.
    fn arguments(&self, arguments: &[(Positioned<Name>, Positioned<Value>)]) -> Cost {
        let mut cost = Cost {
            fields: 1 + arguments.len(),
            arguments: arguments.len(),
            ..Cost::default()
        };
        let mut open: Vec<&Value> = arguments.iter().map(|(_, value)| &value.node).collect();
        while let Some(value) = open.pop() {
            match value {
                Value::Variable(name) => {
                    cost.fields += 1;
                    cost.copied = cost.copied.saturating_add(
                        self.sizes
                            .get(name.as_str())
                            .copied()
                            .unwrap_or_default()
                            .bytes,
                    );
                }
                Value::List(values) => open.extend(values),
                Value::Object(values) => open.extend(values.values()),
                _ => {}
            }
        }
        cost
    }
}
