//! Values that are refused.

use super::load;
use crate::config::Settings;

#[test]
fn invalid_toml_is_reported_with_its_line() {
    for file in [
        "[limits]\nmax_messages_per_conversation = 9223372036854775808",
        "[limits]\nmax_messages_per_conversation = 1e400",
        "[limits]\nmax_messages_per_conversation =",
    ] {
        let error = load(file, &[]).unwrap_err().to_string();
        assert!(
            error.contains("given.toml is not valid TOML at line 2"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given.toml");
    std::fs::write(&path, b"[log]\nlevel = '\xff'").unwrap();
    let error = Settings::load(Some(&path)).unwrap_err().to_string();
    assert!(
        error.ends_with("given.toml is not UTF-8 at line 2, byte 15 of the file"),
        "{error}"
    );
}

#[test]
fn invalid_values_name_the_key_and_its_source() {
    let error = load("[limits]\nmax_messages_per_conversation = 'many'", &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("limits.max_messages_per_conversation") && error.contains("given.toml"),
        "{error}"
    );
    let error = load("", &[("RECENTS__DATABASE__MAX_CONNECTIONS", "lots")])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("database.max_connections") && error.contains("environment"),
        "{error}"
    );
    let error = load("[ingest]\nwukongim = 'v4'", &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("ingest.wukongim"), "{error}");
    for (file, key) in [
        (
            "[database]\nmax_connections = 0",
            "database.max_connections",
        ),
        (
            "[database]\nacquire_timeout_seconds = 86401",
            "database.acquire_timeout_seconds",
        ),
        (
            "[database]\nstartup_timeout_seconds = 86401",
            "database.startup_timeout_seconds",
        ),
        (
            "[limits]\nrequest_timeout_seconds = 9223372036854775807",
            "limits.request_timeout_seconds",
        ),
        (
            "[limits]\nmax_concurrent_requests = 1000001",
            "limits.max_concurrent_requests",
        ),
        (
            "[database]\nmax_connections = 10001",
            "database.max_connections",
        ),
        ("[limits]\nbody_bytes = 1e19", "limits.body_bytes"),
        (
            "[limits]\nmax_members_per_request = inf",
            "limits.max_members_per_request",
        ),
        (
            "[limits]\nmax_last_msg_seqs = '18446744073709551615'",
            "limits.max_last_msg_seqs",
        ),
        ("[limits]\ndocument_depth = 33", "limits.document_depth"),
        (
            "[limits]\nbatch_operations = 101",
            "limits.batch_operations",
        ),
        ("[limits]\ndocument_tokens = 0", "limits.document_tokens"),
        (
            "[graphql]\nintrospection = 'perhaps'",
            "graphql.introspection",
        ),
        ("limits = [1]", "limits in"),
        (
            "[database]\ntransaction_pooler = true",
            "database.transaction_pooler",
        ),
        ("[database]\nurl = 'oracle://x'", "database.url"),
        ("[ingest]\nwebhook_secret = 'a/b'", "ingest.webhook_secret"),
        (
            "[ingest]\nforward_url = 'business/hook'",
            "ingest.forward_url",
        ),
        (
            "[ingest]\nforward_url = 'ftp://business'",
            "ingest.forward_url",
        ),
        (
            "[ingest]\ndatasource_forward_url = 'x'",
            "ingest.datasource_forward_url",
        ),
    ] {
        let error = load(file, &[]).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn invalid_auth_settings_name_the_key() {
    for (file, text) in [
        (
            "[server]\ncors_origins = ['chat.example.com']",
            "server.cors_origins: \"chat.example.com\"",
        ),
        (
            "[server]\ncors_origins = ['https://chat.example.com/']",
            "did you mean https://chat.example.com?",
        ),
        (
            "[server]\ncors_origins = ['https://Chat.example.com']",
            "did you mean https://chat.example.com?",
        ),
        (
            "[server]\ncors_origins = ['https://chat.example.com:443']",
            "did you mean https://chat.example.com?",
        ),
        (
            "[server]\ncors_origins = ['https://*.example.com']",
            "is not an origin",
        ),
        ("[server]\ncors_origins = ['*']", "is not an origin"),
        ("[server]\ncors_origins = ['null']", "is not an origin"),
        (
            "[server]\ncors_headers = ['*']",
            "\"*\" is not the name of a header",
        ),
        (
            "[server]\ncors_headers = ['a b']",
            "\"a b\" is not the name of a header",
        ),
        ("[server]\ndrain_seconds = 86401", "server.drain_seconds"),
        ("[log]\nlevel = 'warning'", "did you mean warn?"),
        ("[log]\nlevel = ''", "log.level must be"),
        ("[log]\nlevel = 'info,sqlx'", "\"sqlx\" is not a level"),
        ("[log]\nlevel = 'info,sqlx=loud'", "\"loud\" is not a level"),
        (
            "[server]\ntrusted_proxies = ['10.0.0.0/33']",
            "server.trusted_proxies: \"10.0.0.0/33\"",
        ),
        ("[auth]\nmanager_token = 'with space'", "auth.manager_token"),
        (
            "[auth]\nprevious_manager_token = 'x'",
            "auth.previous_manager_token is set",
        ),
        (
            "[auth.jwt]\nprevious_secret = 'x'",
            "auth.jwt.previous_secret is set",
        ),
        (
            "[auth.jwt]\nissuer = 'x'",
            "have no effect: set auth.jwt.secret",
        ),
        (
            "[auth.jwt]\njwks_url = 'ftp://x'",
            "auth.jwt.jwks_url must begin with",
        ),
        (
            "[auth.jwt]\njwks_url = 'x'",
            "auth.jwt.jwks_url must be a URL",
        ),
        ("[auth.jwt]\nsecrets = 'x'", "unknown key auth.jwt.secrets"),
        ("[auth]\njwt = 'x'", "auth.jwt in"),
        ("[live]\nredis_url = 'host:6379'", "live.redis_url"),
        ("[live]\nredis_channel = ''", "live.redis_channel"),
        (
            "[live]\npoll_interval_seconds = 0",
            "live.poll_interval_seconds",
        ),
        (
            "[limits]\nmax_user_live_connections = 0",
            "limits.max_user_live_connections",
        ),
    ] {
        let error = load(file, &[]).unwrap_err().to_string();
        assert!(error.contains(text), "{file}: {error}");
    }
}

#[test]
fn forwarding_addresses_are_checked() {
    for address in [
        "business",
        "business:0",
        "business:70000",
        "http://business:6979",
        "business:6979/x",
        "me:hush@business:6979",
        ":6979",
        "bus iness:6979",
    ] {
        let error = load(&format!("[ingest]\nforward_grpc = '{address}'"), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ingest.forward_grpc must be a host and a port")
                && !error.contains("hush"),
            "{address}: {error}"
        );
    }
    for (listen, key, address) in [
        (
            "127.0.0.1:5001",
            "forward_url",
            "http://127.0.0.1:5001/webhook",
        ),
        (
            "127.0.0.1:5001",
            "forward_url",
            "http://LOCALHOST:5001/x?y=hush",
        ),
        (
            "0.0.0.0:5001",
            "forward_url",
            "http://me:hush@[::1]:5001/hush",
        ),
        ("[::]:80", "datasource_forward_url", "http://localhost/"),
        ("10.0.0.1:443", "datasource_forward_url", "https://10.0.0.1"),
        (
            "chat.example.com:5001",
            "forward_url",
            "http://chat.example.com:5001",
        ),
        ("127.0.0.1:1", "forward_grpc", "localhost:5002"),
    ] {
        let file = format!(
            "[server]\nlisten = '{listen}'\n[ingest]\ngrpc_listen = '0.0.0.0:5002'\n{key} = '{address}'"
        );
        let error = load(&file, &[]).unwrap_err().to_string();
        assert!(
            error.contains(&format!(
                "ingest.{key} is the address of this server itself"
            )) && !error.contains("hush"),
            "{file}: {error}"
        );
    }
    for (listen, key, address) in [
        ("127.0.0.1:5001", "forward_url", "http://127.0.0.1:5002"),
        ("127.0.0.1:0", "forward_url", "http://127.0.0.1:80"),
        ("127.0.0.1:5001", "forward_url", "http://business:5001"),
        (
            "0.0.0.0:5001",
            "datasource_forward_url",
            "http://10.0.0.1:5001",
        ),
        ("127.0.0.1:5001", "forward_grpc", "127.0.0.1:5001"),
        ("127.0.0.1:5001", "forward_grpc", "[::1]:6979"),
    ] {
        let file = format!("[server]\nlisten = '{listen}'\n[ingest]\n{key} = '{address}'");
        load(&file, &[]).unwrap();
    }
}

#[test]
fn log_filters_are_accepted() {
    for level in [
        "info",
        "WARN",
        "off",
        "info,sqlx=debug",
        "recents=trace, hyper=warn",
    ] {
        load(&format!("[log]\nlevel = '{level}'"), &[]).unwrap();
    }
}

#[test]
fn invalid_proxy_settings_name_the_key() {
    let url = |url: &str| format!("[proxy]\nwukongim_url = '{url}'\n");
    let with_url = |line: &str| url("http://wukongim:5001") + line;
    for (file, text) in [
        (url("wukongim:5001"), "proxy.wukongim_url must begin with"),
        (url("ftp://wukongim"), "proxy.wukongim_url must begin with"),
        (url("http://"), "proxy.wukongim_url must be a URL"),
        (
            url("http://me:pass@wukongim"),
            "proxy.wukongim_url must be like",
        ),
        (
            url("http://wukongim/?a=1"),
            "proxy.wukongim_url must be like",
        ),
        (url("http://127.0.0.1:5001"), "this server's own"),
        (url("http://localhost:5001/"), "this server's own"),
        (url("http://[::1]:5001"), "this server's own"),
        (url("http://0.0.0.0:5001"), "this server's own"),
        (
            url("http://127.0.0.1:80") + "[server]\nlisten = '0.0.0.0:80'",
            "this server's own",
        ),
        (
            url("http://im.example") + "[server]\nlisten = 'im.example:80'",
            "this server's own",
        ),
        (with_url("wukongim_token = 'a b'"), "proxy.wukongim_token"),
        (
            with_url("trusted_peers = ['10.0.0.0/33']"),
            "proxy.trusted_peers",
        ),
        (with_url("trusted_peers = ['app']"), "proxy.trusted_peers"),
        (
            with_url("trusted_peers = ['0.0.0.0/0']"),
            "would let everybody",
        ),
        (
            with_url("trusted_peers = ['10.0.0.1', '::/0']"),
            "would let everybody",
        ),
        (with_url("timeout_seconds = 0"), "proxy.timeout_seconds"),
        (with_url("max_connections = 0"), "proxy.max_connections"),
        (
            "[proxy]\ntrusted_peers = ['10.0.0.1']".to_owned(),
            "proxy.trusted_peers is set, but proxy.wukongim_url is empty",
        ),
        (
            "[proxy]\nwukongim_token = 'x'".to_owned(),
            "proxy.wukongim_token is set, but proxy.wukongim_url is empty",
        ),
    ] {
        let error = load(&file, &[]).unwrap_err().to_string();
        assert!(
            error.contains(text) && !error.contains("pass@"),
            "{file}: {error}"
        );
    }
    for file in [
        url("http://wukongim:5001"),
        url("https://gateway.example/im"),
        url("http://127.0.0.1:5002"),
        url("http://192.0.2.1:5001"),
        url("http://localhost:80") + "[server]\nlisten = '192.0.2.1:80'",
        with_url("trusted_peers = ['10.0.0.0/8', '::1']"),
    ] {
        load(&file, &[]).unwrap();
    }
}
