//! What the guard knows of the schema: which type a field returns, and how many of it there may be.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use async_graphql::parser::types::{
    BaseType, ServiceDocument, Type, TypeKind, TypeSystemDefinition,
};

use super::super::types::{PAGE, RECENTS};

/// How many entries a list is taken to have that is not paged.
const UNPAGED: usize = 100;

/// How many entries a field may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    /// A list of about so many.
    About(usize),
    /// As `first` or `last` say, else so many.
    Paged(usize),
    /// As many as `ids`.
    Ids,
    /// As `last` says, else as many as the document's largest `msgCount`.
    Recents,
}

/// A field of a type.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The type of what it returns, lists and nulls left out.
    pub(super) returns: String,
    pub(super) many: Many,
    pub(super) reads: Reads,
    pub(super) nulls: Nulls,
}

/// What a field reads beside the values that it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Nothing,
    /// Always as much.
    Price(usize),
    /// A message, or another row, for each of its entries.
    Rows,
}

/// A list of a user's conversations that the fields of an operation share: each passes over all of
/// it.
pub(super) const LIST: usize = 1000;
/// A user's list that is read for this field alone: it was changed since it was read last.
pub(super) const OWN_LIST: usize = 2500;

fn reads(of: &str, field: &str) -> Reads {
    match (of, field) {
        ("Query", "conversations" | "conversationList" | "unreadSummary")
        | ("Subscription", "conversationChanges") => Reads::Price(LIST),
        ("Mutation", "markAllRead") => Reads::Price(OWN_LIST),
        (payload, "unreadSummary") if payload.ends_with("Payload") => Reads::Price(OWN_LIST),
        ("Query", "messages" | "nodes" | "node" | "conversation")
        | ("Conversation", "recents" | "lastMessage" | "lastClientMsgNo") => Reads::Rows,
        _ => Reads::Nothing,
    }
}

/// Where a field may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::graphql) enum Nulls {
    Nowhere,
    /// Itself.
    Field,
    /// Its entries, or itself.
    FieldAndEntries,
}

/// The types of the schema.
pub(super) struct Shapes {
    fields: HashMap<String, HashMap<String, Shape>>,
    /// The names of all types.
    names: HashSet<String>,
}

/// Messages of `recents` where nothing else is said.
pub(super) const DEFAULT_RECENTS: usize = RECENTS as usize;

pub(super) static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let schema =
        async_graphql::parser::parse_schema(super::super::sdl()).unwrap_or(ServiceDocument {
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
                innermost(&field_type).to_owned(),
            );
            let (many, nulls) = (many(&name, &field), nulls(&field_type));
            let reads = reads(&name, &field);
            (
                field,
                Shape {
                    returns,
                    many,
                    reads,
                    nulls,
                },
            )
        });
        fields.insert(name.clone(), of.collect());
        names.insert(name);
    }
    names.extend(["Boolean", "Float", "ID", "Int", "String"].map(str::to_owned));
    fields.extend(introspection());
    Shapes { fields, names }
});

impl Shapes {
    pub(super) fn field(&self, of: &str, name: &str) -> Option<&Shape> {
        match name {
            // Every root has them; only a query may ask.
            "__schema" | "__type" => self.fields.get("__Root")?.get(name),
            _ => self.fields.get(of)?.get(name),
        }
    }

    pub(super) fn has_type(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

pub(super) fn innermost(given: &Type) -> &str {
    match &given.base {
        BaseType::Named(name) => name,
        BaseType::List(inner) => innermost(inner),
    }
}

fn nulls(given: &Type) -> Nulls {
    match &given.base {
        BaseType::List(inner) if given.nullable && inner.nullable => Nulls::FieldAndEntries,
        _ if given.nullable => Nulls::Field,
        _ => Nulls::Nowhere,
    }
}

fn many(of: &str, field: &str) -> Many {
    match (of, field) {
        ("Query", "conversations") => Many::Paged(UNPAGED),
        ("Query", "conversationList" | "messages") => Many::Paged(PAGE as usize),
        ("Query", "nodes") => Many::Ids,
        ("Subscription", "conversationChanges") => Many::About(UNPAGED),
        ("Conversation", "recents") => Many::Recents,
        ("MarkAllReadPayload", "conversations") => Many::About(UNPAGED),
        ("UnreadSummary", "byChannelType") => Many::About(10),
        _ => Many::One,
    }
}

/// The types of introspection, which the schema's text does not have.
fn introspection() -> HashMap<String, HashMap<String, Shape>> {
    let fields: [(&str, &str, &str, Many); 17] = [
        ("__Root", "__schema", "__Schema", Many::One),
        ("__Root", "__type", "__Type", Many::One),
        ("__Schema", "types", "__Type", Many::About(50)),
        ("__Schema", "queryType", "__Type", Many::One),
        ("__Schema", "mutationType", "__Type", Many::One),
        ("__Schema", "subscriptionType", "__Type", Many::One),
        ("__Schema", "directives", "__Directive", Many::About(5)),
        ("__Directive", "args", "__InputValue", Many::About(3)),
        ("__Type", "fields", "__Field", Many::About(8)),
        ("__Type", "inputFields", "__InputValue", Many::About(4)),
        ("__Type", "interfaces", "__Type", Many::About(2)),
        ("__Type", "possibleTypes", "__Type", Many::About(3)),
        ("__Type", "enumValues", "__EnumValue", Many::About(8)),
        ("__Type", "ofType", "__Type", Many::One),
        ("__Field", "args", "__InputValue", Many::About(3)),
        ("__Field", "type", "__Type", Many::One),
        ("__InputValue", "type", "__Type", Many::One),
    ];
    let mut all: HashMap<String, HashMap<String, Shape>> = HashMap::new();
    for (of, name, returns, many) in fields {
        all.entry(of.to_owned()).or_default().insert(
            name.to_owned(),
            Shape {
                returns: returns.to_owned(),
                many,
                reads: Reads::Nothing,
                nulls: Nulls::Field,
            },
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_known_as_lists_and_fields_by_their_types() {
        assert_eq!(
            SHAPES.field("Query", "conversationList").unwrap().returns,
            "ConversationConnection"
        );
        assert_eq!(
            SHAPES
                .field("ConversationConnection", "nodes")
                .unwrap()
                .returns,
            "Conversation"
        );
        assert_eq!(
            SHAPES.field("Conversation", "recents").unwrap().many,
            Many::Recents
        );
        assert_eq!(
            SHAPES.field("Query", "__schema").unwrap().returns,
            "__Schema"
        );
        assert!(SHAPES.field("Query", "nope").is_none() && SHAPES.field("Nope", "id").is_none());
        assert!(
            SHAPES.has_type("ChannelInput")
                && SHAPES.has_type("UInt53")
                && SHAPES.has_type("Int")
                && !SHAPES.has_type("Nope")
        );
    }
}
