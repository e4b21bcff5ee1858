use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Default, Deserialize, PartialEq)]
struct Header {
    no_persist: Flag,
    red_dot: Flag,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
struct Channel {
    channel_id: String,
    channel_type: u8,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
struct Everything {
    uid: String,
    version: i64,
    message_seq: u32,
    channel_type: u8,
    header: Header,
    subscribers: Vec<String>,
    types: Vec<u8>,
    channels: Vec<Channel>,
    payload: Base64,
    read_seq: Option<u32>,
}

fn decode(text: &str) -> Result<Everything, Error> {
    JsonObject::parse(text.as_bytes())?.decode()
}

fn refusal(text: &str) -> String {
    decode(text).unwrap_err().to_string()
}

#[test]
fn keys_match_in_any_case_and_null_counts_as_missing() {
    let given = decode(
        r#"{"UID":"ann","Channel_Type":2,"payload":null,"zzz":[1],"header":{"RED_DOT":7},
            "subscribers":["a",null],"types":[null,3],"channels":[null,{"channel_ID":"g"}],"read_seq":0}"#,
    )
    .unwrap();
    let expected = Everything {
        uid: "ann".to_owned(),
        channel_type: 2,
        header: Header {
            no_persist: Flag(false),
            red_dot: Flag(true),
        },
        subscribers: vec!["a".to_owned(), String::new()],
        types: vec![0, 3],
        channels: vec![
            Channel::default(),
            Channel {
                channel_id: "g".to_owned(),
                channel_type: 0,
            },
        ],
        read_seq: Some(0),
        ..Everything::default()
    };
    assert_eq!(given, expected);
    for text in [
        "null",
        "{}",
        r#"{"uid":null,"channels":null,"header":null}"#,
    ] {
        assert_eq!(decode(text).unwrap(), Everything::default(), "{text}");
    }
}

#[test]
fn exact_keys_come_first_and_the_last_duplicate_counts() {
    for (text, uid) in [
        (r#"{"Uid":"b","uid":"a","UID":"c"}"#, "a"),
        (r#"{"uid":"a","uid":"b"}"#, "b"),
        (r#"{"Uid":"a","UID":"b","Uid":"c"}"#, "c"),
        (r#"{"UID":"b","uid":null}"#, ""),
    ] {
        assert_eq!(decode(text).unwrap().uid, uid, "{text}");
    }
}

#[test]
fn wrong_types_and_ranges_name_the_field() {
    for (text, expected) in [
        (r#"{"uid":1}"#, "uid must be a string"),
        (
            r#"{"version":"1"}"#,
            "version must be a whole number of at most 64 bits",
        ),
        (
            r#"{"version":1.5}"#,
            "version must be a whole number of at most 64 bits",
        ),
        (
            r#"{"version":1e3}"#,
            "version must be a whole number of at most 64 bits",
        ),
        (
            r#"{"version":99999999999999999999}"#,
            "version must be a whole number of at most 64 bits",
        ),
        (
            r#"{"version":9223372036854775808}"#,
            "version must be a whole number of at most 64 bits",
        ),
        (
            r#"{"message_seq":-1}"#,
            "message_seq must be a whole number between 0 and 4294967295",
        ),
        (
            r#"{"Channel_Type":256}"#,
            "channel_type must be a whole number between 0 and 255",
        ),
        (
            r#"{"header":{"red_dot":"1"}}"#,
            "header.red_dot must be a whole number of at most 64 bits",
        ),
        (r#"{"header":[]}"#, "header must be a JSON object"),
        (r#"{"subscribers":{}}"#, "subscribers must be an array"),
        (
            r#"{"subscribers":["a",1]}"#,
            "subscribers must be an array of strings",
        ),
        (
            r#"{"types":[1,256]}"#,
            "types must be an array of numbers between 0 and 255",
        ),
        (
            r#"{"types":["1"]}"#,
            "types must be an array of numbers between 0 and 255",
        ),
        (r#"{"channels":[{},1]}"#, "channels must be a JSON object"),
        (
            r#"{"channels":[{"channel_id":1}]}"#,
            "channels.channel_id must be a string",
        ),
        (r#"{"payload":1}"#, "payload must be a string"),
        (
            r#"{"payload":"***"}"#,
            "payload must be standard base64 with padding",
        ),
        (
            r#"{"read_seq":-1}"#,
            "read_seq must be a whole number between 0 and 4294967295",
        ),
        // The first field of the struct, not of the text.
        (r#"{"version":"1","uid":1}"#, "uid must be a string"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn values_inside_of_answers_have_a_name() {
    let refusal = |text: &str| {
        let value = serde_json::from_str(text).unwrap();
        let result: Result<Channel, _> = decode_value(value, "conversation");
        result.unwrap_err().to_string()
    };
    assert_eq!(refusal("[]"), "conversation must be a JSON object");
    assert_eq!(
        refusal(r#"{"channel_id":1}"#),
        "conversation.channel_id must be a string"
    );
}

#[test]
fn numbers_of_queries_are_texts() {
    let decode = |query: &str| JsonObject::from_query(query).decode::<Channel>();
    let channel = decode("channel_id=g%201&channel_type=2&zzz").unwrap();
    assert_eq!(
        (channel.channel_id.as_str(), channel.channel_type),
        ("g 1", 2)
    );
    assert_eq!(decode("channel_type=").unwrap(), Channel::default());
    for (query, expected) in [
        ("channel_type=x", "channel_type must be a whole number"),
        (
            "channel_type=256",
            "channel_type must be a whole number between 0 and 255",
        ),
    ] {
        assert_eq!(decode(query).unwrap_err().to_string(), expected, "{query}");
    }
}

#[test]
fn two_structs_share_an_object_and_wrong_values_can_be_kept_apart() {
    #[derive(Deserialize)]
    struct Message {
        channel_id: Checked<String>,
        seq: Checked<u32>,
    }
    let mut object = JsonObject::parse(br#"{"channel_id":1,"seq":7,"subscribers":["a"]}"#).unwrap();
    let all: Everything = object.decode().unwrap();
    let message: Message = object.decode().unwrap();
    assert_eq!(all.subscribers, ["a"]);
    assert_eq!(message.seq.as_ref(), Some(&7));
    assert_eq!(message.channel_id.or("wrong"), Err("wrong"));
}

#[test]
fn body_must_be_one_json_object() {
    for (body, text) in [
        ("", "the body must be a JSON object, but it is empty"),
        (" \n", "the body must be a JSON object, but it is empty"),
        ("[]", "the body must be a JSON object"),
        (
            "{",
            "the body must be one JSON value, but it is not well-formed at line 1, column 1",
        ),
        (
            r#"{"uid":"ann"} x"#,
            "the body must be one JSON value, but it is not well-formed at line 1, column 15",
        ),
        (
            "uid=ann",
            "the body must be one JSON value, but it is not well-formed at line 1, column 1",
        ),
        // Also inside of unknown keys.
        (
            r#"{"zzz":"\ud80x"}"#,
            "the body must be one JSON value, but it is not well-formed at line 1, column 14",
        ),
    ] {
        assert_eq!(refusal(body), text, "{body}");
    }
    let deep = format!("{}{}", r#"{"zzz":"#, "[".repeat(200));
    assert!(refusal(&deep).contains("not well-formed"));
}

#[test]
fn odd_values_prevent_only_their_own_field_from_being_decoded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for odd in [
        r#""\ud800""#.to_owned(),
        "1e400".to_owned(),
        "9".repeat(400),
        nested(130),
        nested(100_000),
        format!("{{\"\\udc00\":{}}}", nested(200)),
    ] {
        let unknown = format!(r#"{{"zzz":{odd},"uid":"ann","zzz":[{odd},{odd}],"version":7}}"#);
        let expected = Everything {
            uid: "ann".to_owned(),
            version: 7,
            ..Everything::default()
        };
        assert_eq!(decode(&unknown).unwrap(), expected, "{:.20}", odd);
        let known = format!(r#"{{"version":{odd}}}"#);
        assert_eq!(
            refusal(&known),
            "version must be a whole number of at most 64 bits",
            "{:.20}",
            odd
        );
    }
    // Half of a surrogate pair is no character, so an id that contains it is refused later.
    assert_eq!(decode(r#"{"uid":"a\udead"}"#).unwrap().uid, "a\u{7f}");
}

#[test]
fn base64_may_contain_line_breaks() {
    let payload = |text: &str| decode(text).map(|decoded| decoded.payload.0);
    for text in ["aGVsbG8=", "aGVs\\nbG8=", "\\r\\naGVs\\r\\nbG8\\n=\\n"] {
        assert_eq!(
            payload(&format!(r#"{{"payload":"{text}"}}"#)).unwrap(),
            b"hello",
            "{text}"
        );
    }
    for text in ["aGVs bG8=", "aGVs\\tbG8=", "aGVsbG8", "aGVsbG8\\u000b="] {
        assert!(
            payload(&format!(r#"{{"payload":"{text}"}}"#)).is_err(),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = JsonObject::parse(&body).and_then(|mut object| object.decode::<Everything>());
    }
}
