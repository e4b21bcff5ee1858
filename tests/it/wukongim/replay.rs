//! Recorded traffic of real servers, replayed: responses always equal those of the reference model,
//! and the recorded ones except for an explicit list of differences.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::support::model::{self, Model, channel, without_versions};
use crate::support::sync_clients::{Incremental, LastSeqs, graphql_full};
use crate::support::{Engine, Server, fixtures};

on_every_database!(
    person_and_group_v1,
    person_and_group_v2,
    webhooks_v1,
    webhooks_v2,
    day_v1,
    day_v2,
    day_v2_with_a_restart_between_webhooks,
);

/// The reasons why a response may differ from the recorded one (docs/COMPATIBILITY.md has the
/// table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Difference {
    /// A user's own message marks everything before it as read (v1 keeps counting).
    SendingReads,
    /// v2 counts messages without a red dot.
    OnlyRedDotsCount,
    /// v2 only ever lowers what setUnread sets.
    SetUnreadHolds,
    /// v1 shows deleted messages again, v2 leaves its read mark where it was.
    DeletionIsAWatermark,
    /// v2 leaves out conversations without newer messages when `last_msg_seqs` or a version is
    /// given, v1 those that were read or deleted elsewhere since the version.
    VersionsCoverEveryChange,
    /// v2 answers `[]` to a `msg_count` of 0 or less, v1 `recents: null`.
    RecentsAreNeverNull,
    /// v2 loses `red_dot` in stored messages.
    RedDotsAreKept,
    /// A repeated send is answered with the first message; v1 and v2 store it twice.
    SendsAreIdempotent,
    /// v1 has no such field.
    ReadedToIsAlwaysThere,
    /// v2's webhook can name the second after the one that its own sync names for the same message.
    TheWebhooksSecond,
}

/// The facts about one conversation when a response is compared.
struct Comparison<'a> {
    v2: bool,
    request: &'a Value,
    member: Option<&'a model::Member>,
    /// This channel has messages without a red dot.
    plain: bool,
    /// This channel had a repeated send.
    repeated: bool,
}

impl Comparison<'_> {
    fn did(&self, what: impl Fn(&model::Member) -> bool) -> bool {
        self.member.is_some_and(what)
    }

    /// Returns the reason why `field` may differ, if there is one.
    fn explain(&self, field: &str, actual: &Value, recorded: &Value) -> Option<Difference> {
        let one_second_early = || {
            actual
                .as_i64()
                .zip(recorded.as_i64())
                .is_some_and(|(actual, recorded)| actual == recorded + 1)
        };
        let count = self.request["msg_count"].as_i64().unwrap_or(0);
        let names = self.request["last_msg_seqs"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        let since = self.request["version"].as_i64().unwrap_or(0) > 0;
        match field {
            _ if self.repeated => Some(Difference::SendsAreIdempotent),
            "unread" if !self.v2 && self.did(|member| member.has_sent) => {
                Some(Difference::SendingReads)
            }
            "unread" if self.v2 && self.did(|member| member.has_set_unread) => {
                Some(Difference::SetUnreadHolds)
            }
            "unread" if self.did(|member| member.has_deleted) => {
                Some(Difference::DeletionIsAWatermark)
            }
            "unread" if self.v2 && self.plain => Some(Difference::OnlyRedDotsCount),
            "readed_to_msg_seq" if recorded.is_null() => Some(Difference::ReadedToIsAlwaysThere),
            // It is derived from unread.
            "readed_to_msg_seq" => self.explain("unread", actual, recorded),
            "timestamp" if self.v2 && one_second_early() => Some(Difference::TheWebhooksSecond),
            "missing" | "extra" if since => Some(Difference::VersionsCoverEveryChange),
            "missing" if self.v2 && names => Some(Difference::VersionsCoverEveryChange),
            "missing" if self.v2 && count <= 0 => Some(Difference::RecentsAreNeverNull),
            "missing" | "extra" if self.did(|member| member.has_deleted) => {
                Some(Difference::DeletionIsAWatermark)
            }
            "recents" if recorded.is_null() && *actual == json!([]) => {
                Some(Difference::RecentsAreNeverNull)
            }
            "recents" if self.did(|member| member.has_deleted) => {
                Some(Difference::DeletionIsAWatermark)
            }
            "recents" if self.v2 && same_but(actual, recorded, false) => {
                Some(Difference::RedDotsAreKept)
            }
            "recents" if self.v2 && same_but(actual, recorded, true) => {
                Some(Difference::TheWebhooksSecond)
            }
            _ => None,
        }
    }
}

/// Returns whether two lists of messages differ only in red dots, and in a time that is one second
/// later where `late` allows it.
fn same_but(actual: &Value, recorded: &Value, late: bool) -> bool {
    let (mut actual, recorded) = (actual.clone(), recorded.clone());
    let (Some(list), Some(other)) = (actual.as_array_mut(), recorded.as_array()) else {
        return false;
    };
    for (actual, recorded) in list.iter_mut().zip(other) {
        actual["header"]["red_dot"] = recorded["header"]["red_dot"].clone();
        if late
            && actual["timestamp"].as_i64()
                == recorded["timestamp"].as_i64().map(|second| second + 1)
        {
            actual["timestamp"] = recorded["timestamp"].clone();
        }
    }
    actual == recorded
}

/// How the messages of a recording are delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Sends,
    Webhooks,
}

struct Replay {
    server: Server,
    model: Model,
    v2: bool,
    delivery: Delivery,
    /// The recorded message ID of each message that was sent here, by its client number.
    recorded_ids: HashMap<i64, i64>,
    repeated: HashSet<String>,
    plain: HashSet<model::Channel>,
    /// Recorded version → the version of this server at the same place.
    versions: HashMap<i64, i64>,
    incremental: BTreeMap<String, Incremental>,
    last_seqs: BTreeMap<String, LastSeqs>,
    seen: BTreeMap<Difference, usize>,
    compared: usize,
    steps: usize,
    /// A message arrived below a head: clients that name the seqs they hold cannot learn of it from
    /// any server.
    late: bool,
}

impl Replay {
    async fn new(engine: Engine, v2: bool, delivery: Delivery) -> Self {
        let server = Server::start(engine).await;
        Self {
            server,
            model: Model::default(),
            v2,
            delivery,
            recorded_ids: HashMap::new(),
            repeated: HashSet::new(),
            plain: HashSet::new(),
            versions: HashMap::new(),
            incremental: BTreeMap::new(),
            last_seqs: BTreeMap::new(),
            seen: BTreeMap::new(),
            compared: 0,
            steps: 0,
            late: false,
        }
    }

    async fn step(&mut self, line: &Value) {
        if let Some(at) = line["at"].as_i64() {
            self.server.set_clock(at);
        }
        let path = line["path"].as_str().unwrap().to_owned();
        self.steps += 1;
        if let Some(event) = path.strip_prefix("?event=") {
            self.webhook(&path, event, line["body"].as_str().unwrap())
                .await;
            return self.check_some_clients().await;
        }
        let text = line["request"].as_str().unwrap_or_default();
        let request: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        match path.as_str() {
            "/message/send" if self.delivery == Delivery::Webhooks => {}
            "/message/send" => self.send(line, &request).await,
            "/conversation/sync" => self.sync(line, request.clone()).await,
            _ => {
                let answer = self.server.post(&path, text.to_owned()).await;
                assert_eq!(
                    (answer.status, answer.text.as_str()),
                    (200, line["response"].as_str().unwrap()),
                    "{path} {text}"
                );
                self.apply(&path, &request);
            }
        }
        match request["uid"].as_str() {
            Some(uid) => self.check_clients(uid).await,
            None => self.check_some_clients().await,
        }
    }

    /// After a step without a particular user: every user when they are few, otherwise the users in
    /// turn.
    async fn check_some_clients(&mut self) {
        let uids: BTreeSet<String> = self
            .model
            .members
            .keys()
            .map(|(uid, _)| uid.clone())
            .collect();
        let uids: Vec<String> = uids.into_iter().collect();
        if uids.is_empty() {
            return;
        }
        let chosen = if uids.len() <= 5 {
            0..uids.len()
        } else {
            let at = self.steps % uids.len();
            at..at + 1
        };
        for uid in &uids[chosen] {
            self.check_clients(uid).await;
        }
    }

    fn apply(&mut self, path: &str, request: &Value) {
        let (uid, id) = (
            request["uid"].as_str().unwrap_or_default(),
            request["channel_id"].as_str().unwrap(),
        );
        let channel = channel(uid, id, request["channel_type"].as_u64().unwrap() as u8);
        let subscribers = || {
            request["subscribers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|uid| uid.as_str().unwrap())
        };
        match path {
            "/channel" | "/channel/subscriber_add" => {
                subscribers().for_each(|uid| self.model.join(uid, &channel))
            }
            "/channel/subscriber_remove" => {
                subscribers().for_each(|uid| self.model.leave(uid, &channel))
            }
            "/conversations/setUnread" => {
                self.model.set_unread(
                    uid,
                    &channel,
                    request["unread"].as_i64().unwrap(),
                    up_to(request),
                );
            }
            "/conversations/clearUnread" => self.model.set_unread(uid, &channel, 0, up_to(request)),
            "/conversations/delete" => self.model.delete(uid, &channel, up_to(request)),
            other => panic!("the model does not know {other}"),
        }
    }

    async fn webhook(&mut self, path: &str, event: &str, body: &str) {
        let answer = self
            .server
            .post(&format!("/webhook{path}"), body.to_owned())
            .await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (200, r#"{"status":200}"#),
            "{body}"
        );
        let body: Value = serde_json::from_str(body).unwrap();
        if event == "msg.notify" {
            body.as_array()
                .unwrap()
                .iter()
                .for_each(|message| self.learn(message));
            return;
        }
        let mut message = body.clone();
        let to_uids = message.as_object_mut().unwrap().remove("to_uids").unwrap();
        message.as_object_mut().unwrap().remove("source_id");
        self.learn(&message);
        let header = &message["header"];
        if message["channel_type"] != 1 && header["sync_once"] == 0 && header["no_persist"] == 0 {
            let channel = channel(
                "",
                message["channel_id"].as_str().unwrap(),
                message["channel_type"].as_u64().unwrap() as u8,
            );
            for uid in to_uids.as_array().unwrap() {
                let sent_at = message["timestamp"].as_i64().unwrap() * 1000;
                self.model.receive(
                    uid.as_str().unwrap(),
                    &channel,
                    message["message_seq"].as_i64().unwrap(),
                    sent_at,
                );
            }
        }
    }

    fn learn(&mut self, message: &Value) {
        let place = channel(
            message["from_uid"].as_str().unwrap(),
            message["channel_id"].as_str().unwrap(),
            message["channel_type"].as_u64().unwrap() as u8,
        );
        self.late |= message["message_seq"].as_i64().unwrap() < self.model.last_seq(&place);
        if message["header"]["red_dot"] == 0 {
            let (from, id) = (
                message["from_uid"].as_str().unwrap(),
                message["channel_id"].as_str().unwrap(),
            );
            self.plain.insert(channel(
                from,
                id,
                message["channel_type"].as_u64().unwrap() as u8,
            ));
        }
        self.model.message(message);
    }

    async fn send(&mut self, line: &Value, request: &Value) {
        let recorded: Value = serde_json::from_str(line["response"].as_str().unwrap()).unwrap();
        let answer = self.server.post("/message/send", request.to_string()).await;
        assert_eq!(answer.status, 200);
        let actual = answer.json();
        let keys: Vec<&String> = actual["data"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["client_msg_no", "message_id", "message_seq"]);
        assert_eq!(
            actual["data"]["client_msg_no"],
            recorded["data"]["client_msg_no"]
        );
        let seq = actual["data"]["message_seq"].as_i64().unwrap();
        let id = actual["data"]["message_id"].as_i64().unwrap();
        if self
            .recorded_ids
            .insert(id, recorded["data"]["message_id"].as_i64().unwrap())
            .is_some()
        {
            self.repeated
                .insert(request["channel_id"].as_str().unwrap().to_owned());
        } else if !self.v2 && self.repeated.is_empty() {
            assert_eq!(recorded["data"]["message_seq"], seq, "{request}");
        }
        if seq > 0 {
            self.learn(&json!({
                "header": request["header"],
                "setting": 0,
                "message_id": id,
                "message_idstr": id.to_string(),
                "client_msg_no": request["client_msg_no"],
                "message_seq": seq,
                "from_uid": request["from_uid"],
                "channel_id": request["channel_id"],
                "channel_type": request["channel_type"],
                "expire": 0,
                "timestamp": line["at"].as_i64().unwrap() / 1000,
                "payload": request["payload"],
            }));
        }
    }

    async fn sync(&mut self, line: &Value, mut request: Value) {
        let uid = request["uid"].as_str().unwrap().to_owned();
        let asked = request["version"].as_i64().unwrap_or(0);
        if asked > 0 {
            // A recorded version becomes this server's version at the same place; a smaller one
            // stays smaller.
            let known = self.versions.get(&asked).copied();
            request["version"] = json!(known.unwrap_or_else(|| self.versions[&(asked + 1)] - 1));
        }
        let actual = self.server.sync(request.clone()).await;
        let recorded: Vec<Value> =
            serde_json::from_str(line["response"].as_str().unwrap()).unwrap();
        for (one, other) in pairs(&actual, &recorded) {
            if let (Some(one), Some(other)) = (one, other) {
                // A recorded version can match several versions of this server, because v1 gives
                // none for a read mark. The client has the first one.
                let actual = one["version"].as_i64().unwrap();
                self.versions
                    .entry(other["version"].as_i64().unwrap())
                    .or_insert(actual);
            }
        }
        if asked <= 0 {
            let client_last_seqs = client_last_seqs(&request);
            let count = request["msg_count"].as_i64().unwrap_or(0).max(0) as usize;
            assert_eq!(
                without_versions(&actual),
                self.model.full(&uid, count, &client_last_seqs),
                "{request}"
            );
        }
        assert_eq!(
            actual,
            graphql_full(&self.server, &request).await,
            "REST and GraphQL differ: {request}"
        );
        self.compare(&uid, &request, &actual, &recorded);
    }

    fn compare(&mut self, uid: &str, request: &Value, actual: &[Value], recorded: &[Value]) {
        for (actual, recorded) in pairs(actual, recorded) {
            let known = actual.or(recorded).unwrap();
            let (id, kind) = (
                known["channel_id"].as_str().unwrap(),
                known["channel_type"].as_u64().unwrap() as u8,
            );
            let facts = Comparison {
                v2: self.v2,
                request,
                member: self.model.member(uid, id, kind),
                plain: self.plain.contains(&channel(uid, id, kind)),
                repeated: self.repeated.contains(id),
            };
            let mut differences = Vec::new();
            match (actual, recorded) {
                (Some(_), None) => differences.push(("missing", json!(null), json!(null))),
                (None, Some(_)) => differences.push(("extra", json!(null), json!(null))),
                (Some(actual), Some(recorded)) => {
                    let recorded_keys: Vec<&String> =
                        recorded.as_object().unwrap().keys().collect();
                    let ours_keys: Vec<&String> = actual.as_object().unwrap().keys().collect();
                    let expected: Vec<&String> = ours_keys
                        .iter()
                        .copied()
                        .filter(|key| self.v2 || *key != "readed_to_msg_seq")
                        .collect();
                    assert_eq!(recorded_keys, expected, "names and order of fields");
                    for field in [
                        "unread",
                        "timestamp",
                        "last_msg_seq",
                        "last_client_msg_no",
                        "offset_msg_seq",
                        "readed_to_msg_seq",
                    ] {
                        if actual[field] != recorded[field] {
                            differences.push((
                                field,
                                actual[field].clone(),
                                recorded[field].clone(),
                            ));
                        }
                    }
                    let recents = self.with_recorded_ids(&actual["recents"]);
                    if text(&recents) != text(&recorded["recents"]) {
                        differences.push(("recents", recents, recorded["recents"].clone()));
                    }
                }
                (None, None) => unreachable!(),
            }
            for (field, actual, recorded) in differences {
                let why = facts.explain(field, &actual, &recorded);
                let why = why.unwrap_or_else(|| {
                    panic!(
                        "{field} of {id} for {uid}, {request}\nactual   {actual}\nrecorded {recorded}"
                    )
                });
                *self.seen.entry(why).or_default() += 1;
            }
            self.compared += 1;
        }
    }

    fn with_recorded_ids(&self, recents: &Value) -> Value {
        let mut recents = recents.clone();
        for message in recents.as_array_mut().into_iter().flatten() {
            if let Some(recorded) = self
                .recorded_ids
                .get(&message["message_id"].as_i64().unwrap())
            {
                message["message_id"] = json!(recorded);
                message["message_idstr"] = json!(recorded.to_string());
            }
        }
        recents
    }

    /// Two more devices of this user: each holds, after every step, the result of a full sync.
    async fn check_clients(&mut self, uid: &str) {
        let full = self.server.full(uid).await;
        assert_eq!(
            without_versions(&full),
            self.model.full(uid, 20, &HashMap::new()),
            "{uid}"
        );
        let request = json!({"uid": uid, "version": 0, "msg_count": 20});
        assert_eq!(
            full,
            graphql_full(&self.server, &request).await,
            "REST and GraphQL differ for {uid}"
        );
        let device = self
            .incremental
            .entry(uid.to_owned())
            .or_insert_with(|| Incremental::new(uid));
        device.sync(&self.server).await;
        device.must_hold(&full);
        let device = self
            .last_seqs
            .entry(uid.to_owned())
            .or_insert_with(|| LastSeqs::new(uid));
        device.sync(&self.server).await;
        if self.late {
            device.must_list(&full);
        } else {
            device.must_hold(&full);
        }
    }

    /// Asserts that the replay compared something, and that every difference that this recording
    /// must show occurred.
    fn finish(&self, at_least: usize, expected: &[Difference]) {
        assert!(
            self.compared >= at_least,
            "only {} conversations were compared",
            self.compared
        );
        let seen: Vec<Difference> = self.seen.keys().copied().collect();
        assert_eq!(seen, expected, "{:?}", self.seen);
    }
}

/// As text, so that the order of fields counts.
fn text(value: &Value) -> String {
    value.to_string()
}

/// Pairs the conversations of two responses by channel.
fn pairs<'a>(
    actual: &'a [Value],
    recorded: &'a [Value],
) -> Vec<(Option<&'a Value>, Option<&'a Value>)> {
    let key = |item: &Value| {
        (
            item["channel_type"].to_string(),
            item["channel_id"].to_string(),
        )
    };
    let mut by_key: BTreeMap<_, (Option<&Value>, Option<&Value>)> = BTreeMap::new();
    for item in actual {
        assert!(
            by_key
                .entry(key(item))
                .or_default()
                .0
                .replace(item)
                .is_none(),
            "twice in one answer: {item}"
        );
    }
    for item in recorded {
        by_key.entry(key(item)).or_default().1 = Some(item);
    }
    by_key.into_values().collect()
}

/// Splits the `last_msg_seqs` of a recorded request as the design defines.
fn client_last_seqs(request: &Value) -> HashMap<(String, u8), i64> {
    let text = request["last_msg_seqs"].as_str().unwrap_or_default();
    let mut client_last_seqs = HashMap::new();
    for part in text.split('|') {
        let mut fields = part.rsplitn(3, ':');
        if let (Some(seq), Some(kind), Some(id)) = (fields.next(), fields.next(), fields.next())
            && let (Ok(seq), Ok(kind)) = (seq.parse(), kind.parse())
        {
            client_last_seqs.insert((id.to_owned(), kind), seq);
        }
    }
    client_last_seqs
}

async fn person_and_group(engine: Engine, version: &str) -> Replay {
    let mut replay = Replay::new(engine, version == "v2", Delivery::Sends).await;
    for file in ["person", "group"] {
        for line in fixtures::lines(&format!("{version}/{file}.jsonl")) {
            replay.step(&line).await;
        }
    }
    replay
}

async fn person_and_group_v1(engine: Engine) {
    use Difference::*;
    person_and_group(engine, "v1").await.finish(
        30,
        &[
            SendingReads,
            DeletionIsAWatermark,
            VersionsCoverEveryChange,
            RecentsAreNeverNull,
            SendsAreIdempotent,
            ReadedToIsAlwaysThere,
        ],
    );
}

async fn person_and_group_v2(engine: Engine) {
    use Difference::*;
    person_and_group(engine, "v2").await.finish(
        30,
        &[
            OnlyRedDotsCount,
            SetUnreadHolds,
            DeletionIsAWatermark,
            VersionsCoverEveryChange,
            RecentsAreNeverNull,
            RedDotsAreKept,
            SendsAreIdempotent,
        ],
    );
}

/// The same clients, but the messages come as webhooks, merged by time.
async fn webhooks(engine: Engine, version: &str) -> Replay {
    let mut replay = Replay::new(engine, version == "v2", Delivery::Webhooks).await;
    let calls = ["person", "group"]
        .iter()
        .flat_map(|file| fixtures::lines(&format!("{version}/{file}.jsonl")));
    let mut lines: Vec<Value> = calls.collect();
    let end = lines.last().unwrap()["at"].as_i64().unwrap();
    lines.extend(
        fixtures::lines(&format!("{version}/webhook.jsonl"))
            .into_iter()
            .filter(|line| line["at"].as_i64().unwrap() <= end),
    );
    lines.sort_by_key(|line| line["at"].as_i64().unwrap());
    for line in lines {
        replay.step(&line).await;
    }
    replay
}

async fn webhooks_v1(engine: Engine) {
    use Difference::*;
    webhooks(engine, "v1").await.finish(
        30,
        &[
            SendingReads,
            DeletionIsAWatermark,
            VersionsCoverEveryChange,
            RecentsAreNeverNull,
            ReadedToIsAlwaysThere,
        ],
    );
}

async fn webhooks_v2(engine: Engine) {
    use Difference::*;
    webhooks(engine, "v2").await.finish(
        30,
        &[
            OnlyRedDotsCount,
            SetUnreadHolds,
            DeletionIsAWatermark,
            VersionsCoverEveryChange,
            RecentsAreNeverNull,
            RedDotsAreKept,
            TheWebhooksSecond,
        ],
    );
}

async fn day(engine: Engine, version: &str) -> Replay {
    let mut replay = Replay::new(engine, version == "v2", Delivery::Webhooks).await;
    for line in fixtures::lines(&format!("day-{version}.jsonl.gz")) {
        replay.step(&line).await;
    }
    replay
}

async fn day_v1(engine: Engine) {
    use Difference::*;
    day(engine, "v1").await.finish(
        3800,
        &[SendingReads, DeletionIsAWatermark, ReadedToIsAlwaysThere],
    );
}

async fn day_v2(engine: Engine) {
    use Difference::*;
    day(engine, "v2").await.finish(
        3800,
        &[
            OnlyRedDotsCount,
            SetUnreadHolds,
            DeletionIsAWatermark,
            VersionsCoverEveryChange,
            RedDotsAreKept,
            TheWebhooksSecond,
        ],
    );
}

/// No state is kept in memory only: another server continues after every webhook.
async fn day_v2_with_a_restart_between_webhooks(engine: Engine) {
    let mut replay = Replay::new(engine, true, Delivery::Webhooks).await;
    let lines = fixtures::lines("day-v2.jsonl.gz");
    for line in lines
        .iter()
        .filter(|line| line["path"] != "/conversation/sync")
    {
        replay.step(line).await;
        if line["kind"] == "webhook" {
            let next = replay.server.restart(|_| {}).await;
            replay.server = next;
        }
    }
    let uids: HashSet<String> = replay
        .model
        .members
        .keys()
        .map(|(uid, _)| uid.clone())
        .collect();
    assert!(uids.len() >= 46);
    for uid in uids {
        assert_eq!(
            without_versions(&replay.server.full(&uid).await),
            replay.model.full(&uid, 20, &HashMap::new()),
            "{uid}"
        );
    }
}

/// Returns the seq up to which a request reads or deletes.
fn up_to(request: &Value) -> Option<i64> {
    request["message_seq"].as_i64().filter(|seq| *seq > 0)
}
