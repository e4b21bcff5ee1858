//! The use cases through both interfaces, and GraphQL over HTTP.

mod bad_input;
mod bulk_removals;
mod conversation_list;
mod conversations;
mod graphql_http;
mod graphql_responses;
mod members;
mod message_content;
mod read_positions;
mod sending;
mod whole_answers;
