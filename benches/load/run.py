"""Measures a release build against raw SQL, side by side in one run. `scripts/bench --help` says how to start it.

Every figure is the median of several rounds; a round runs all cases one after the other, so that a temporary slowdown of this
machine affects all of them. Load comes from separate processes: wrk for HTTP, pgbench for SQL. Only successful requests count.
"""

import argparse
import json
import math
import os
import pathlib
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

from tools import PAYLOAD, Load, PostGraphile, Server, processes_in, processor_seconds

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SYNC = "/conversation/sync"
# Prefixes of the names of read-only cases.
READS = ("raw-list", "raw-messages", "sync", "screen", "m-full", "m-nothing", "m-screen", "l-nothing", "l-screen")

LIST = """SELECT c.channel_id, ch.channel_type, ch.channel_key, ch.last_seq, ch.revision, ch.red_dots, ch.last_message_at, c.read_mark,
 c.deleted_to_seq, c.joined_seq, c.left_seq, c.membership, c.version, c.stamped_revision, c.pinned_at, c.muted
 FROM conversation c JOIN channel ch ON ch.id = c.channel_id WHERE c.uid = 'u0';"""
MESSAGES = """SELECT m.* FROM conversation c JOIN channel ch ON ch.id = c.channel_id
 JOIN message m ON m.channel_id = c.channel_id AND m.seq > ch.last_seq - 20 WHERE c.uid = 'u0';"""
# The minimum that a send writes: the channel's head and the message.
COLUMNS = "channel_id, seq, message_id, client_msg_no, from_uid, sent_at, red_dot, setting, topic, expire, stream_no, stream_seq, stream_flag, payload"
WRITE = f"""\\set n random(1, 500)
\\set id random(1, 9223372036854775806)
BEGIN;
UPDATE raw_channel SET last_seq = last_seq + 1, revision = revision + 1, red_dots = red_dots + 1, last_message_at = 1795393148000
 WHERE number = :n RETURNING id AS channel, last_seq AS seq \\gset
INSERT INTO raw_message ({COLUMNS}) VALUES (:channel, :seq, :id, 'n' || :id, 's1', 1795393148000, true, 0, '', 0, '', 0, 0,
 decode('{PAYLOAD}', 'base64'));
COMMIT;"""
UPDATE = """\\set n random(1, 500)
\\set unread random(1, 1000000)
UPDATE raw_conversation SET read_mark = :unread WHERE uid = 'u0' AND number = :n;"""
# Copies with a number for each row, so that a script can draw one.
RAW_TABLES = [
    "CREATE TABLE raw_channel (LIKE channel INCLUDING ALL)", "ALTER TABLE raw_channel ADD number int",
    "INSERT INTO raw_channel SELECT c.*, row_number() OVER () FROM channel c WHERE c.channel_key ~ '^g[0-9]+$'",
    "CREATE UNIQUE INDEX ON raw_channel (number)",
    "CREATE TABLE raw_message (LIKE message INCLUDING ALL)",
    "CREATE TABLE raw_conversation (LIKE conversation INCLUDING ALL)", "ALTER TABLE raw_conversation ADD number int",
    "INSERT INTO raw_conversation SELECT c.*, row_number() OVER () FROM conversation c WHERE c.uid = 'u0'",
    "CREATE UNIQUE INDEX ON raw_conversation (uid, number)",
    "VACUUM ANALYZE",
]
QUERY = """query ($uid: ID!) { conversations(uid: $uid, msgCount: 20) { version conversations { channelId channelType unread
 lastActivityAt lastMsgSeq version recents { messageId messageSeq clientMsgNo fromUid channelId channelType setting sentAt payload } } } }"""
SCREEN = """query ($uid: ID!) { conversationList(uid: $uid, first: 50) { totalCount nodes { id channelId channelType unread lastActivityAt
 lastMessage { fromUid sentAt payload } } } }"""


# PostGraphile reads the tables as they are; comments declare their relations.
RELATIONS = [f"COMMENT ON TABLE {table} IS E'@foreignKey (channel_id) references channel (id)'" for table in ("conversation", "message")]
SAME_ROWS = """{ allConversations(condition: {uid: "u0"}) { nodes { channelId version readMark deletedToSeq channelByChannelId {
 channelType channelKey lastSeq redDots lastMessageAt messagesByChannelId(first: 20, orderBy: SEQ_DESC) { nodes {
 messageId seq clientMsgNo fromUid setting sentAt payload } } } } } }"""


class Bench:
    """One database, one server on it, and the results of its cases."""

    def __init__(self, arguments, engine, work):
        self.arguments, self.engine, self.work = arguments, engine, work
        self.data = pathlib.Path(arguments.databases) / {"postgres": "postgres", "mariadb": "mariadb"}[engine] / "data" if engine != "sqlite" else None
        self.figures, self.files, self.webhooks = {}, 0, 0
        self.url = self.new_database()
        self.start()

    def start(self, settings=None):
        self.server = self.asked = Server(self.arguments.binary, self.url, self.work, settings)
        self.load = Load(self.server)

    def new_database(self):
        name = f"bench_{os.getpid()}_{random.randrange(10**6)}"
        if self.engine == "postgres":
            base = self.arguments.postgres
            subprocess.run(["psql", "-q", f"{base}/postgres", "-c", f"CREATE DATABASE {name}"], check=True)
        elif self.engine == "mariadb":
            base = self.arguments.mariadb
            subprocess.run([*self.mariadb(base), "-e", f"CREATE DATABASE {name}"], check=True)
        else:
            return f"sqlite://{self.work}/{name}.db?mode=rwc"
        return f"{base}/{name}"

    @staticmethod
    def mariadb(url):
        parts = urllib.parse.urlsplit(url)
        return ["mariadb", "-h", parts.hostname, "-P", str(parts.port), "-u", parts.username, f"-p{parts.password}", *filter(None, [parts.path[1:]])]

    def file(self, text):
        self.files += 1
        path = self.work / f"file{self.files}"
        path.write_text(text)
        return str(path)

    def sql(self, *statements):
        for text in statements:
            subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", self.url, "-c", text], check=True, stdout=subprocess.DEVNULL)

    def settle(self):
        """Runs the database's periodic work now, so that it does not happen during a case."""
        if self.engine == "postgres":
            self.sql("VACUUM ANALYZE", "CHECKPOINT")
        elif self.engine == "mariadb":
            subprocess.run([*self.mariadb(self.url), "-e", "ANALYZE TABLE channel, message, conversation, user_cursor"], check=True, stdout=subprocess.DEVNULL)

    def used(self):
        return processor_seconds([self.asked.process.pid]), processor_seconds(processes_in(self.data))

    def record(self, name, rate, p50, p99, seconds, before):
        """A round of a case: rate per second, latencies in ms, processor time of server and database for each request."""
        server, database = (after - earlier for after, earlier in zip(self.used(), before))
        done = max(rate * seconds, 1)
        self.figures.setdefault(name, []).append((rate, p50, p99, server * 1000 / done, database * 1000 / done))
        print(f"  {name:52} {rate:10.1f}/s   p50 {p50:8.2f} ms   p99 {p99:8.2f} ms", flush=True)

    def wrk_command(self, clients, *case):
        return ["wrk", "-t1", f"-c{clients}", f"-d{self.arguments.seconds}s", "--timeout", "60s", "-s", HERE / "requests.lua",
                f"http://{self.asked.address}", "--", *map(str, case)]

    @staticmethod
    def wrk_result(name, output):
        result = json.loads(output.strip().splitlines()[-1])
        if result["errors"] or not result["requests"]:
            sys.exit(f"{name}: {output}")
        return result

    def wrk(self, name, clients, *case, factor=1):
        """Runs one round of one case; each request does `factor` operations."""
        before = self.used()
        output = subprocess.run(self.wrk_command(clients, *case), check=True, capture_output=True, text=True).stdout
        result = self.wrk_result(name, output)
        self.record(name, result["requests"] * factor / result["seconds"], result["p50"], result["p99"], result["seconds"], before)

    def postgraphile(self, name, clients, query):
        """Reads the same rows from PostGraphile, which runs for this case only."""
        body = {"query": query}
        self.asked = PostGraphile(self.url)
        try:
            nodes = self.asked.post("/graphql", body)["data"]["allConversations"]["nodes"]
            assert len(nodes) == 500 and all(len(node["channelByChannelId"]["messagesByChannelId"]["nodes"]) == 20 for node in nodes)
            self.wrk(name, clients, "post", "/graphql", self.file(json.dumps(body)))
        finally:
            self.asked.stop()
            self.asked = self.server

    def beside(self, name, clients, case, others):
        """Runs a case while others run."""
        background = [subprocess.Popen(self.wrk_command(*other), stdout=subprocess.DEVNULL) for other in others]
        time.sleep(0.3)
        self.wrk(name, clients, *case)
        for process in background:
            process.wait()

    def pgbench(self, name, clients, script):
        before = self.used()
        parts = urllib.parse.urlsplit(self.url)
        command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(self.arguments.seconds),
                   "-f", self.file(script), "-h", parts.hostname, "-p", str(parts.port), "-U", parts.username, parts.path[1:]]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rate = float(re.search(r"tps = ([0-9.]+)", output)[1])
        self.record(name, rate, float(re.search(r"latency average = ([0-9.]+)", output)[1]), math.nan, self.arguments.seconds, before)

    def slap(self, name, clients, script, statements):
        """Runs mariadb-slap with a file of statements; each client executes all of them."""
        before, parts = self.used(), urllib.parse.urlsplit(self.url)
        command = ["mariadb-slap", "--no-defaults", "-h", parts.hostname, "-P", str(parts.port), "-u", parts.username, f"-p{parts.password}",
                   f"--create-schema={parts.path[1:]}", "--no-drop", f"--concurrency={clients}", "--delimiter=;", f"--query={self.file(script)}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = float(re.search(r"Average number of seconds[^:]*: ([0-9.]+)", output)[1])
        rate = statements * clients / seconds
        self.record(name, rate, 1000 * clients / rate, math.nan, seconds, before)

    def sqlite(self, name, work):
        """Runs Python's sqlite3 on one connection, with the server's settings."""
        before, latencies = self.used(), []
        connection = sqlite3.connect(self.url.removeprefix("sqlite://").removesuffix("?mode=rwc"), isolation_level=None, timeout=30)
        connection.execute("PRAGMA synchronous = FULL")
        end = time.monotonic() + self.arguments.seconds
        began = time.monotonic()
        while (now := time.monotonic()) < end:
            work(connection)
            latencies.append(time.monotonic() - now)
        seconds = time.monotonic() - began
        connection.close()
        self.record(name, len(latencies) / seconds, statistics.median(latencies) * 1000, sorted(latencies)[-len(latencies) // 100] * 1000, seconds, before)

    def next_webhook(self):
        self.webhooks += 1
        return self.webhooks

    def run(self, cases):
        """Runs the reading cases first, so that cursors stay current and the data unchanged for them, then the writing ones."""
        wanted = [name for name in self.arguments.only.split(",") if name]
        for kind in ("reads", "writes"):
            some = {name: case for name, case in cases.items() if name.startswith(READS) == (kind == "reads")
                    and (not wanted or any(name.startswith(part) for part in wanted))}
            for number in range(self.arguments.rounds if some else 0):
                print(f"{self.engine}, {kind}, round {number + 1}", flush=True)
                self.settle()
                for case in some.values():
                    case()

    def median(self, name):
        return tuple(statistics.median(column) for column in zip(*self.figures[name])) if name in self.figures else None


    def ratios(self):
        """Returns the ratios of the measured cases that have a goal."""
        for case, yardstick, wanted in GOALS:
            raw = self.median(yardstick) or self.median(re.sub(r"\d+ clients", "one writer", yardstick))
            if self.median(case) and raw:
                yield case, yardstick, wanted, self.median(case)[0] / raw[0]


def yardsticks(bench):
    """Raw SQL on the same rows, without a server in between."""
    if bench.engine == "postgres":
        bench.sql(*RAW_TABLES)
        return {
            "raw-list": lambda: bench.pgbench("raw list", 2, LIST),
            "raw-messages": lambda: bench.pgbench("raw messages", 2, MESSAGES),
            "raw-write-8": lambda: bench.pgbench("raw writes, 8 clients", 8, WRITE),
            "raw-write-64": lambda: bench.pgbench("raw writes, 64 clients", 64, WRITE),
            "raw-update": lambda: bench.pgbench("raw updates, 16 clients", 16, UPDATE),
        }
    numbered = "CREATE TABLE raw_channel AS SELECT c.*, row_number() OVER (ORDER BY id) AS number FROM channel c WHERE c.channel_key LIKE 'g%'"
    if bench.engine == "mariadb":
        for text in [numbered, "ALTER TABLE raw_channel ADD PRIMARY KEY (id), ADD UNIQUE (number)", "CREATE TABLE raw_message LIKE message"]:
            subprocess.run([*bench.mariadb(bench.url), "-e", text], check=True)
        write = "".join(
            f"BEGIN; UPDATE raw_channel SET last_seq = (@seq := last_seq + 1), revision = revision + 1, red_dots = red_dots + 1, last_message_at = 1"
            f" WHERE number = {random.randint(1, 500)}; INSERT INTO raw_message ({COLUMNS}) VALUES"
            f" ({number}, FLOOR(RAND() * 1e15), FLOOR(RAND() * 9e18), 'n', 's1', 1, 1, 0, '', 0, '', 0, 0, FROM_BASE64('{PAYLOAD}')); COMMIT;"
            for number in range(400))
        update = "".join(f"UPDATE conversation SET muted = 1 - muted WHERE uid = 's{random.randint(1, 19)}' AND channel_id = "
                         f"(SELECT id FROM raw_channel WHERE number = {random.randint(1, 500)});" for _ in range(1000))
        return {
            "raw-list": lambda: bench.slap("raw list", 2, LIST * 1000, 1000),
            "raw-messages": lambda: bench.slap("raw messages", 2, MESSAGES * 60, 60),
            "raw-write-8": lambda: bench.slap("raw writes, 8 clients", 8, write, 400),
            "raw-update": lambda: bench.slap("raw updates, 16 clients", 16, update, 1000),
        }
    connection = sqlite3.connect(bench.url.removeprefix("sqlite://").removesuffix("?mode=rwc"))
    connection.execute(numbered)
    connection.execute("CREATE UNIQUE INDEX raw_channel_number ON raw_channel (number)")
    connection.execute("CREATE TABLE raw_message AS SELECT * FROM message WHERE 1 = 0")
    connection.execute("CREATE UNIQUE INDEX raw_message_key ON raw_message (channel_id, seq)")
    connection.commit()
    connection.close()

    def write(connection):
        connection.execute("BEGIN IMMEDIATE")
        channel, seq = connection.execute("UPDATE raw_channel SET last_seq = last_seq + 1, revision = revision + 1 WHERE number = ?"
                                          " RETURNING id, last_seq", (random.randint(1, 500),)).fetchone()
        connection.execute(f"INSERT INTO raw_message ({COLUMNS}) VALUES (?, ?, 1, 'n', 's1', 1, 1, 0, '', 0, '', 0, 0, ?)", (channel, seq, PAYLOAD))
        connection.execute("COMMIT")

    def update(connection):
        connection.execute("UPDATE conversation SET muted = 1 - muted WHERE uid = 's1' AND channel_id = (SELECT id FROM raw_channel WHERE number = ?)",
                           (random.randint(1, 500),))
    return {
        "raw-list": lambda: bench.sqlite("raw list", lambda connection: connection.execute(LIST).fetchall()),
        "raw-messages": lambda: bench.sqlite("raw messages", lambda connection: connection.execute(MESSAGES).fetchall()),
        "raw-write-8": lambda: bench.sqlite("raw writes, one writer", write),
        "raw-update": lambda: bench.sqlite("raw updates, one writer", update),
    }


def set_s(bench):
    """S: one user, 500 groups of 20 messages, and nothing else."""
    bench.load.groups([f"g{number}" for number in range(500)], lambda _: ["u0"] + [f"s{number}" for number in range(1, 20)])
    bench.load.messages([f"g{number}" for number in range(500)], 20)
    bench.load.groups(["live"], lambda _: [f"l{number}" for number in range(500)])
    server, everything = bench.server, {"uid": "u0", "version": 0, "msg_count": 20}
    items = server.post(SYNC, everything)
    assert len(items) == 500 and all(len(item["recents"]) == 20 for item in items), len(items)
    versions = sorted(item["version"] for item in items)
    body = lambda version: bench.file(json.dumps(everything | {"version": version}))
    full, nothing, one = body(0), body(versions[-1]), body(versions[-2])
    graphql = {"query": QUERY, "variables": {"uid": "u0"}}
    assert len(server.post(SYNC, everything | {"version": versions[-2]})) == 1
    assert len(server.post("/graphql", graphql)["data"]["conversations"]["conversations"]) == 500
    graphql, screen = bench.file(json.dumps(graphql)), bench.file(json.dumps({"query": SCREEN, "variables": {"uid": "u0"}}))
    others = {}
    if bench.engine == "postgres" and shutil.which("postgraphile"):
        bench.sql(*RELATIONS)
        others["sync-postgraphile"] = lambda: bench.postgraphile("the same rows over PostGraphile, 4 clients", 4, SAME_ROWS)
    return yardsticks(bench) | others | {
        "sync-full": lambda: bench.wrk("full sync, REST, 4 clients", 4, "post", SYNC, full),
        "sync-graphql": lambda: bench.wrk("full sync, GraphQL, 4 clients", 4, "post", "/graphql", graphql),
        "sync-nothing": lambda: bench.wrk("nothing changed, 16 clients", 16, "post", SYNC, nothing),
        "sync-one": lambda: bench.wrk("one of 500 changed, 16 clients", 16, "post", SYNC, one),
        "screen": lambda: bench.wrk("first 50 of the list, GraphQL, 16 clients", 16, "post", "/graphql", screen),
        "send-1": lambda: bench.wrk("send, 1 connection", 1, "send", 500, PAYLOAD),
        "send-16": lambda: bench.wrk("send, 16 connections", 16, "send", 500, PAYLOAD),
        "send-64": lambda: bench.wrk("send, 64 connections", 64, "send", 500, PAYLOAD),
        "send-hot": lambda: bench.wrk("send, 64 connections, one group", 64, "send", 1, PAYLOAD),
        "send-beside": lambda: bench.beside("send, 16 connections, beside 2 full syncs at a time", 16, ("send", 500, PAYLOAD), [(2, "post", SYNC, full)]),
        "webhook": lambda: bench.wrk("webhook messages, 8 connections, 100 a body", 8, "webhook", 500, 100, PAYLOAD, bench.next_webhook(), factor=100),
        "unread-16": lambda: bench.wrk("setUnread, 16 connections, one user", 16, "unread", "u0", 500),
        "unread-64": lambda: bench.wrk("setUnread, 64 connections, one user", 64, "unread", "u0", 500),
        "unread-many": lambda: bench.wrk("setUnread, 64 connections, 20 users", 64, "unread", "s", 500),
        "live": lambda: live(bench),
    }


def live(bench):
    """500 subscribers of one group at 50 messages a second; the result is processor cores, not a rate."""
    seconds = max(bench.arguments.seconds, 6)
    command = [sys.executable, HERE / "subscribers.py", bench.server.address, str(seconds), "--group", "live", *[f"l{number}" for number in range(500)]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    before, began = bench.used(), time.monotonic()
    result = json.loads(process.stdout.readline())
    process.wait()
    took = time.monotonic() - began
    server, database = ((after - earlier) / took for after, earlier in zip(bench.used(), before))
    name = "500 subscribers, 50 messages a second"
    bench.figures.setdefault(name, []).append((result["events"] / took, result["p50"], result["p99"], server, database))
    print(f"  {name:52} {result['events'] / took:10.1f} events/s, p50 {result['p50']:.0f} ms, p99 {result['p99']:.0f} ms,"
          f" {server:.2f} cores of the server, {database:.2f} of the database; {result['told']} told, each at least {result['least']} times", flush=True)


def set_m(bench):
    """M: 2,000 users in 50 of 5,000 groups each, a million messages."""
    share = bench.arguments.share
    groups, users, messages = [f"g{number}" for number in range(max(5000 // share, 50))], 2000 // share, 200
    members = lambda name: [f"u{(int(name[1:]) + step * (users // 20)) % users}" for step in range(20)]
    bench.load.groups(groups, members)
    bench.load.messages(groups, messages)
    full, nothing, screens = [], [], []
    for number in range(users):
        everything = {"uid": f"u{number}", "version": 0, "msg_count": 20}
        items = bench.server.post(SYNC, everything)
        full.append(json.dumps(everything))
        nothing.append(json.dumps(everything | {"version": max(item["version"] for item in items)}))
        screens.append(json.dumps({"query": SCREEN, "variables": {"uid": f"u{number}"}}))
    full, nothing, screens = (bench.file("\n".join(lines) + "\n") for lines in (full, nothing, screens))
    return {
        "m-full": lambda: bench.wrk("M: full sync of 50, REST, 16 clients", 16, "each", SYNC, full),
        "m-nothing": lambda: bench.wrk("M: nothing changed, 16 clients", 16, "each", SYNC, nothing),
        "m-screen": lambda: bench.wrk("M: first 50 of the list, GraphQL, 16 clients", 16, "each", "/graphql", screens),
        "m-send": lambda: bench.wrk("M: send, 64 connections, 5,000 groups", 64, "send", len(groups), PAYLOAD),
    }


def set_l(bench):
    """L: 10 million messages; a channel of a million, a group of 100,000 members, a user with 50,000 conversations. Also the smaller
    ones of each kind, for the curves."""
    share = bench.arguments.share
    began = time.monotonic()
    for size in [2, 1000, 100_000 // share]:
        bench.load.groups([f"members{size}"], lambda _, size=size: ["s1"] + [f"m{number}" for number in range(size - 1)])
        bench.load.messages([f"members{size}"], 20)
    for length in [20, 10_000, 1_000_000 // share]:
        bench.load.groups([f"length{length}"], lambda _: ["s1", "s2"])
        bench.load.messages([f"length{length}"], length)
    counts = [50, 500, 5000, 50_000 // share]
    for count in counts:
        names = [f"of{count}-{number}" for number in range(count)]
        bench.load.groups(names, lambda _, count=count: [f"u{count}", "s1"])
        bench.load.messages(names, 20 if count < counts[-1] else 160)
    print(f"L loaded in {time.monotonic() - began:.0f} s", flush=True)
    cases, everything = {}, {"version": 0, "msg_count": 1}
    for count in counts:
        items = bench.server.post(SYNC, everything | {"uid": f"u{count}"})
        assert len(items) == count, (len(items), count)
        last = max(item["version"] for item in items)
        body = bench.file(json.dumps(everything | {"uid": f"u{count}", "version": last}))
        screen = bench.file(json.dumps({"query": SCREEN, "variables": {"uid": f"u{count}"}}))
        cases[f"l-nothing-{count}"] = lambda body=body, count=count: bench.wrk(f"L: nothing changed of {count:,} conversations, 1 client", 1, "post", SYNC, body)
        cases[f"l-screen-{count}"] = lambda screen=screen, count=count: bench.wrk(f"L: first 50 of {count:,} conversations, 1 client", 1, "post", "/graphql", screen)
    for size in [2, 1000, 100_000 // share]:
        cases[f"l-send-{size}"] = lambda size=size: bench.wrk(f"L: send to {size:,} members, 16 connections", 16, "group", f"members{size}", PAYLOAD)
    for length in [20, 10_000, 1_000_000 // share]:
        cases[f"l-length-{length}"] = lambda length=length: bench.wrk(f"L: send after {length:,} messages, 16 connections", 16, "group", f"length{length}", PAYLOAD)
    memory = bench.server.memory()
    bench.server.stop()
    bench.start()
    print(f"L: started in {bench.server.started_in:.2f} s; memory before {memory:.0f} MB", flush=True)
    bench.start_on_l, bench.memory_on_l = bench.server.started_in, memory
    return cases


# Case, baseline, and the minimum ratio between them.
GOALS = [
    ("full sync, REST, 4 clients", "raw messages", 2.0),
    ("full sync, GraphQL, 4 clients", "raw messages", 0.6),
    ("nothing changed, 16 clients", "raw list", 1.25),
    ("one of 500 changed, 16 clients", "raw list", 0.6),
    ("send, 64 connections", "raw writes, 8 clients", 1.0),
    ("webhook messages, 8 connections, 100 a body", "raw writes, 8 clients", 2.5),
    ("setUnread, 64 connections, one user", "raw updates, 16 clients", 0.7),
]


def report(benches):
    """Returns the table in Markdown."""
    lines = []
    for title, bench in benches:
        lines += [f"### {title}", "", "| case | a second | spread | p50 ms | p99 ms | server ms each | database ms each | ratio | goal |",
                  "|---|---:|---:|---:|---:|---:|---:|---:|---|"]
        ratios = {case: (yardstick, wanted, ratio) for case, yardstick, wanted, ratio in bench.ratios()}
        for name, rounds in bench.figures.items():
            rate, p50, p99, server, database = bench.median(name)
            rates = [figures[0] for figures in rounds]
            spread = f"{min(rates) / rate * 100 - 100:+.0f} … {max(rates) / rate * 100 - 100:+.0f} %"
            ratio, goal = "", ""
            if name in ratios:
                yardstick, wanted, found = ratios[name]
                ratio, goal = f"{found:.2f} × {yardstick.split(',')[0]}", f"≥ {wanted} {'met' if found >= wanted else 'not met'}"
            if name.startswith("500 subscribers"):
                ratio, goal = f"{server:.2f} cores", f"< 1 core {'met' if server < 1 else 'not met'}"
                server, database = math.nan, math.nan
            if "beside" in name:
                ratio, goal = f"p99 = {p99 / p50:.1f} × p50", f"≤ 5 {'met' if p99 <= 5 * p50 else 'not met'}"
            number = lambda value, digits: "" if math.isnan(value) else f"{value:,.{digits}f}"
            lines.append(f"| {name} | {rate:,.0f} | {spread} | {number(p50, 2)} | {number(p99, 2)} | {number(server, 3)} | {number(database, 3)} | {ratio} | {goal} |")
        lines.append("")
        lines += bench.notes
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--databases", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--postgres", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mariadb", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--engines", default="postgres,mariadb,sqlite", help="databases (default: %(default)s); M and L are measured on the first one")
    parser.add_argument("--sets", default="S,M,L", help="data sets (default: %(default)s)")
    parser.add_argument("--share", type=int, default=1, help="load only 1/N of M and L (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each round (default: %(default)s)")
    parser.add_argument("--only", default="", help="cases, by prefixes of their names, separated by commas (run.py has the names)")
    parser.add_argument("--check", type=float, metavar="PART", help="fail if a ratio is below this fraction of its goal")
    parser.add_argument("--write", action="store_true", help="write the table to docs/PERFORMANCE.md")
    arguments = parser.parse_args()
    engines, sets = arguments.engines.split(","), arguments.sets.split(",")
    benches = []
    with tempfile.TemporaryDirectory(prefix="recents-bench.") as folder:
        plan = [("S", engine, set_s) for engine in engines if "S" in sets]
        plan += [(name, engines[0], load) for name, load in (("M", set_m), ("L", set_l)) if name in sets]
        for name, engine, load in plan:
            bench = Bench(arguments, engine, pathlib.Path(folder))
            idle, started = bench.server.memory(), bench.server.started_in
            began = time.monotonic()
            cases = load(bench)
            loaded = time.monotonic() - began
            bench.run(cases)
            started = getattr(bench, "start_on_l", started)
            bench.notes = [f"Loaded in {loaded:.0f} s. Started in {started:.2f} s, {idle:.0f} MB before the first request, {bench.server.memory():.0f} MB at the end."]
            bench.server.stop()
            benches.append((f"{name} on {engine}", bench))
    text = report(benches)
    print(text)
    if arguments.check:
        slow = [f"{case}: {ratio:.2f} of {yardstick}, where {wanted} is the goal" for bench in dict(benches).values()
                for case, yardstick, wanted, ratio in bench.ratios() if ratio < wanted * arguments.check]
        if slow:
            sys.exit("slower than it must be:\n" + "\n".join(slow))
    if arguments.write:
        path = ROOT / "docs" / "PERFORMANCE.md"
        begin, end = "<!-- scripts/bench writes what follows -->\n", "<!-- up to here -->"
        before, rest = path.read_text().split(begin)
        path.write_text(before + begin + "\n" + text + "\n" + end + rest.split(end)[1])


main()
