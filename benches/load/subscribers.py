"""Follows the lists of many users at once, as events over HTTP, and prints what came: subscribers.py ADDRESS SECONDS UID…

It sends the messages, too (50 a second to the group that --group names), so that it knows how long each took to arrive.
"""

import argparse
import asyncio
import json
import statistics
import time

from tools import PAYLOAD

QUERY = "subscription ($uid: ID!) { conversationChanges(uid: $uid, version: %d) { version conversations { lastMsgSeq } } }"


async def follow(address, uid, version, sent, latencies, counts, ready):
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"query": QUERY % version, "variables": {"uid": uid}})
    writer.write((f"POST /graphql HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"data: ") and b"lastMsgSeq" in line or b"conversations" in line:
                now = time.monotonic()
                ready.add(uid)
                counts[uid] = counts.get(uid, 0) + 1
                at = line.find(b'"lastMsgSeq":')
                if at >= 0:
                    seq = int(line[at + 13:].split(b"}")[0].split(b",")[0])
                    if seq in sent:
                        latencies.append(now - sent[seq])
    finally:
        writer.close()


async def send(address, group, rate, seconds, sent):
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"header": {"red_dot": 1}, "from_uid": "s1", "channel_id": group, "channel_type": 2, "payload": PAYLOAD})
    began = time.monotonic()
    for number in range(rate * seconds):
        await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
        writer.write((f"POST /message/send HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n{body}").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        sent[answer["data"]["message_seq"]] = time.monotonic()
    writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("seconds", type=int)
    parser.add_argument("uids", nargs="+")
    parser.add_argument("--group", required=True)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--version", type=int, default=0)
    arguments = parser.parse_args()
    sent, latencies, counts, ready = {}, [], {}, set()
    tasks = [asyncio.create_task(follow(arguments.address, uid, arguments.version, sent, latencies, counts, ready)) for uid in arguments.uids]
    while len(ready) < len(arguments.uids):
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    counts.clear()
    print("ready", flush=True)
    await send(arguments.address, arguments.group, arguments.rate, arguments.seconds, sent)
    await asyncio.sleep(1.5)
    print(json.dumps({"sent": len(sent), "events": sum(counts.values()), "least": min(counts.values(), default=0),
                      "told": len(counts), "p50": statistics.median(latencies) * 1000,
                      "p99": statistics.quantiles(latencies, n=100)[98] * 1000}))
    for task in tasks:
        task.cancel()


asyncio.run(main())
