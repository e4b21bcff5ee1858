//! Works around two deviations of async-graphql 7.2.1 from the specification: a failed field is left
//! out of its object instead of setting the nearest nullable ancestor to null, and an object without
//! fields becomes null.

use async_graphql::{Name, PathSegment, Response, Value};
use async_graphql_value::indexmap::IndexMap;

use super::query_limits::{Nullability, root_nullability};

/// Sets nulls where fields failed. `root` has the response keys with the names of their fields. Only
/// root fields of subscriptions are non-null.
pub(super) fn propagate_nulls(answer: &mut Response, root: &[(String, String)]) {
    let Response { data, errors, .. } = answer;
    // All root fields failed or were skipped.
    if *data == Value::Null {
        *data = Value::Object(IndexMap::new());
    }
    for error in errors.iter().filter(|error| !error.path.is_empty()) {
        // A key that is present with a null is a nullable field: nothing to propagate.
        if !is_there(data, &error.path) {
            set_null(data, &error.path, root);
        }
    }
}

fn is_there(mut value: &Value, path: &[PathSegment]) -> bool {
    for segment in path {
        let inner = match (segment, value) {
            (PathSegment::Field(key), Value::Object(fields)) => fields.get(key.as_str()),
            (PathSegment::Index(index), Value::List(entries)) => entries.get(*index),
            _ => None,
        };
        match inner {
            Some(inner) => value = inner,
            None => return false,
        }
    }
    true
}

fn set_null(data: &mut Value, path: &[PathSegment], root: &[(String, String)]) {
    match nullable(data, path, root) {
        Some(place) => *place = Value::Null,
        None => *data = Value::Null,
    }
}

/// Returns the nearest nullable field or entry above a failed field. Only root fields, or the
/// entries of a root list, are nullable above fields that can fail and are non-null.
fn nullable<'a>(
    data: &'a mut Value,
    path: &[PathSegment],
    root: &[(String, String)],
) -> Option<&'a mut Value> {
    let (Value::Object(fields), [PathSegment::Field(key), rest @ ..]) = (data, path) else {
        return None;
    };
    let (_, field) = root.iter().find(|(known, _)| known == key)?;
    let place = match root_nullability(field)? {
        Nullability::NonNull => return None,
        nulls => (fields.entry(Name::new(key)).or_insert(Value::Null), nulls),
    };
    match (place, rest.first()) {
        ((Value::List(entries), Nullability::NullableEntries), Some(PathSegment::Index(index))) => {
            entries.get_mut(*index)
        }
        ((place, _), _) => Some(place),
    }
}
