//! User tokens: which ones are accepted, and that all others are refused.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use recents::config::Settings;
use serde_json::{Value, json};

use crate::support::process::{run, stderr};
use crate::support::tokens::{Pair, SECRET, in_seconds, signed, token};
use crate::support::{Engine, Server};

async fn server(change: impl FnOnce(&mut Settings)) -> Server {
    Server::start_with(Engine::Sqlite, change).await
}

/// Returns the status and the code for a user who requests their own list.
async fn ask(server: &Server, token: &str) -> (u16, String) {
    let body = json!({"query": "{ unreadSummary { total } }"}).to_string();
    let request = server
        .http("POST", "/graphql")
        .header("content-type", "application/json");
    let answer = server
        .request(
            request
                .header("authorization", format!("Bearer {token}"))
                .body(body),
        )
        .await;
    let json = answer.json();
    (
        answer.status,
        json["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or("none")
            .to_owned(),
    )
}

async fn is_accepted(server: &Server, token: &str) -> bool {
    match ask(server, token).await {
        (200, code) if code == "none" => true,
        (401, code) if code == "UNAUTHENTICATED" => false,
        other => panic!("{other:?}"),
    }
}

/// Returns a forged token.
fn forge(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(header),
        part(claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

#[tokio::test]
async fn forged_and_broken_tokens_are_refused() {
    let server = server(|settings| settings.auth.jwt.secret = SECRET.into()).await;
    let good = token("ann");
    assert!(is_accepted(&server, &good).await);
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    let [head, body, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other_body =
        URL_SAFE_NO_PAD.encode(json!({"sub": "bob", "exp": in_seconds(3600)}).to_string());
    let with = |algorithm: Algorithm| {
        jsonwebtoken::encode(
            &Header::new(algorithm),
            &claims,
            &EncodingKey::from_secret(SECRET.as_bytes()),
        )
        .unwrap()
    };
    let bad = [
        (
            "another secret",
            signed(&claims, "another secret of thirty-two bytes or so"),
        ),
        ("no secret", signed(&claims, "")),
        ("HS384 with the secret", with(Algorithm::HS384)),
        ("HS512 with the secret", with(Algorithm::HS512)),
        ("none", forge(&json!({"alg": "none"}), &claims, b"")),
        (
            "None",
            forge(&json!({"alg": "None", "typ": "JWT"}), &claims, b""),
        ),
        (
            "none, with a signature",
            forge(&json!({"alg": "none"}), &claims, b"signature"),
        ),
        (
            "another algorithm said",
            format!(
                "{}.{body}.{signature}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#)
            ),
        ),
        (
            "no algorithm",
            forge(&json!({"typ": "JWT"}), &claims, b"signature"),
        ),
        (
            "another user's claims",
            format!("{head}.{other_body}.{signature}"),
        ),
        ("no signature", format!("{head}.{body}.")),
        (
            "half a signature",
            format!("{head}.{body}.{}", &signature[..20]),
        ),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{good}.x")),
        ("dots", "..".to_owned()),
        ("nothing", String::new()),
        ("words", "let me in".to_owned()),
        ("very long", "a".repeat(20_000)),
        (
            "expired",
            signed(&json!({"sub": "ann", "exp": in_seconds(-60)}), SECRET),
        ),
        ("no exp", signed(&json!({"sub": "ann"}), SECRET)),
        (
            "exp that is no number",
            signed(&json!({"sub": "ann", "exp": "tomorrow"}), SECRET),
        ),
        (
            "negative exp",
            signed(&json!({"sub": "ann", "exp": -5}), SECRET),
        ),
        (
            "not yet",
            signed(
                &json!({"sub": "ann", "exp": in_seconds(3600), "nbf": in_seconds(600)}),
                SECRET,
            ),
        ),
        ("no sub", signed(&json!({"exp": in_seconds(3600)}), SECRET)),
        (
            "an empty sub",
            signed(&json!({"sub": "", "exp": in_seconds(3600)}), SECRET),
        ),
        (
            "a sub that is no text",
            signed(&json!({"sub": 7, "exp": in_seconds(3600)}), SECRET),
        ),
        (
            "a sub that is no uid",
            signed(&json!({"sub": "a\nb", "exp": in_seconds(3600)}), SECRET),
        ),
        ("claims that are a list", signed(&json!(["ann"]), SECRET)),
    ];
    for (what, token) in &bad {
        if token.len() > 16_000 {
            // Above the limit of HTTP or of this server: refused in any case.
            let (status, _) = ask(&server, token).await;
            assert!((400..500).contains(&status), "{what}: {status}");
            continue;
        }
        assert!(
            !is_accepted(&server, token).await,
            "{what} was taken: {token}"
        );
    }
    // The leeway allows for clocks that differ.
    assert!(
        is_accepted(
            &server,
            &signed(&json!({"sub": "ann", "exp": in_seconds(-10)}), SECRET)
        )
        .await
    );
    let answer = server
        .request(
            server
                .http("POST", "/graphql")
                .header("content-type", "application/json")
                .body("{}"),
        )
        .await;
    assert_eq!(answer.status, 401);
    let response = server
        .http("POST", "/graphql")
        .header("authorization", "Bearer x")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    let expired = signed(&json!({"sub": "ann", "exp": in_seconds(-60)}), SECRET);
    let request = server
        .http("POST", "/graphql")
        .header("authorization", format!("Bearer {expired}"));
    let text = server.request(request).await.text;
    assert!(
        text.contains("the token has expired") && !text.contains(&expired),
        "{text}"
    );
}

#[tokio::test]
async fn configured_audience_and_issuer_are_checked() {
    let server = server(|settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.jwt.audience = "recents".to_owned();
        settings.auth.jwt.issuer = "https://login.example.com".to_owned();
    })
    .await;
    let exp = in_seconds(3600);
    for (audience, issuer, taken) in [
        (json!("recents"), json!("https://login.example.com"), true),
        (
            json!(["other", "recents"]),
            json!("https://login.example.com"),
            true,
        ),
        (json!("other"), json!("https://login.example.com"), false),
        (json!([]), json!("https://login.example.com"), false),
        (Value::Null, json!("https://login.example.com"), false),
        (json!("recents"), json!("https://login.example.org"), false),
        (json!("recents"), Value::Null, false),
    ] {
        let mut claims = json!({"sub": "ann", "exp": exp, "aud": audience, "iss": issuer});
        claims
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        assert_eq!(
            is_accepted(&server, &signed(&claims, SECRET)).await,
            taken,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn each_key_works_for_its_algorithm_only() {
    let folder = tempfile::tempdir().unwrap();
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    let kinds = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let pairs: Vec<Pair> = kinds
        .iter()
        .map(|kind| Pair::make(folder.path(), *kind, &format!("{kind:?}")))
        .collect();
    let strangers: Vec<Pair> = kinds
        .iter()
        .map(|kind| Pair::make(folder.path(), *kind, &format!("strange-{kind:?}")))
        .collect();
    for (index, pair) in pairs.iter().enumerate() {
        let server = server(|settings| {
            settings.auth.jwt.public_key_file = pair.public_file.display().to_string()
        })
        .await;
        assert!(
            is_accepted(&server, &pair.sign(&claims, None)).await,
            "{:?}",
            pair.algorithm
        );
        assert!(
            is_accepted(&server, &pair.sign(&claims, Some("any"))).await,
            "{:?}",
            pair.algorithm
        );
        for (other, stranger) in pairs
            .iter()
            .zip(&strangers)
            .enumerate()
            .filter_map(|(at, both)| (at != index).then_some(both))
        {
            assert!(
                !is_accepted(&server, &other.sign(&claims, None)).await,
                "key of {:?} taken for {:?}",
                other.algorithm,
                pair.algorithm
            );
            assert!(
                !is_accepted(&server, &stranger.sign(&claims, None)).await,
                "a stranger's key of {:?} taken for {:?}",
                stranger.algorithm,
                pair.algorithm
            );
        }
        assert!(
            !is_accepted(&server, &strangers[index].sign(&claims, None)).await,
            "a stranger's key of {:?}",
            pair.algorithm
        );
        // The public key is not secret: a token that is signed with it as a shared secret is
        // refused.
        for secret in [pair.public(), pair.public().trim().to_owned()] {
            assert!(
                !is_accepted(&server, &signed(&claims, &secret)).await,
                "{:?} taken for HS256",
                pair.algorithm
            );
        }
    }
    // All keys in one file, and a shared secret: each with its own algorithm.
    let all = folder.path().join("all.pem");
    std::fs::write(&all, pairs.iter().map(Pair::public).collect::<String>()).unwrap();
    let server = server(|settings| {
        settings.auth.jwt.public_key_file = all.display().to_string();
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.jwt.previous_secret = "the secret before, of thirty-two bytes".into();
    })
    .await;
    for pair in &pairs {
        assert!(
            is_accepted(&server, &pair.sign(&claims, None)).await,
            "{:?}",
            pair.algorithm
        );
        assert!(
            !is_accepted(&server, &signed(&claims, &pair.public())).await,
            "{:?} taken for HS256",
            pair.algorithm
        );
    }
    assert!(is_accepted(&server, &token("ann")).await);
    assert!(
        is_accepted(
            &server,
            &signed(&claims, "the secret before, of thirty-two bytes")
        )
        .await,
        "until it is taken out"
    );
}

/// An issuer whose keys the test can change.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
    /// Milliseconds until the issuer answers.
    pause: Arc<AtomicU64>,
}

impl Issuer {
    async fn start(keys: Option<Vec<Value>>) -> Self {
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let pause = Arc::new(AtomicU64::new(0));
        let state = (Arc::clone(&keys), Arc::clone(&asked), Arc::clone(&pause));
        let answer = move || {
            let (keys, asked, pause) = state.clone();
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(pause.load(Ordering::Relaxed))).await;
                match keys.lock().unwrap().clone() {
                    Some(keys) => Ok(json!({"keys": keys}).to_string()),
                    None => Err(axum::http::StatusCode::INTERNAL_SERVER_ERROR),
                }
            }
        };
        let router = axum::Router::new().route("/jwks", axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            keys,
            asked,
            pause,
        }
    }
}

#[tokio::test]
async fn jwks_keys() {
    let folder = tempfile::tempdir().unwrap();
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    let kinds = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let pairs: Vec<Pair> = kinds
        .iter()
        .map(|kind| Pair::make(folder.path(), *kind, &format!("{kind:?}")))
        .collect();
    let names = ["one", "two", "three"];
    let issuer = Issuer::start(Some(
        pairs
            .iter()
            .zip(names)
            .map(|(pair, name)| pair.jwk(name))
            .collect(),
    ))
    .await;
    let server = server(|settings| settings.auth.jwt.jwks_url = issuer.url.as_str().into()).await;
    // Many concurrent tokens cause one request to the issuer.
    let tokens: Vec<String> = pairs
        .iter()
        .zip(names)
        .map(|(pair, name)| pair.sign(&claims, Some(name)))
        .collect();
    let first = futures_util::future::join_all(
        (0..20).map(|index| is_accepted(&server, &tokens[index % 3])),
    )
    .await;
    assert!(first.iter().all(|taken| *taken));
    assert!(
        is_accepted(&server, &pairs[0].sign(&claims, None)).await,
        "a token that does not name its key"
    );
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
    // An unknown key is requested, but not more often than the limit allows.
    for number in 0..20 {
        assert!(
            !is_accepted(&server, &pairs[0].sign(&claims, Some("made up"))).await,
            "request {number}"
        );
    }
    assert!(
        !is_accepted(&server, &pairs[0].sign(&claims, Some("two"))).await,
        "another key's name"
    );
    assert!(!is_accepted(&server, &signed(&claims, &pairs[0].public())).await);
    assert!(
        issuer.asked.load(Ordering::Relaxed) <= 2,
        "asked {} times",
        issuer.asked.load(Ordering::Relaxed)
    );
    // The issuer is unreachable: known keys stay known.
    *issuer.keys.lock().unwrap() = None;
    assert!(is_accepted(&server, &tokens[1]).await);
}

/// A new key is fetched when the first token names it, at the earliest ten seconds after the last
/// fetch.
#[tokio::test]
async fn jwks_key_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    let (old, new) = (
        Pair::make(folder.path(), Algorithm::EdDSA, "old"),
        Pair::make(folder.path(), Algorithm::EdDSA, "new"),
    );
    let issuer = Issuer::start(Some(vec![old.jwk("old")])).await;
    let server = server(|settings| settings.auth.jwt.jwks_url = issuer.url.as_str().into()).await;
    assert!(is_accepted(&server, &old.sign(&claims, Some("old"))).await);
    *issuer.keys.lock().unwrap() = Some(vec![new.jwk("new")]);
    assert!(
        !is_accepted(&server, &new.sign(&claims, Some("new"))).await,
        "asked a moment ago"
    );
    tokio::time::sleep(std::time::Duration::from_millis(10_200)).await;
    assert!(is_accepted(&server, &new.sign(&claims, Some("new"))).await);
    assert!(
        !is_accepted(&server, &old.sign(&claims, Some("old"))).await,
        "taken back"
    );
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn unreachable_issuer_is_503() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::make(folder.path(), Algorithm::ES256, "one");
    let issuer = Issuer::start(None).await;
    let server = server(|settings| {
        settings.auth.jwt.jwks_url = issuer.url.as_str().into();
        settings.auth.jwt.secret = SECRET.into();
    })
    .await;
    let token_of_it = pair.sign(&json!({"sub": "ann", "exp": in_seconds(3600)}), Some("one"));
    assert_eq!(
        ask(&server, &token_of_it).await,
        (503, "SERVICE_UNAVAILABLE".to_owned())
    );
    assert!(
        is_accepted(&server, &token("ann")).await,
        "the secret needs no issuer"
    );
}

#[tokio::test]
async fn rate_limits_send_retry_after() {
    let server = server(|settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.manager_token = "hush".into();
        settings.limits.user_requests_per_second = 5;
        settings.limits.address_requests_per_second = 20;
    })
    .await;
    let (ann, bob) = (token("ann"), token("bob"));
    // All requests at the same time, so that a slow machine is as fast as the limit.
    let requests = (0..30).map(|_| {
        let request = server
            .http("POST", "/graphql")
            .header("authorization", format!("Bearer {ann}"));
        request
            .header("content-type", "application/json")
            .body(r#"{"query":"{ __typename }"}"#)
            .send()
    });
    let mut taken = 0;
    let mut refused = Vec::new();
    for response in futures_util::future::join_all(requests).await {
        let response = response.unwrap();
        match response.status().as_u16() {
            200 => taken += 1,
            429 => refused.push((
                response.headers()["retry-after"].clone(),
                response.text().await.unwrap(),
            )),
            other => panic!("{other}"),
        }
    }
    assert!(
        taken >= 10 && !refused.is_empty(),
        "twice the rate at once, but {taken} were taken"
    );
    assert!(
        refused.iter().all(|(after, text)| after == "1"
            && text.contains(r#"{"code":"RATE_LIMITED","retryAfter":1}"#)),
        "{refused:?}"
    );
    assert_eq!(
        ask(&server, &bob).await.0,
        200,
        "another user's limit is another"
    );
    // Guessed tokens count towards the address before they are checked; services are exempt.
    let tries = futures_util::future::join_all((0..100).map(|_| ask(&server, "let me in"))).await;
    let refused: Vec<u16> = tries.into_iter().map(|(status, _)| status).collect();
    assert!(refused.contains(&429), "{refused:?}");
    assert!(
        refused.iter().all(|status| [401, 429].contains(status)),
        "{refused:?}"
    );
    let legacy = (0..100).map(|_| {
        server.request(
            server
                .http("POST", "/conversation/sync")
                .header("authorization", "Bearer x")
                .body("{}"),
        )
    });
    let answers = futures_util::future::join_all(legacy).await;
    let limited = answers
        .iter()
        .find(|answer| answer.status == 429)
        .expect("no 429");
    assert_eq!(limited.msg(), "too many requests, try again in 1 s");
    for number in 0..60 {
        let request = server
            .http("POST", "/conversation/sync")
            .header("token", "hush")
            .body("{}");
        assert_eq!(
            server.request(request).await.status,
            200,
            "request {number}"
        );
    }
}

/// Tokens with unknown key IDs, on many connections, while the issuer is slow: users with known
/// keys do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_issuer_does_not_delay_known_keys() {
    let folder = tempfile::tempdir().unwrap();
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    let pair = Pair::make(folder.path(), Algorithm::EdDSA, "one");
    let issuer = Issuer::start(Some(vec![pair.jwk("one")])).await;
    let server = server(|settings| {
        settings.auth.jwt.jwks_url = issuer.url.as_str().into();
        settings.limits.address_requests_per_second = 0;
        settings.limits.user_requests_per_second = 0;
        settings.limits.max_concurrent_requests = 256;
    })
    .await;
    let good = pair.sign(&claims, Some("one"));
    assert!(is_accepted(&server, &good).await);
    // The issuer is asked again at the earliest ten seconds after the last time.
    tokio::time::sleep(Duration::from_millis(10_200)).await;
    issuer.pause.store(4000, Ordering::Relaxed);
    let made_up = (0..300)
        .map(|number| pair.sign(&claims, Some(&format!("made up {number}"))))
        .collect::<Vec<_>>();
    let begun = Instant::now();
    let tries = futures_util::future::join_all(made_up.iter().map(|token| ask(&server, token)));
    let honest = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut slowest = Duration::ZERO;
        for number in 0..20 {
            let asked = Instant::now();
            assert!(is_accepted(&server, &good).await, "request {number}");
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (tries, slowest) = tokio::join!(tries, honest);
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}: some waited for the issuer",
        begun.elapsed()
    );
    assert!(
        tries
            .iter()
            .all(|(status, _)| [401, 429, 503].contains(status)),
        "{tries:?}"
    );
}

#[tokio::test]
async fn fractional_times_and_critical_headers() {
    let server = server(|settings| settings.auth.jwt.secret = SECRET.into()).await;
    let fraction = |seconds: i64| in_seconds(seconds) as f64 + 0.25;
    assert!(
        is_accepted(
            &server,
            &signed(
                &json!({"sub": "ann", "exp": fraction(60), "nbf": fraction(-60)}),
                SECRET
            )
        )
        .await
    );
    assert!(
        !is_accepted(
            &server,
            &signed(&json!({"sub": "ann", "exp": fraction(-3600)}), SECRET)
        )
        .await
    );
    assert!(
        !is_accepted(
            &server,
            &signed(
                &json!({"sub": "ann", "exp": fraction(7200), "nbf": fraction(3600)}),
                SECRET
            )
        )
        .await
    );
    for exp in [json!("soon"), json!(-1.5), json!(null), json!([1])] {
        assert!(
            !is_accepted(&server, &signed(&json!({"sub": "ann", "exp": exp}), SECRET)).await,
            "{exp}"
        );
    }
    let claims = json!({"sub": "ann", "exp": in_seconds(3600)});
    for (critical, is_taken_then) in [
        (json!(null), true),
        (json!(["exp"]), false),
        (json!(["b64"]), false),
    ] {
        let mut header = json!({"alg": "HS256", "typ": "JWT"});
        if !critical.is_null() {
            header["crit"] = critical;
        }
        let text = forge(&header, &claims, b"");
        let text = text.strip_suffix('.').unwrap();
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature =
            jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(
            is_accepted(&server, &format!("{text}.{signature}")).await,
            is_taken_then,
            "{header}"
        );
    }
}

#[tokio::test]
async fn private_key_is_refused_as_public_key() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let pair = Pair::make(folder.path(), algorithm, "one");
        let file = folder.path().join("private.pem");
        std::fs::write(&file, &pair.private).unwrap();
        let output = run(
            folder.path(),
            &["serve"],
            &[(
                "RECENTS__AUTH__JWT__PUBLIC_KEY_FILE",
                file.to_str().unwrap(),
            )],
        );
        assert_eq!(output.status.code(), Some(2), "{algorithm:?}");
        assert!(
            stderr(&output).contains("holds a private key"),
            "{}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn receivers_mutations_and_operations_count_as_requests() {
    let server = server(|settings| {
        settings.auth.jwt.secret = SECRET.into();
        settings.auth.manager_token = "hush".into();
        settings.auth.users_may_send = true;
        settings.limits.user_requests_per_second = 20;
        settings.limits.batch_operations = 50;
    })
    .await;
    let batch = async |caller: (&str, &str), from: &str, receivers: Vec<String>| {
        let body = json!({"from_uid": from, "payload": crate::support::server::payload("hello"), "subscribers": receivers});
        let request = server
            .http("POST", "/message/sendbatch")
            .header(caller.0, caller.1)
            .body(body.to_string());
        server.request(request).await
    };
    let strangers = |name: &str, count: usize| {
        (0..count)
            .map(|number| format!("{name}{number}"))
            .collect::<Vec<_>>()
    };
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(|uid| format!("Bearer {}", token(uid)));
    let ann = ("authorization", ann.as_str());
    let answer = batch(ann, "ann", strangers("many", 101)).await;
    assert_eq!(
        (answer.status, answer.msg()),
        (400, "subscribers must name at most 100 users".to_owned())
    );
    let answer = batch(ann, "ann", strangers("more", 60)).await;
    assert_eq!(
        answer.status, 400,
        "more than may ever be asked at once: {answer:?}"
    );
    let answer = batch(ann, "ann", strangers("first", 30)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"fail_uids": [], "reason": []}))
    );
    let answer = batch(ann, "ann", strangers("second", 30)).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    // All messages are sent, or none.
    for (uid, count) in [("first29", 1), ("second0", 0), ("more0", 0), ("many0", 0)] {
        let request = server
            .http("POST", "/conversation/sync")
            .header("token", "hush")
            .body(json!({"uid": uid}).to_string());
        assert_eq!(
            server
                .request(request)
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            count,
            "{uid}"
        );
    }

    let graphql = async |authorization: &str, body: Value| {
        let request = server
            .http("POST", "/graphql")
            .header("content-type", "application/json");
        server
            .request(
                request
                    .header("authorization", authorization)
                    .body(body.to_string()),
            )
            .await
    };
    let send = |name: &str, count: usize| {
        let fields = (0..count).map(|number| {
            let channel = format!("{{channelId: \"{name}{number}\", channelType: 1}}");
            format!("a{number}: sendMessage(input: {{channel: {channel}, payload: \"eA==\"}}) {{ message {{ messageSeq }} }}")
        });
        json!({"query": format!("mutation {{ {} }}", fields.collect::<Vec<_>>().join(" "))})
    };
    let answer = graphql(&bob, send("third", 30)).await.json();
    assert_eq!(
        answer["data"]["a29"]["message"]["messageSeq"], 1,
        "{answer}"
    );
    let answer = graphql(&bob, send("fourth", 30)).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(
        answer.json()["errors"][0]["extensions"],
        json!({"code": "RATE_LIMITED", "retryAfter": 1})
    );
    // The fields of a query are one request; other limits bound their cost.
    let fields = (0..30)
        .map(|number| format!("a{number}: unreadSummary {{ total }}"))
        .collect::<Vec<_>>()
        .join(" ");
    let query = json!({"query": format!("{{ {fields} }}")});
    let operations = |count: usize| json!(vec![json!({"query": "{ __typename }"}); count]);
    assert_eq!(graphql(&cid, query).await.status, 200);
    assert_eq!(graphql(&cid, operations(30)).await.status, 200);
    assert_eq!(graphql(&cid, operations(30)).await.status, 429);

    let service = ("token", "hush");
    for _ in 0..2 {
        assert_eq!(
            batch(service, "boss", strangers("fifth", 100)).await.status,
            200,
            "services are not counted"
        );
    }
    let answer = batch(service, "boss", strangers("sixth", 1001)).await;
    assert_eq!(
        (answer.status, answer.msg()),
        (400, "subscribers must name at most 1000 users".to_owned())
    );
}
