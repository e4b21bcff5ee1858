//! Computes the cost of a document. A fragment's cost is computed once, however often it is spread.

use std::collections::HashMap;

use async_graphql::parser::types::{
    Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
    SelectionSet,
};
use async_graphql::{Name, Positioned};
use async_graphql_value::{ConstValue, Value};

use super::cost::Cost;
use super::schema_info::{Cardinality, DEFAULT_MESSAGES, ReadCost, SCHEMA};
use super::variable_size::{VariableSize, parts};
use crate::config::Limits;

type Variables = serde_json::Map<String, serde_json::Value>;

/// Returns the requested number of entries, or 0 if it is out of range: such a field is refused
/// before anything is read.
fn if_within(requested: usize, limit: u32) -> usize {
    if requested > limit as usize {
        0
    } else {
        requested
    }
}

/// The document nests too deep to be traversed.
#[derive(Debug)]
pub(super) struct TooDeep;

/// Computes the cost of the parts of a document.
pub(super) struct CostCalculator<'a> {
    document: &'a ExecutableDocument,
    /// The values of variables sent with the document.
    variables: Option<&'a Variables>,
    /// The size of each variable's value.
    sizes: HashMap<&'a str, VariableSize>,
    limits: &'a Limits,
    max_depth: usize,
    /// The largest `msgCount` of the document.
    max_msg_count: usize,
    /// `None` while a fragment is being computed: a cycle costs nothing here and is refused by
    /// validation.
    fragments: HashMap<&'a Name, Option<Cost>>,
}

impl<'a> CostCalculator<'a> {
    pub(super) fn of(
        document: &'a ExecutableDocument,
        variables: Option<&'a Variables>,
        limits: &'a Limits,
    ) -> Result<Cost, TooDeep> {
        let sizes = variables
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), VariableSize::of(value)))
            .collect();
        let max_depth = limits.document_depth;
        let fragments = HashMap::new();
        let mut calculator = Self {
            document,
            variables,
            sizes,
            limits,
            max_depth,
            max_msg_count: DEFAULT_MESSAGES,
            fragments,
        };
        calculator.max_msg_count = calculator.largest_msg_count()?;
        calculator.total()
    }

    /// Sums up all operations and each fragment once: validation also checks operations that do not
    /// run and fragments that are not spread.
    fn total(mut self) -> Result<Cost, TooDeep> {
        let document = self.document;
        let mut total = Cost::default();
        for name in document.fragments.keys() {
            total = total.and(self.fragment(name, 1)?);
        }
        // Only one of the operations runs; the others are only validated.
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

    /// Computes the cost of a selection set on a type at this level. Selections that are too deep
    /// are not entered, because each level is a recursive call.
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
                    // Validation compares the selections of an inline fragment with those beside
                    // it, again on every level.
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
        let info = SCHEMA.field(of, name);
        let inner = self.selection(
            &field.selection_set,
            info.map_or("", |info| &info.returns),
            level + 1,
        )?;
        let entries = info.map_or(1, |info| self.entries(info.cardinality, field));
        let cost = inner.and(self.arguments(&field.arguments));
        let reads = match info.map_or(ReadCost::Nothing, |info| info.read_cost) {
            ReadCost::Nothing => 0,
            ReadCost::Fixed(price) => price,
            ReadCost::PerEntry => entries,
        };
        let values = entries
            .saturating_mul(inner.complexity.max(1))
            .saturating_add(usize::from(inner.complexity > 0));
        Ok(Cost {
            complexity: values
                .saturating_add(reads)
                .saturating_add(self.given_entries(field)),
            aliases: cost.aliases + usize::from(field.alias.is_some()),
            introspects: cost.introspects || name == "__schema" || name == "__type",
            width: 1,
            ..cost
        })
    }

    fn entries(&self, cardinality: Cardinality, field: &Field) -> usize {
        match cardinality {
            Cardinality::One => 1,
            Cardinality::Estimated(number) => number,
            Cardinality::Paged(number) => {
                let requested = self
                    .number(field, "first")
                    .or_else(|| self.number(field, "last"));
                requested.map_or(number, |requested| {
                    if_within(requested, self.limits.page_size)
                })
            }
            Cardinality::Recents => self
                .number(field, "last")
                .map_or(self.max_msg_count, |requested| {
                    if_within(requested, self.limits.max_messages_per_conversation)
                }),
            Cardinality::Ids => match field.get_argument("ids").map(|value| &value.node) {
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

    /// Counts the entries of lists in the arguments of a field, written in place or passed by
    /// variables, including those nested in objects.
    fn given_entries(&self, field: &Field) -> usize {
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

    /// Returns the number that an argument has in place, by a variable, or by a variable's default.
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

    /// Each selection set is visited once.
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
        let mut largest = DEFAULT_MESSAGES;
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
                        let requested = self.number(&field.node, "msgCount").unwrap_or(0);
                        largest = largest.max(if_within(
                            requested,
                            self.limits.max_messages_per_conversation,
                        ));
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
        let calculator = directives
            .iter()
            .map(|directive| self.arguments(&directive.node.arguments));
        calculator.fold(Cost::default(), |total, cost| {
            total.and(Cost {
                directives: 1,
                ..cost
            })
        })
    }

    /// Computes the cost of a name with arguments: a directive, or a field without its selections.
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
