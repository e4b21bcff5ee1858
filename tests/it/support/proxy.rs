//! A proxy between a server and its database (for PostgreSQL's and MySQL's protocols) that sees
//! each statement before the database does, and can hold it, fail it, or close the connection
//! before or after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Engine, Server, TestDatabase};

/// The treatment of one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The statement waits for [`Proxy::release`].
    Hold,
    /// The database has executed the statement, and its response waits.
    HoldAnswer,
    /// The statement passes, and waiters are notified at that moment.
    Late,
    /// The response says that the database rolled back in favour of another transaction.
    Deadlock,
    /// The transaction is rolled back silently while the statement is prepared, as MariaDB does on
    /// Galera nodes.
    RolledBackSilently,
    /// The connection closes before the database receives the statement.
    CutBefore,
    /// The connection closes when the database responds: the statement was executed, but the client
    /// does not know.
    CutAfter,
    /// The database carries out a COMMIT, but the response is an error with this code. Only COMMITs
    /// count for it.
    UnclearCommit(&'static str),
}

/// Errors that do not imply a rollback, for [`Fate::UnclearCommit`]. After other statements, some
/// of them would mean a bug, some a retry, and some an unreachable database.
pub fn unclear_commits(engine: Engine) -> Vec<Fate> {
    let codes: &[&'static str] = match engine {
        Engine::Postgres => &["XX000", "55P03", "58000", "23505", "57014"],
        // The first code comes from a proxy whose database died; the last one does not exist.
        _ => &["2013", "1205", "1317", "1062", "1180", "4999"],
    };
    codes.iter().copied().map(Fate::UnclearCommit).collect()
}

#[derive(Default)]
struct State {
    /// Every statement that the database received.
    seen: Vec<String>,
    /// Number of statements that pass before the one that gets this fate.
    planned: Option<(usize, Fate)>,
    /// Delay of every message to the database.
    delay: Duration,
    down: bool,
}

struct Shared {
    engine: Engine,
    state: Mutex<State>,
    /// Notified when a statement is held.
    held: Notify,
    release: Notify,
    /// Cancelled to close all connections; a new token follows.
    connections: Mutex<CancellationToken>,
}

pub struct Proxy {
    /// Connects to the database through the proxy. Statements are not kept prepared, so that each
    /// of them comes with its text.
    pub url: String,
    shared: Arc<Shared>,
    listening: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn before(database: &TestDatabase) -> Self {
        let (scheme, rest) = database.url.split_once("://").unwrap();
        let (server, name) = rest.rsplit_once('/').unwrap();
        let (user, target) = server.rsplit_once('@').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = if scheme == "postgres" {
            "sslmode=disable"
        } else {
            "ssl-mode=DISABLED"
        };
        let address = listener.local_addr().unwrap();
        let url = format!("{scheme}://{user}@{address}/{name}?statement-cache-capacity=0&{plain}");
        let shared = Arc::new(Shared {
            engine: database.engine,
            state: Mutex::default(),
            held: Notify::new(),
            release: Notify::new(),
            connections: Mutex::new(CancellationToken::new()),
        });
        let listening = tokio::spawn(listen(listener, target.to_owned(), Arc::clone(&shared)));
        Self {
            url,
            shared,
            listening,
        }
    }

    /// Sets the fate of the statement after the next `passing` ones.
    pub fn plan(&self, passing: usize, fate: Fate) {
        self.shared.state.lock().unwrap().planned = Some((passing, fate));
    }

    /// Returns whether the plan was carried out; afterwards there is none.
    pub fn was_met(&self) -> bool {
        self.shared.state.lock().unwrap().planned.take().is_none()
    }

    /// Waits until a statement is held.
    pub async fn held(&self) {
        self.shared.held.notified().await;
    }

    /// Lets the held statement continue.
    pub fn release(&self) {
        self.shared.release.notify_one();
    }

    /// Returns the statements since the last call.
    pub fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().unwrap().seen)
    }

    /// Delays every message.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.state.lock().unwrap().delay = delay;
    }

    /// Closes all connections and accepts no new ones, or accepts them again.
    pub fn set_down(&self, down: bool) {
        self.shared.state.lock().unwrap().down = down;
        if down {
            self.cut();
        }
    }

    /// Closes all connections.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.connections.lock().unwrap()).cancel();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

/// Two servers on one database, perhaps on two nodes of it: one with a direct connection, and one
/// whose statements pass through the proxy.
pub struct Pair<'a> {
    pub direct: &'a Server,
    pub behind: Server,
    pub proxy: Proxy,
}

impl<'a> Pair<'a> {
    /// `node` is the direct server's database, or the same one on another node.
    pub async fn open(direct: &'a Server, node: &Arc<TestDatabase>) -> Self {
        let proxy = Proxy::before(node).await;
        let change = |settings: &mut recents::config::Settings| {
            settings.database.url = proxy.url.as_str().into()
        };
        let behind = Server::start_on(Arc::clone(node), change).await;
        Self {
            direct,
            behind,
            proxy,
        }
    }
}

/// Number of cases that run concurrently.
const WORKERS: usize = 4;

/// Runs `each` case with 0, 1, 2, … statements that pass before the one that gets its fate, until
/// there is no such statement, that is, until `each` returns `false`. Each call also gets a number
/// of its own.
pub async fn at_every_statement<Case: Copy>(
    direct: &Server,
    node: &Arc<TestDatabase>,
    cases: impl Iterator<Item = Case>,
    each: impl AsyncFn(&Pair<'_>, i64, Case, usize) -> bool,
) {
    let (cases, each) = (&Mutex::new(cases), &each);
    let number = &std::sync::atomic::AtomicI64::new(0);
    let workers = (0..WORKERS).map(|_| async move {
        let pair = Pair::open(direct, node).await;
        loop {
            let Some(case) = cases.lock().unwrap().next() else {
                return;
            };
            let mut passing = 0;
            while each(&pair, number.fetch_add(1, Ordering::Relaxed), case, passing).await {
                passing += 1;
            }
        }
    });
    futures_util::future::join_all(workers).await;
}

async fn listen(listener: TcpListener, target: String, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if shared.state.lock().unwrap().down {
            continue;
        }
        let (shared, target) = (Arc::clone(&shared), target.clone());
        let cut = shared.connections.lock().unwrap().child_token();
        tokio::spawn(async move {
            let Ok(database) = TcpStream::connect(&target).await else {
                return;
            };
            client.set_nodelay(true).unwrap();
            database.set_nodelay(true).unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_database, to_database) = database.into_split();
            let next = NextAnswer::default();
            tokio::select! {
                () = cut.cancelled() => {}
                _ = answers(from_database, to_client, &shared, &next) => {}
                _ = requests(from_client, to_database, &shared, &next) => {}
            }
        });
    }
}

/// The treatment of the next response of the database.
#[derive(Default)]
struct NextAnswer {
    /// The connection closes.
    cut: AtomicBool,
    /// The response waits.
    hold: AtomicBool,
    /// The response is not one that the client requested: it is dropped.
    keep: AtomicBool,
    /// Notified when the response was dropped.
    kept: Notify,
    /// The client gets this response instead.
    instead: Mutex<Option<Vec<u8>>>,
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    next: &NextAnswer,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 || next.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        if next.hold.swap(false, Ordering::SeqCst) {
            shared.held.notify_one();
            shared.release.notified().await;
        }
        if next.keep.swap(false, Ordering::SeqCst) {
            next.kept.notify_one();
            continue;
        }
        let instead = next.instead.lock().unwrap().take();
        to.write_all(instead.as_deref().unwrap_or(&buffer[..length]))
            .await?;
    }
}

/// Reads one complete message of the client.
async fn read_message(
    from: &mut OwnedReadHalf,
    engine: Engine,
    begun: bool,
) -> std::io::Result<Vec<u8>> {
    let mut message = vec![
        0;
        if engine.is_mysql_like() || !begun {
            4
        } else {
            5
        }
    ];
    from.read_exact(&mut message).await?;
    let (header, length) = match engine {
        Engine::MariaDb | Engine::MySql => (
            4,
            4 + u32::from_le_bytes([message[0], message[1], message[2], 0]) as usize,
        ),
        // The first message has no type.
        _ if !begun => (
            4,
            u32::from_be_bytes(message[..4].try_into().unwrap()) as usize,
        ),
        _ => (
            5,
            1 + u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize,
        ),
    };
    message.resize(length, 0);
    from.read_exact(&mut message[header..]).await?;
    Ok(message)
}

const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;

/// Returns the text of the statement that a message executes or prepares.
fn statement(message: &[u8], engine: Engine) -> Option<String> {
    let text = match engine {
        Engine::MariaDb | Engine::MySql => (message[3] == 0
            && [COM_QUERY, COM_STMT_PREPARE].contains(message.get(4)?))
        .then(|| &message[5..])?,
        _ => match message[0] {
            b'Q' => message[5..].split(|byte| *byte == 0).next()?,
            b'P' => message[5..].split(|byte| *byte == 0).nth(1)?,
            _ => return None,
        },
    };
    let text = String::from_utf8_lossy(text).into_owned();
    // Settings of connections and cleanup statements are not part of a request.
    let aside = ["SET ", "ROLLBACK", "/* SQLx ping", "SELECT @@"]
        .iter()
        .any(|start| text.starts_with(start));
    (!aside && !text.is_empty()).then_some(text)
}

/// The response to a statement that was rolled back in favour of another transaction.
fn deadlock(engine: Engine) -> Vec<u8> {
    match engine {
        Engine::MariaDb | Engine::MySql => {
            let text = b"\x03SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'";
            [&[text.len() as u8, 0, 0, 0], text.as_slice()].concat()
        }
        _ => {
            let text = b"DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$\0";
            [
                b"Q".as_slice(),
                &(4 + text.len() as u32).to_be_bytes(),
                text,
            ]
            .concat()
        }
    }
}

/// The response to a COMMIT that failed with this code.
fn failed_commit(engine: Engine, code: &str) -> Vec<u8> {
    if engine == Engine::Postgres {
        let fields = format!("SERROR\0VERROR\0C{code}\0Mthe commit failed\0\0");
        let length = (4 + fields.len() as u32).to_be_bytes();
        return [b"E".as_slice(), &length, fields.as_bytes(), b"Z\0\0\0\x05I"].concat();
    }
    let state = if code == "2013" { "08S01" } else { "HY000" };
    let text = format!("#{state}the commit failed");
    let code: u16 = code.parse().unwrap();
    [
        &[3 + text.len() as u8, 0, 0, 1, 0xff],
        code.to_le_bytes().as_slice(),
        text.as_bytes(),
    ]
    .concat()
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    next: &NextAnswer,
) -> std::io::Result<()> {
    let engine = shared.engine;
    let mut begun = false;
    loop {
        let message = read_message(&mut from, engine, begun).await?;
        let text = if begun || engine.is_mysql_like() {
            statement(&message, engine)
        } else {
            None
        };
        begun = true;
        let (fate, delay) = {
            let mut state = shared.state.lock().unwrap();
            let mut fate = None;
            if let Some(text) = &text {
                state.seen.push(text.clone());
                fate = match &mut state.planned {
                    Some((_, Fate::UnclearCommit(_))) if text != "COMMIT" => None,
                    Some((0, fate)) => Some(*fate),
                    Some((passing, _)) => {
                        *passing -= 1;
                        None
                    }
                    None => None,
                };
                if fate.is_some() {
                    state.planned = None;
                }
            }
            (fate, state.delay)
        };
        if delay > Duration::ZERO && text.is_some() {
            tokio::time::sleep(delay).await;
        }
        match fate {
            Some(Fate::Hold) => {
                shared.held.notify_one();
                shared.release.notified().await;
            }
            Some(Fate::HoldAnswer) => next.hold.store(true, Ordering::SeqCst),
            Some(Fate::Late) => shared.held.notify_one(),
            Some(Fate::CutBefore) => return Ok(()),
            Some(Fate::CutAfter) => next.cut.store(true, Ordering::SeqCst),
            Some(Fate::UnclearCommit(code)) => {
                *next.instead.lock().unwrap() = Some(failed_commit(engine, code))
            }
            Some(Fate::Deadlock) => {
                // PostgreSQL's client has sent more messages, up to a Sync: the error answers all
                // of them.
                let mut skipped = message;
                while engine == Engine::Postgres && !b"QS".contains(&skipped[0]) {
                    skipped = read_message(&mut from, engine, true).await?;
                }
                to.write_all(&deadlock(engine)).await?;
                continue;
            }
            Some(Fate::RolledBackSilently) if message[4] == COM_STMT_PREPARE => {
                next.keep.store(true, Ordering::SeqCst);
                to.write_all(b"\x09\0\0\0\x03ROLLBACK").await?;
                next.kept.notified().await;
            }
            Some(Fate::RolledBackSilently) | None => {}
        }
        to.write_all(&message).await?;
    }
}
