#!/usr/bin/env python3
"""Besieges a release build: fifty honest users, a service and a feeder, and beside them one hostile caller of each kind.

First nobody attacks, then each attack alone for a few seconds, on a server that was just started, then all of them at once for --seconds. The promises, which
--check tests: no acknowledged message is lost, no webhook is refused, no honest request is answered with 429 or 5xx or not at
all, the honest p99 grows by less than --factor (of at least --floor milliseconds), and the memory stays below --memory MiB.

  cargo build --release && python3 benches/load/siege.py --binary target/release/recents --engines sqlite --check
  … --postgres postgres://postgres@127.0.0.1:5432 --engines sqlite,postgres       on PostgreSQL, too: a database of its own
  … --check --seconds 20 --each 2 --huge 20                                        the short form
  … --only aliases,huge-syncs                                                      some of the attacks

The server runs with its default limits, in a memory cgroup where the machine allows one; otherwise its resident memory is
watched. Honest users have addresses of their own (127.0.0.101 …), and so has each attacker (127.0.0.11 …). Attackers are processes of
their own and give way to the others, because on one machine they would otherwise take the processor from the server as no stranger can.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import os
import pathlib
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

from tools import PAYLOAD, Server

MANAGER, SECRET, HOOK = "manager-token-of-the-siege", "a secret of the siege, thirty-two bytes or more", "a-hook"
USERS, GROUPS, FED = 50, 10, 10
WATCHERS = 12
CONVERSATIONS = "subscription { conversationChanges { version conversations { lastMsgSeq unread } } }"
ADDED = 'subscription { messageAdded(channel: {channelId: "g0", channelType: 2}) { messageSeq } }'


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(uid, header=None, secret=SECRET):
    """A user's token, HS256."""
    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT"} | (header or {})).encode())
    signed = head + b"." + encoded(json.dumps({"sub": uid, "exp": int(time.time()) + 7200}).encode())
    return (signed + b"." + encoded(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()


def as_user(uid):
    return f"Authorization: Bearer {token(uid)}\r\n"


def head(method, path, headers="", length=None, kind="application/json"):
    lines = f"{method} {path} HTTP/1.1\r\nHost: siege\r\n{headers}"
    if length is not None:
        lines += f"Content-Type: {kind}\r\nContent-Length: {length}\r\n"
    return (lines + "\r\n").encode()


def call(path, body, headers=""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head("POST", path, headers, len(body)) + body


class Client:
    """A connection that is kept; one request at a time."""

    def __init__(self, address, source, headers):
        self.host, self.port = address.split(":")
        self.source, self.headers, self.streams = source, headers, None

    async def post(self, path, body):
        """Status and body. A kept connection that the server has closed is opened anew, once."""
        for attempt in range(2):
            fresh = self.streams is None
            if fresh:
                self.streams = await asyncio.open_connection(self.host, int(self.port), local_addr=(self.source, 0))
            reader, writer = self.streams
            try:
                writer.write(call(path, body, self.headers))
                return await answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.close()
                if fresh or attempt:
                    raise
            except BaseException:
                self.close()
                raise
        raise AssertionError

    def close(self):
        if self.streams:
            self.streams[1].close()
            self.streams = None


async def answer(reader):
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    length, chunked = 0, False
    while (line := (await reader.readuntil(b"\r\n")).strip().lower()):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        chunked |= line == b"transfer-encoding: chunked"
    if not chunked:
        return status, await reader.readexactly(length)
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, body


def frame(payload, opcode=1):
    """A WebSocket frame of a client; the mask is zeroes."""
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0xFE]) + struct.pack(">H", len(payload))
    return bytes([0x80 | opcode]) + size + b"\0\0\0\0" + payload


UPGRADE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           "Sec-WebSocket-Protocol: graphql-transport-ws\r\n")


def message(**what):
    return frame(json.dumps(what).encode())


def init(uid):
    return message(type="connection_init", payload={"authorization": f"Bearer {token(uid)}"})


async def read_frame(reader):
    first, size = await reader.readexactly(2)
    if size == 126:
        size, = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        size, = struct.unpack(">Q", await reader.readexactly(8))
    return first & 15, await reader.readexactly(size)


# ---------------------------------------------------------------------------------------------------------------- the honest


class Honest:
    """Fifty users, a service and a feeder; what they met."""

    def __init__(self, address):
        self.address = address
        self.times, self.faults, self.refused_hooks, self.events, self.closed = [], [], 0, 0, 0
        self.acknowledged, self.waiting = {}, {}

    def begin(self):
        """Returns the results so far and resets them; acknowledged messages are kept. A waiting request counts with the time that it has waited."""
        now = time.monotonic()
        met = (self.times + [now - began for began in self.waiting.values()], self.faults, self.refused_hooks, self.closed)
        self.times, self.faults, self.refused_hooks, self.closed = [], [], 0, 0
        return met

    async def ask(self, client, path, body):
        began = self.waiting[client] = time.monotonic()
        try:
            status, text = await asyncio.wait_for(client.post(path, body), 40)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            client.close()
            status, text = 0, repr(error).encode()
        del self.waiting[client]
        self.times.append(time.monotonic() - began)
        if status != 200:
            self.faults.append(f"{path} {status} {text[:100].decode(errors='replace')}")
        return status, text

    async def user(self, number):
        uid = f"h{number}"
        client = Client(self.address, f"127.0.0.{101 + number}", as_user(uid))
        version = turn = 0
        await asyncio.sleep(random.random())
        while True:
            status, text = await self.ask(client, "/conversation/sync", {"uid": uid, "version": version, "msg_count": 20})
            if status == 200:
                version = max([version, *(item["version"] for item in json.loads(text))])
            turn += 1
            if turn % 3 == 0:
                await self.ask(client, "/conversations/setUnread", {"uid": uid, "channel_id": f"g{number % GROUPS}", "channel_type": 2, "unread": 0})
            await asyncio.sleep(random.uniform(0.5, 1.0))

    async def watcher(self, number):
        """Follows its list over a WebSocket, or as events."""
        uid, host, port = f"h{number}", *self.address.split(":")
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(host, int(port), local_addr=(f"127.0.0.{101 + number}", 0))
                if number % 2:
                    writer.write(head("GET", "/graphql", UPGRADE))
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(init(uid))
                    writer.write(message(type="subscribe", id="1", payload={"query": CONVERSATIONS}))
                    while True:
                        opcode, payload = await read_frame(reader)
                        if opcode == 8:
                            break
                        if opcode == 9:
                            writer.write(frame(payload, 10))
                        self.events += b'"next"' in payload
                else:
                    writer.write(call("/graphql", {"query": CONVERSATIONS}, as_user(uid) + "Accept: text/event-stream\r\n"))
                    while line := await reader.readline():
                        self.events += line.startswith(b"data: {")
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                if writer:
                    writer.close()
            self.closed += 1
            await asyncio.sleep(1)

    async def service(self):
        client = Client(self.address, "127.0.0.90", f"token: {MANAGER}\r\n")
        for count in range(10**9):
            group, no = f"g{count % GROUPS}", f"s{count}"
            body = {"header": {"red_dot": 1}, "client_msg_no": no, "from_uid": "boss", "channel_id": group, "channel_type": 2, "payload": PAYLOAD}
            status, text = await self.ask(client, "/message/send", body)
            if status == 200:
                self.acknowledged[group, json.loads(text)["data"]["message_seq"]] = no
            await asyncio.sleep(0.1)

    async def feeder(self):
        client = Client(self.address, "127.0.0.91", "")
        seqs, ids = [0] * FED, time.time_ns() & (1 << 62) - 1
        for count in range(10**9):
            group, body = count % FED, []
            for _ in range(random.randint(1, 5)):
                seqs[group] += 1
                ids += 1
                body.append(hooked(f"f{group}", 2, seqs[group], ids, f"h{count % USERS}", PAYLOAD))
            status, _ = await self.ask(client, f"/webhook/{HOOK}?event=msg.notify", body)
            if status == 200:
                self.acknowledged |= {(f"f{group}", told["message_seq"]): told["client_msg_no"] for told in body}
            else:
                # It would come again; here one refusal is one too many, and the next messages continue.
                self.refused_hooks += 1
            await asyncio.sleep(0.2)

    def all(self):
        yield from (self.user(number) for number in range(USERS))
        yield from (self.watcher(number) for number in range(WATCHERS))
        yield self.service()
        yield self.feeder()

    async def lost(self):
        """Counts the acknowledged messages that are missing."""
        client = Client(self.address, "127.0.0.92", f"token: {MANAGER}\r\n")
        found = {}
        for channel in {channel for channel, _ in self.acknowledged}:
            start = 1
            while True:
                body = {"login_uid": "h0", "channel_id": channel, "channel_type": 2, "start_message_seq": start, "limit": 500, "pull_mode": 1}
                status, text = await client.post("/channel/messagesync", body)
                if status != 200:
                    sys.exit(f"the history of {channel} cannot be read: {status} {text[:200]!r}")
                messages = json.loads(text)["messages"]
                found |= {(channel, told["message_seq"]): told["client_msg_no"] for told in messages}
                if len(messages) < 500:
                    break
                start = messages[-1]["message_seq"] + 1
        return [name for name, no in self.acknowledged.items() if found.get(name) != no]


def hooked(channel, kind, seq, number, sender, payload):
    return {"header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 0, "message_id": number, "message_idstr": str(number),
            "client_msg_no": f"n{number}", "message_seq": seq, "from_uid": sender, "channel_id": channel, "channel_type": kind, "expire": 0,
            "timestamp": int(time.time()), "payload": payload}


async def prepare(address, arguments):
    """Groups of the honest; a user with thousands of conversations, and one whose messages are huge."""
    client = Client(address, "127.0.0.92", f"token: {MANAGER}\r\n")

    async def must(path, body):
        status, text = await client.post(path, body)
        if status != 200:
            sys.exit(f"{path} answered {status}: {text[:300]!r}")

    for group in range(GROUPS):
        members = [f"h{number}" for number in range(USERS)] + ["mallory"]
        await must("/channel", {"channel_id": f"g{group}", "channel_type": 2, "subscribers": members})
        await must("/channel", {"channel_id": f"f{group}", "channel_type": 2, "subscribers": members[group::5]})
    ids = 1 << 40
    for start in range(0, arguments.big, 100):
        body = [hooked("big", 1, 1, ids + number, f"peer{number}", PAYLOAD) for number in range(start, min(start + 100, arguments.big))]
        await must(f"/webhook/{HOOK}?event=msg.notify", body)
    await must("/conversation/sync", {"uid": "big", "msg_count": 1})
    payload = base64.b64encode(os.urandom(250_000)).decode()
    ids += 10**6
    for number in range(arguments.huge):
        for start in (1, 11):
            body = [hooked("huge", 1, seq, ids + number * 20 + seq, f"friend{number}", payload) for seq in range(start, start + 10)]
            await must(f"/webhook/{HOOK}?event=msg.notify", body)
    client.close()


# --------------------------------------------------------------------------------------------------------------- the hostile


class Attacker:
    """One address, and what is needed to be a nuisance."""

    def __init__(self, address, source, grpc):
        self.host, self.port = address.split(":")
        self.source, self.grpc = source, grpc

    async def open(self, buffer=None, port=None):
        """A connection; `buffer`: of which little is taken that is not read."""
        own = socket.socket()
        own.setblocking(False)
        if buffer:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            own.bind((self.source, 0))
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(own, (self.host, int(port or self.port))), 10)
            return await asyncio.open_connection(sock=own, limit=4096 if buffer else 1 << 20)
        except BaseException:
            own.close()
            raise

    async def many(self, count, work, **options):
        """So many connections that `work(reader, writer)`; each that ends is opened again a little later."""
        async def one():
            while True:
                writer = None
                try:
                    reader, writer = await self.open(**options)
                    await work(reader, writer)
                except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, ValueError, IndexError):
                    pass
                finally:
                    if writer:
                        writer.transport.abort()
                await asyncio.sleep(random.uniform(0.05, 0.3))
        await asyncio.gather(*(one() for _ in range(count)))

    async def socket(self, uid=None, **options):
        reader, writer = await self.open(**options)
        writer.write(head("GET", "/graphql", UPGRADE))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        if uid:
            writer.write(init(uid))
            await asyncio.wait_for(read_frame(reader), 10)
        return reader, writer

    async def upgraded(self, reader, writer, uid=None):
        writer.write(head("GET", "/graphql", UPGRADE))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        if uid:
            writer.write(init(uid))
            await asyncio.wait_for(read_frame(reader), 10)

    # Each of these goes on until it is stopped.

    async def pings(self):
        """WebSocket pings whose pongs nobody reads."""
        async def work(reader, writer):
            await self.upgraded(reader, writer)
            burst = frame(b"p" * 125, 9) * 500
            while True:
                writer.write(burst)
                await asyncio.wait_for(writer.drain(), 60)
        await self.many(8, work, buffer=4096)

    async def headers(self):
        """Headers that never end."""
        async def work(reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: siege\r\n")
            for number in range(10**9):
                writer.write(f"X-{number}: {'a' * 4000}\r\n".encode())
                await writer.drain()
                await asyncio.sleep(0.05)
        await self.many(300, work)

    async def silent(self):
        """Connections that say nothing."""
        async def work(reader, _):
            await reader.read(1)
        await self.many(1200, work)

    async def no_init(self):
        """WebSockets without connection_init."""
        async def work(reader, writer):
            await self.upgraded(reader, writer)
            while await reader.read(100):
                pass
        await self.many(1000, work)

    async def unread(self):
        """Big answers to small requests, many in a row, that nobody reads."""
        sync = call("/conversation/sync", {"uid": "huge", "msg_count": 20}, as_user("huge"))

        async def work(reader, writer):
            writer.write((head("GET", "/openapi.json") * 20 + sync) * 5)
            await asyncio.sleep(60)
        await self.many(64, work, buffer=4096)

    async def events_unread(self):
        """Streams of events that nobody reads."""
        async def work(reader, writer):
            query = {"query": "subscription { conversationChanges(msgCount: 20) { conversations { recents { payload } } } }"}
            writer.write(call("/graphql", query, as_user(random.choice(["mallory", "big", "huge"])) + "Accept: text/event-stream\r\n"))
            await asyncio.sleep(60)
        await self.many(60, work, buffer=4096)

    async def bodies(self):
        """Bodies of 4 MiB that never come."""
        async def work(reader, writer):
            writer.write(head("POST", "/conversation/sync", as_user("mallory"), 4_194_304) + b"{" * 65_600)
            await reader.read(1)
        await self.many(64, work)

    async def http2(self, port=None, path="/conversation/sync"):
        """HTTP/2 that nobody announced, with bodies that never end."""
        names = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "siege", "content-type": "application/grpc" if port else "application/json",
                 "authorization": f"Bearer {token('mallory')}"}

        def text(value):
            size = len(value)
            return (bytes([size]) if size < 127 else bytes([127, (size - 127) % 128 | 128, (size - 127) // 128])) + value

        block = b"".join(b"\0" + text(name.encode()) + text(value.encode()) for name, value in names.items())

        def framed(kind, flags, stream, payload=b""):
            return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

        async def work(reader, writer):
            windows = {0: 65_535}
            first = 65_535

            async def listen():
                nonlocal first
                while True:
                    top = await reader.readexactly(9)
                    payload = await reader.readexactly(int.from_bytes(top[:3]))
                    kind, stream = top[3], int.from_bytes(top[5:]) & 0x7FFF_FFFF
                    if kind == 8:
                        windows[stream] = windows.get(stream, first) + int.from_bytes(payload)
                    elif kind == 4 and not top[4] & 1:
                        for at in range(0, len(payload), 6):
                            if payload[at:at + 2] == b"\0\4":
                                first = int.from_bytes(payload[at + 2:at + 6])
                        writer.write(framed(4, 1, 0))
                    elif kind in (3, 7):
                        windows.pop(stream, None)

            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + framed(4, 0, 0))
            listening = asyncio.ensure_future(listen())
            try:
                await asyncio.sleep(0.2)
                for stream in range(1, 121, 2):
                    writer.write(framed(1, 4, stream, block))
                    windows.setdefault(stream, first)
                while not listening.done():
                    for stream in [stream for stream in windows if stream]:
                        size = min(16_384, windows[0], windows.get(stream, 0))
                        if size > 0:
                            windows[0] -= size
                            windows[stream] -= size
                            writer.write(framed(0, 0, stream, b"{" * size))
                            await writer.drain()
                    await asyncio.sleep(0.02)
                listening.result()
            finally:
                listening.cancel()
        await self.many(30, work, port=port)

    async def asking(self, count, uid, bodies, path="/graphql"):
        """Requests one after the other, whose answers are read."""
        async def work(reader, writer):
            while True:
                writer.write(call(path, next(bodies), as_user(uid) if uid else f"Authorization: Bearer {made_up()}\r\n"))
                await asyncio.wait_for(answer(reader), 60)
        await self.many(count, work)

    async def aliases(self):
        """Documents that read the list of thousands of conversations a hundred times."""
        client = Client(f"{self.host}:{self.port}", self.source, as_user("big"))
        cursor = ""
        with contextlib.suppress(Exception):
            _, text = await client.post("/graphql", {"query": "{ conversationList(first: 1) { pageInfo { endCursor } } }"})
            cursor = json.loads(text)["data"]["conversationList"]["pageInfo"]["endCursor"]
        fields = ["conversationList(first: 1) { totalCount }", f'conversationList(first: 1, after: "{cursor}") {{ totalCount }}',
                  "unreadSummary { total }"]

        def bodies():
            while True:
                field = random.choice(fields)
                yield {"query": "{" + " ".join(f"a{number}: {field}" for number in range(100)) + "}"}
        await self.asking(4, "big", bodies())

    async def resets(self):
        """Clients that hang up after 0 to 6 ms."""
        requests = [call("/conversation/sync", {"uid": "mallory", "msg_count": 20}, as_user("mallory")),
                    call("/conversations/setUnread", {"uid": "mallory", "channel_id": "g0", "channel_type": 2, "unread": 3}, as_user("mallory"))]

        async def work(reader, writer):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.write(random.choice(requests))
            await asyncio.sleep(random.uniform(0, 0.006))
        await self.many(20, work)

    async def small_messages(self):
        """Floods of small WebSocket messages: subscriptions that come and go, pings."""
        async def work(reader, writer):
            await self.upgraded(reader, writer, "mallory")
            writer.write(message(type="subscribe", id="0", payload={"query": CONVERSATIONS}))
            churn = b"".join(message(type="subscribe", id=str(number), payload={"query": ADDED}) + message(type="complete", id=str(number))
                             + message(type="ping") for number in range(1, 40))

            async def speak():
                while True:
                    writer.write(churn)
                    await writer.drain()
            speaking = asyncio.ensure_future(speak())
            try:
                while not speaking.done() and await reader.read(65_536):
                    pass
            finally:
                speaking.cancel()
        await self.many(5, work)

    async def made_up_tokens(self):
        """Tokens that nobody signed, each with a key of its own."""
        def bodies():
            while True:
                yield {"uid": "mallory"}
        await self.asking(8, None, bodies(), "/conversation/sync")

    async def batches(self):
        """A person message to each of very many strangers."""
        def bodies():
            for number in range(10**9):
                count = random.choice([100, 1000])
                yield {"from_uid": "mallory", "payload": PAYLOAD, "subscribers": [f"stranger{number}-{each}" for each in range(count)]}
        await self.asking(4, "mallory", bodies(), "/message/sendbatch")

    async def huge_syncs(self):
        """Syncs of hundreds of megabytes."""
        def bodies():
            while True:
                yield {"uid": "huge", "msg_count": 20}
        await self.asking(4, "huge", bodies(), "/conversation/sync")

    async def one_chat(self):
        """A thousand subscriptions of one chat."""
        async def work(reader, writer):
            await self.upgraded(reader, writer, "mallory")
            for number in range(50):
                writer.write(message(type="subscribe", id=str(number), payload={"query": ADDED}))
            while True:
                opcode, payload = await read_frame(reader)
                if opcode == 8:
                    return
                if opcode == 9:
                    writer.write(frame(payload, 10))
        await self.many(20, work)

    async def slow(self):
        """A byte a second, in bodies and of answers."""
        sync = call("/conversation/sync", {"uid": "huge", "msg_count": 20}, as_user("huge"))

        async def body(_, writer):
            writer.write(head("POST", "/conversation/sync", as_user("mallory"), 100_000))
            while True:
                writer.write(b"{")
                await writer.drain()
                await asyncio.sleep(1)

        async def reading(reader, writer):
            writer.write(sync)
            while await reader.read(1):
                await asyncio.sleep(1)
        await asyncio.gather(self.many(150, body), self.many(50, reading, buffer=4096))

    async def grpc_port(self):
        """Attacks the webhook over gRPC: silent connections, and endless bodies."""
        async def idle(reader, _):
            await reader.read(1)
        await asyncio.gather(self.many(300, idle, port=self.grpc), self.http2(self.grpc, "/pb.WebhookService/SendWebhook"))


def made_up():
    return token("mallory", {"kid": random.randbytes(8).hex()}, random.randbytes(16).hex())


ATTACKS = ["pings", "headers", "silent", "no_init", "unread", "events_unread", "bodies", "http2", "aliases", "resets", "small_messages",
           "made_up_tokens", "batches", "huge_syncs", "one_chat", "slow", "grpc_port"]


def attack(name, address, source, grpc):
    """A process of its own, until it is killed."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(getattr(Attacker(address, source, grpc), name)())


# ----------------------------------------------------------------------------------------------------------------- the siege


class Cage:
    """A memory cgroup, of either version, where the machine allows one."""

    def __init__(self, megabytes):
        self.folder = self.make(megabytes << 20)

    @staticmethod
    def make(limit):
        root, name = pathlib.Path("/sys/fs/cgroup"), f"recents-siege-{os.getpid()}"
        unified = (root / "cgroup.controllers").exists()
        folder = root / name if unified else root / "memory" / name
        most, swap = ("memory.max", "memory.swap.max") if unified else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        try:
            if unified and "memory" not in (root / "cgroup.subtree_control").read_text().split():
                return None
            folder.mkdir()
            (folder / most).write_text(str(limit))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            return None
        with contextlib.suppress(OSError):
            (folder / swap).write_text("0" if unified else str(limit))
        return folder

    def hold(self, pid):
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(pid))

    def open(self):
        if self.folder:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


class Siege:
    def __init__(self, arguments, url, work):
        self.arguments, self.rows, self.url, self.work = arguments, [], url, work
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.grpc = one.getsockname()[1], other.getsockname()[1]
        self.cage = Cage(arguments.memory + 88)
        self.start()

    def start(self):
        settings = {"RECENTS__SERVER__LISTEN": f"127.0.0.1:{self.port}", "RECENTS__AUTH__MANAGER_TOKEN": MANAGER, "RECENTS__AUTH__JWT__SECRET": SECRET, "RECENTS__INGEST__WEBHOOK_SECRET": HOOK,
                    "RECENTS__AUTH__USERS_MAY_SEND": "true", "RECENTS__INGEST__GRPC_LISTEN": f"127.0.0.1:{self.grpc}", "RECENTS__LOG__LEVEL": "error"}
        self.server = Server(self.arguments.binary, self.url, self.work, settings)
        self.cage.hold(self.server.process.pid)
        self.peak = 0.0

    async def restart(self):
        """So that the next attack finds nothing of the one before. Killed: nothing acknowledged may be lost by that, either."""
        self.server.process.kill()
        self.server.process.wait()
        self.start()
        await asyncio.sleep(2)

    async def watch(self):
        while True:
            with contextlib.suppress(OSError, TypeError):
                self.peak = max(self.peak, self.server.memory())
            await asyncio.sleep(0.1)

    async def phase(self, name, attacks, seconds):
        """One row of the table."""
        began = [subprocess.Popen(["nice", "-n", "19", sys.executable, __file__, "--attack", attack, "--address", self.server.address, "--source", f"127.0.0.{11 + ATTACKS.index(attack)}",
                                   "--grpc", str(self.grpc)]) for attack in attacks]
        await asyncio.sleep(0.5)
        self.honest.begin()
        self.peak = 0.0
        await asyncio.sleep(seconds)
        times, faults, refused, closed = self.honest.begin()
        for process in began:
            process.kill()
            process.wait()
        times.sort()
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1000 if times else float("inf")
        row = {"name": name, "requests": len(times), "p50": at(0.5), "p99": at(0.99), "peak": self.peak, "refused": refused,
               "faults": faults, "closed": closed, "alive": self.server.process.poll() is None}
        self.rows.append(row)
        ratio = row["p99"] / max(self.rows[0]["p99"], self.arguments.floor)
        print(f"{name:16} {len(times):5} {row['p50']:7.1f} {row['p99']:8.1f} {ratio:6.2f} {row['peak']:7.0f} {refused:5} {len(faults):6} {closed:6}"
              + (f"  {faults[0]}" if faults else "") + ("" if row["alive"] else "  THE SERVER IS DEAD"), flush=True)

    async def run(self):
        await prepare(self.server.address, self.arguments)
        self.honest = Honest(self.server.address)
        tasks = [asyncio.ensure_future(work) for work in [*self.honest.all(), self.watch()]]
        print(f"{'attack':16} {'asked':>5} {'p50 ms':>7} {'p99 ms':>8} {'ratio':>6} {'MiB':>7} {'hooks':>5} {'faults':>6} {'closed':>6}")
        await asyncio.sleep(2)
        attacks = [name for name in ATTACKS if not self.arguments.only or name.replace("_", "-") in self.arguments.only.split(",")]
        await self.phase("nobody", [], max(self.arguments.each, 8))
        if self.arguments.each:
            for name in attacks:
                await self.restart()
                await self.phase(name.replace("_", "-"), [name], self.arguments.each)
        if self.arguments.seconds:
            await self.restart()
            await self.phase("all at once", attacks, self.arguments.seconds)
            await self.phase("nobody again", [], 5)
        for task in tasks:
            if task.done() and task.exception():
                raise task.exception()
        # More than once: asyncio.wait_for can lose a cancellation.
        while pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=1)
        await self.restart()
        lost = await self.honest.lost()
        print(f"{len(self.honest.acknowledged)} messages acknowledged, {len(lost)} lost; {self.honest.events} events followed")
        broken = [f"{row['name']}: the server died" for row in self.rows if not row["alive"]]
        if lost:
            broken.append(f"{len(lost)} acknowledged messages are lost, {lost[0]} for one")
        if not self.honest.events:
            broken.append("no event came")
        for row in self.rows:
            before = max(self.rows[0]["p99"], self.arguments.floor)
            if row["p99"] >= self.arguments.factor * before:
                broken.append(f"{row['name']}: the honest p99 is {row['p99']:.0f} ms, {row['p99'] / before:.1f} times as long")
            if row["peak"] > self.arguments.memory:
                broken.append(f"{row['name']}: {row['peak']:.0f} MiB")
            if row["refused"]:
                broken.append(f"{row['name']}: {row['refused']} webhooks were refused")
            if row["faults"]:
                broken.append(f"{row['name']}: {len(row['faults'])} honest requests failed, {row['faults'][0]} for one")
            if row["closed"]:
                broken.append(f"{row['name']}: {row['closed']} honest subscriptions were closed")
        return broken

    def stop(self):
        self.server.process.kill()
        self.server.process.wait()
        self.cage.open()


def main():
    if "--attack" in sys.argv:
        given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        return attack(given["--attack"], given["--address"], given["--source"], int(given["--grpc"]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="the server, a release build")
    parser.add_argument("--engines", default="sqlite", help="sqlite, postgres (default: %(default)s)")
    parser.add_argument("--postgres", help="a PostgreSQL server, without a database: postgres://USER@HOST:PORT")
    parser.add_argument("--seconds", type=float, default=120, help="of all attacks at once; 0: not at all (default: %(default)s)")
    parser.add_argument("--each", type=float, default=6, help="seconds of each attack alone; 0: not at all (default: %(default)s)")
    parser.add_argument("--only", default="", help="attacks, with commas between: " + ", ".join(name.replace("_", "-") for name in ATTACKS))
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="resident memory at most (default: %(default)s)")
    parser.add_argument("--factor", type=float, default=3, help="the honest p99 grows by less than this factor (default: %(default)s)")
    parser.add_argument("--floor", type=float, default=20, metavar="MS", help="a p99 below this counts as this (default: %(default)s)")
    parser.add_argument("--big", type=int, default=5000, help="conversations of one attacker (default: %(default)s)")
    parser.add_argument("--huge", type=int, default=100, help="chats of 20 messages of 250 kB of another one (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is broken")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    failed = False
    for engine in arguments.engines.split(","):
        with tempfile.TemporaryDirectory(prefix="recents-siege.") as folder:
            work, name = pathlib.Path(folder), f"siege_{os.getpid()}"
            url = f"sqlite://{work}/{name}.db?mode=rwc"
            if engine == "postgres":
                subprocess.run(["psql", "-q", f"{arguments.postgres}/postgres", "-c", f"CREATE DATABASE {name}"], check=True)
                url = f"{arguments.postgres}/{name}"
            siege = Siege(arguments, url, work)
            held = f"a cgroup of {arguments.memory + 88} MiB" if siege.cage.folder else "no cgroup (memory is watched)"
            print(f"\n{engine}, {held}")
            try:
                broken = asyncio.run(siege.run())
            finally:
                siege.stop()
                if engine == "postgres":
                    subprocess.run(["psql", "-q", f"{arguments.postgres}/postgres", "-c", f"DROP DATABASE {name} WITH (FORCE)"], check=False)
            for line in broken:
                print(f"BROKEN: {line}")
            failed |= bool(broken)
    if arguments.check and failed:
        sys.exit(1)


main()
