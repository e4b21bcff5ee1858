//! Facts about the schema: the type of each field, and how many entries its lists have.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use async_graphql::parser::types::{
    BaseType, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
};

use crate::graphql::types::{DEFAULT_PAGE_SIZE, DEFAULT_RECENT_MESSAGES};

/// Assumed length of lists without paging.
const UNPAGED_LIST_LENGTH: usize = 100;

/// The number of entries that a field returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    One,
    /// A list of about this many entries.
    Estimated(usize),
    /// The value of `first` or `last`, or else this number.
    Paged(usize),
    /// The number of `ids`.
    Ids,
    /// The value of `last`, or else the largest `msgCount` of the document.
    Recents,
}

/// A field of a type.
#[derive(Clone, Debug)]
pub(super) struct FieldInfo {
    /// The named type of the field, without list and non-null wrappers.
    pub(super) returns: String,
    pub(super) cardinality: Cardinality,
    pub(super) read_cost: ReadCost,
    pub(super) nullability: Nullability,
}

/// The rows that a field reads in addition to the values that it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadCost {
    Nothing,
    /// A constant cost.
    Fixed(usize),
    /// One row, such as a message, for each entry.
    PerEntry,
}

/// Cost of passing over a user's list, which the fields of an operation share.
pub(super) const LIST_READ_COST: usize = 1000;
/// Cost of reading a user's list for one field alone, because a mutation changed it.
pub(super) const FRESH_LIST_READ_COST: usize = 2500;

fn read_cost(of: &str, field: &str) -> ReadCost {
    match (of, field) {
        ("Query", "conversations" | "conversationList" | "unreadSummary")
        | ("Subscription", "conversationChanges") => ReadCost::Fixed(LIST_READ_COST),
        ("Mutation", "markAllRead") => ReadCost::Fixed(FRESH_LIST_READ_COST),
        (payload, "unreadSummary") if payload.ends_with("Payload") => {
            ReadCost::Fixed(FRESH_LIST_READ_COST)
        }
        ("Query", "messages" | "nodes" | "node" | "conversation")
        | ("Conversation", "recents" | "lastMessage" | "lastClientMsgNo") => ReadCost::PerEntry,
        _ => ReadCost::Nothing,
    }
}

/// The positions in a field that may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graphql) enum Nullability {
    NonNull,
    /// The field may be null.
    Nullable,
    /// The field and its entries may be null.
    NullableEntries,
}

/// The types of the schema.
pub(super) struct SchemaInfo {
    fields: HashMap<String, HashMap<String, FieldInfo>>,
    /// The names of all types.
    names: HashSet<String>,
}

/// Number of messages of `recents` by default.
pub(super) const DEFAULT_MESSAGES: usize = DEFAULT_RECENT_MESSAGES as usize;

pub(super) static SCHEMA: LazyLock<SchemaInfo> = LazyLock::new(|| {
    let schema =
        async_graphql::parser::parse_schema(crate::graphql::sdl()).unwrap_or(ServiceDocument {
            definitions: Vec::new(),
        });
    let (mut fields, mut names) = (HashMap::new(), HashSet::new());
    for definition in schema.definitions {
        let TypeSystemDefinition::Type(definition) = definition else {
            continue;
        };
        let name = definition.node.name.node.to_string();
        let of = match definition.node.kind {
            TypeKind::Object(object) => object.fields,
            TypeKind::Interface(interface) => interface.fields,
            _ => Vec::new(),
        };
        let of = of.into_iter().map(|field| {
            let field_type = field.node.ty.node;
            let (field, returns) = (
                field.node.name.node.to_string(),
                innermost_type(&field_type).to_owned(),
            );
            let (cardinality, nullability) = (cardinality(&name, &field), nullability(&field_type));
            let read_cost = read_cost(&name, &field);
            (
                field,
                FieldInfo {
                    returns,
                    cardinality,
                    read_cost,
                    nullability,
                },
            )
        });
        fields.insert(name.clone(), of.collect());
        names.insert(name);
    }
    names.extend(["Boolean", "Float", "ID", "Int", "String"].map(str::to_owned));
    fields.extend(introspection());
    SchemaInfo { fields, names }
});

impl SchemaInfo {
    pub(super) fn field(&self, of: &str, name: &str) -> Option<&FieldInfo> {
        match name {
            // Every root type has these fields, but only queries may use them.
            "__schema" | "__type" => self.fields.get("__Root")?.get(name),
            _ => self.fields.get(of)?.get(name),
        }
    }

    pub(super) fn has_type(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

pub(super) fn innermost_type(given: &Type) -> &str {
    match &given.base {
        BaseType::Named(name) => name,
        BaseType::List(inner) => innermost_type(inner),
    }
}

fn nullability(given: &Type) -> Nullability {
    match &given.base {
        BaseType::List(inner) if given.nullable && inner.nullable => Nullability::NullableEntries,
        _ if given.nullable => Nullability::Nullable,
        _ => Nullability::NonNull,
    }
}

fn cardinality(of: &str, field: &str) -> Cardinality {
    match (of, field) {
        ("Query", "conversations") => Cardinality::Paged(UNPAGED_LIST_LENGTH),
        ("Query", "conversationList" | "messages") => {
            Cardinality::Paged(DEFAULT_PAGE_SIZE as usize)
        }
        ("Query", "nodes") => Cardinality::Ids,
        ("Subscription", "conversationChanges") => Cardinality::Estimated(UNPAGED_LIST_LENGTH),
        ("Conversation", "recents") => Cardinality::Recents,
        ("MarkAllReadPayload", "conversations") => Cardinality::Estimated(UNPAGED_LIST_LENGTH),
        ("UnreadSummary", "byChannelType") => Cardinality::Estimated(10),
        _ => Cardinality::One,
    }
}

/// The types of introspection, which are not part of the schema's text.
fn introspection() -> HashMap<String, HashMap<String, FieldInfo>> {
    let fields: [(&str, &str, &str, Cardinality); 17] = [
        ("__Root", "__schema", "__Schema", Cardinality::One),
        ("__Root", "__type", "__Type", Cardinality::One),
        ("__Schema", "types", "__Type", Cardinality::Estimated(50)),
        ("__Schema", "queryType", "__Type", Cardinality::One),
        ("__Schema", "mutationType", "__Type", Cardinality::One),
        ("__Schema", "subscriptionType", "__Type", Cardinality::One),
        (
            "__Schema",
            "directives",
            "__Directive",
            Cardinality::Estimated(5),
        ),
        (
            "__Directive",
            "args",
            "__InputValue",
            Cardinality::Estimated(3),
        ),
        ("__Type", "fields", "__Field", Cardinality::Estimated(8)),
        (
            "__Type",
            "inputFields",
            "__InputValue",
            Cardinality::Estimated(4),
        ),
        ("__Type", "interfaces", "__Type", Cardinality::Estimated(2)),
        (
            "__Type",
            "possibleTypes",
            "__Type",
            Cardinality::Estimated(3),
        ),
        (
            "__Type",
            "enumValues",
            "__EnumValue",
            Cardinality::Estimated(8),
        ),
        ("__Type", "ofType", "__Type", Cardinality::One),
        ("__Field", "args", "__InputValue", Cardinality::Estimated(3)),
        ("__Field", "type", "__Type", Cardinality::One),
        ("__InputValue", "type", "__Type", Cardinality::One),
    ];
    let mut all: HashMap<String, HashMap<String, FieldInfo>> = HashMap::new();
    for (of, name, returns, cardinality) in fields {
        all.entry(of.to_owned()).or_default().insert(
            name.to_owned(),
            FieldInfo {
                returns: returns.to_owned(),
                cardinality,
                read_cost: ReadCost::Nothing,
                nullability: Nullability::Nullable,
            },
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_type_and_cardinality() {
        assert_eq!(
            SCHEMA.field("Query", "conversationList").unwrap().returns,
            "ConversationConnection"
        );
        assert_eq!(
            SCHEMA
                .field("ConversationConnection", "nodes")
                .unwrap()
                .returns,
            "Conversation"
        );
        assert_eq!(
            SCHEMA.field("Conversation", "recents").unwrap().cardinality,
            Cardinality::Recents
        );
        assert_eq!(
            SCHEMA.field("Query", "__schema").unwrap().returns,
            "__Schema"
        );
        assert!(SCHEMA.field("Query", "nope").is_none() && SCHEMA.field("Nope", "id").is_none());
        assert!(
            SCHEMA.has_type("ChannelInput")
                && SCHEMA.has_type("UInt53")
                && SCHEMA.has_type("Int")
                && !SCHEMA.has_type("Nope")
        );
    }
}
