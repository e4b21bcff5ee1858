//! Where async-graphql 7.2.1 departs from the specification: it leaves a field that failed out of
//! its object, where the null of a type that has none must go up to the next place that may be
//! null; it puts fields in the order in which they were done; and it makes an object without fields
//! a null.

use async_graphql::{Name, PathSegment, Response, Value};
use async_graphql_value::indexmap::IndexMap;

use super::guard::{Nulls, root_nulls};

/// `root` has the keys of the answer's root in the order of the document, and the fields that they
/// stand for. Only fields of subscriptions may not be null.
pub(super) fn conform(answer: &mut Response, root: &[(String, String)]) {
    let Response { data, errors, .. } = answer;
    // All fields of the root failed, or were left out.
    if *data == Value::Null {
        *data = Value::Object(IndexMap::new());
    }
    for error in errors.iter().filter(|error| !error.path.is_empty()) {
        // A key that is there, with a null, is a field that may be null.
        if !is_there(data, &error.path) {
            set_null(data, &error.path, root);
        }
    }
    if let Value::Object(fields) = data {
        let mut ordered = IndexMap::with_capacity(fields.len());
        for (key, _) in root {
            if let Some((key, value)) = fields.shift_remove_entry(key.as_str()) {
                ordered.insert(key, value);
            }
        }
        ordered.append(fields);
        *fields = ordered;
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

/// Where a null may stand on the way to what failed: only fields of the root may be null, or their
/// entries, above those that can fail and may not.
fn nullable<'a>(
    data: &'a mut Value,
    path: &[PathSegment],
    root: &[(String, String)],
) -> Option<&'a mut Value> {
    let (Value::Object(fields), [PathSegment::Field(key), rest @ ..]) = (data, path) else {
        return None;
    };
    let (_, field) = root.iter().find(|(known, _)| known == key)?;
    let place = match root_nulls(field)? {
        Nulls::Nowhere => return None,
        nulls => (fields.entry(Name::new(key)).or_insert(Value::Null), nulls),
    };
    match (place, rest.first()) {
        ((Value::List(entries), Nulls::FieldAndEntries), Some(PathSegment::Index(index))) => {
            entries.get_mut(*index)
        }
        ((place, _), _) => Some(place),
    }
}
