"""Subscribers that vanish silently, like a phone that loses its network: in a separate network namespace the clients' address is
removed, so that no packet from or to them arrives any more.

    unshare --map-root-user --net python3 vanish.py RECENTS DATABASE_URL PING_SECONDS

prints the seconds after which the server has closed the connections of both."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

recents, database, ping = sys.argv[1:]
token = "manager-token-of-tests"
own, vanishing = "10.255.0.1", "10.255.0.2"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


ip("link", "set", "lo", "up")
for address in (own, vanishing):
    ip("address", "add", f"{address}/32", "dev", "lo")
environment = dict(os.environ, RECENTS__DATABASE__URL=database, RECENTS__SERVER__LISTEN=f"{own}:0", RECENTS__CONVERSATION__ON="true",
                   RECENTS__AUTH__MANAGER_TOKEN=token, RECENTS__LIVE__PING_INTERVAL_SECONDS=ping)
server = subprocess.Popen([recents], env=environment, stdout=subprocess.PIPE, text=True)
try:
    url = server.stdout.readline().split()[-1]
    host, port = url.removeprefix("http://").split(":")

    def connect():
        client = socket.create_connection((host, int(port)), source_address=(vanishing, 0))
        client.settimeout(10)
        return client

    def read_until(client, text):
        read = b""
        while text not in read:
            part = client.recv(4096)
            assert part, read
            read += part

    query = b'{"query":"subscription { conversationChanges(uid: \\"ann\\") { version } }"}'
    stream = connect()
    stream.sendall(b"POST /graphql HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\ncontent-type: application/json\r\ntoken: "
                   + token.encode() + b"\r\ncontent-length: %d\r\n\r\n" % len(query) + query)
    read_until(stream, b"event: next")
    web_socket = connect()
    web_socket.sendall(b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                       b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n")
    read_until(web_socket, b"\r\n\r\n")
    text = b'{"type":"connection_init","payload":{"token":"' + token.encode() + b'"}}'
    web_socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    read_until(web_socket, b"connection_ack")

    def connections():
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            return sum(float(value) for value in re.findall(r"^recents_live_connections\S* (\S+)", answer.read().decode(), re.M))

    assert connections() == 2, connections()
    ip("address", "delete", f"{vanishing}/32", "dev", "lo")
    begun = time.monotonic()
    while connections() > 0 and time.monotonic() - begun < 60:
        time.sleep(0.1)
    print(time.monotonic() - begun)
finally:
    server.kill()
