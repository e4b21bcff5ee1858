"""Tools of the measurements: a server as a user starts it, data sets through its public interfaces, processor time."""

import base64
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

PAYLOAD = base64.b64encode(json.dumps({"type": 1, "content": "See you at the station at half past seven, gate 4"}).encode()).decode()


class Server:
    """A release build on a database."""

    def __init__(self, binary, url, work, settings=None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECENTS__")}
        environment |= {"RECENTS__SERVER__LISTEN": "127.0.0.1:0", "RECENTS__DATABASE__URL": url, "RECENTS__CONVERSATION__ON": "true",
                        "RECENTS__LOG__LEVEL": "warn"} | (settings or {})
        self.log = open(work / "server.log", "a")
        began = time.monotonic()
        self.process = subprocess.Popen([binary], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if found := re.search(r"listening on http://([0-9.]+:[0-9]+)", line):
                self.address = found[1]
                break
        else:
            sys.exit(f"the server did not start: {(work / 'server.log').read_text()[-2000:]}")
        self.started_in = time.monotonic() - began

    def post(self, path, body, connection=None):
        return post(self.address, path, body, connection)

    def memory(self):
        """Returns the resident memory in megabytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


class PostGraphile:
    """The PostGraphile on the PATH (`npm install --global postgraphile@4`), on a database."""

    def __init__(self, url):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        command = ["postgraphile", "-c", url, "-s", "public", "-n", "127.0.0.1", "-p", self.address.split(":")[1], "--disable-query-log", "--disable-graphiql"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", int(self.address.split(":")[1]))) == 0:
                    return
            time.sleep(0.1)
        sys.exit("postgraphile did not start")

    def post(self, path, body):
        return post(self.address, path, body)

    def stop(self):
        self.process.kill()
        self.process.wait()


def post(address, path, body, connection=None):
    """Returns the parsed JSON response; `body` is JSON text or a value to serialise."""
    own = connection or http.client.HTTPConnection(address, timeout=600)
    own.request("POST", path, body if isinstance(body, str) else json.dumps(body), {"Content-Type": "application/json"})
    answer = own.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"{path} answered {answer.status}: {text[:500]!r}")
    return json.loads(text)


def processor_seconds(pids):
    """Returns the processor time of processes so far, with their ended children."""
    ticks = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(field) for field in fields[11:15])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def processes_in(folder):
    """Returns the processes with this working directory: a database server, by its data folder."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if folder and os.readlink(entry / "cwd").startswith(str(folder)):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


class Load:
    """Loads data sets: groups and their members, then messages as a WuKongIM's webhooks bring them."""

    def __init__(self, server):
        self.server = server
        self.ids = int(time.time() * 1000) << 20

    def connect(self):
        return http.client.HTTPConnection(self.server.address, timeout=600)

    def groups(self, names, members):
        """Creates groups with the members that `members(name)` returns."""
        def make(some):
            connection = self.connect()
            for name in some:
                self.server.post("/channel", {"channel_id": name, "channel_type": 2, "subscribers": members(name)}, connection)
        self.parallel(make, names)

    def messages(self, names, count, batch=500):
        """Sends `count` messages to each group, from its members s0 … s19, oldest first."""
        def say(some):
            connection, body = self.connect(), []
            for name, base in some:
                for seq in range(1, count + 1):
                    number = base + seq
                    body.append(f'{{"header":{{"no_persist":0,"red_dot":1,"sync_once":0}},"setting":0,"message_id":{number},'
                                f'"message_idstr":"{number}","client_msg_no":"n{number}","message_seq":{seq},"from_uid":"s{seq % 20}",'
                                f'"channel_id":"{name}","channel_type":2,"expire":0,"timestamp":{1795393148 + seq},"payload":"{PAYLOAD}"}}')
                    if len(body) >= batch:
                        self.server.post("/webhook?event=msg.notify", f"[{','.join(body)}]", connection)
                        body = []
            if body:
                self.server.post("/webhook?event=msg.notify", f"[{','.join(body)}]", connection)
        bases = [(name, self.ids + index * (count + 1)) for index, name in enumerate(names)]
        self.ids += len(names) * (count + 1)
        self.parallel(say, bases)

    @staticmethod
    def parallel(work, items, lanes=4):
        size = -(-len(items) // lanes)
        with concurrent.futures.ThreadPoolExecutor(lanes) as pool:
            list(pool.map(work, [items[at:at + size] for at in range(0, len(items), size)]))
