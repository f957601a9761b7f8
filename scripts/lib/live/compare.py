"""Compares live streams with GETs while permissions change at random.

Three users stream lists from three nodes, with a snapshot in front, half of them resuming
where they stopped, while an administrator changes records, permissions, groups and
collections through any node. After each change every list is asked for as each user.

- When the changes end, what each stream shows is what a GET says, or its end is.
- No stream has shown a version of an object that no GET of its user ever could see.
"""

import argparse
import base64
import http.client
import itertools
import json
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

import nodes  # noqa: E402

CALL_SECONDS = 60  # while another leader is elected too
SETTLE_SECONDS = 60
USERS = ("u1", "u2", "u3")
BUCKET = "/buckets/b"
GROUPS = BUCKET + "/groups"
COLLECTIONS = BUCKET + "/collections"
C1, C2 = f"{COLLECTIONS}/c1", f"{COLLECTIONS}/c2"
LISTS = (f"{C1}/records", f"{C2}/records", f"{C1}/records?kind=1", COLLECTIONS, GROUPS)

PAGE = """# Live streams beside GETs

Made by `make streams`. Three users stream five lists from three nodes, with a snapshot in front, half of the streams resuming where they stopped, while
records, permissions, groups and collections change at random through any node. A difference is a stream that ends up with something else than a GET
says, or that has shown a version of an object which no GET of its user could see.

```
{results}
```
"""


def headers(user, **more):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:x".encode()).decode(), **more}


class Client:
    """Sends requests to nodes until one decides them; for one thread."""

    keys = itertools.count()

    def __init__(self, nodes, chance):
        self.nodes, self.chance, self.connections = nodes, chance, {}

    def send(self, user, method, path, body=None):
        """Status and answer. A write that is sent again has the same Idempotency-Key."""
        more = {} if method == "GET" else {"Idempotency-Key": f"compare-{next(Client.keys)}"}
        if body is not None:
            more["Content-Type"] = "application/json"
        text = None if body is None else json.dumps(body)
        deadline = time.monotonic() + CALL_SECONDS
        while time.monotonic() < deadline:
            node = self.chance.choice(self.nodes)
            connection = self.connections.setdefault(node.http, http.client.HTTPConnection(node.http, timeout=CALL_SECONDS))
            try:
                connection.request(method, "/v1" + path, text, headers(user, **more))
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 503:
                    return answer.status, json.loads(content) if content else None
            except (http.client.HTTPException, OSError):
                connection.close()
            time.sleep(0.02)
        raise SystemExit(f"compare: no answer to {method} {path} within {CALL_SECONDS} s")


class Stream(threading.Thread):
    """One user's stream of one list, and what it shows."""

    def __init__(self, node, user, path, resumes):
        super().__init__(daemon=True)
        self.node, self.user, self.path, self.resumes = node, user, path, resumes
        self.stopping = threading.Event()
        self.state, self.model, self.last = "new", {}, None
        self.events, self.seen = 0, []

    def run(self):
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection(self.node.http, timeout=CALL_SECONDS)
            try:
                self.follow(connection)
            except (http.client.HTTPException, OSError) as error:
                self.state = repr(error)
            connection.close()
            time.sleep(0.02)

    def follow(self, connection):
        more = {"Last-Event-ID": self.last} if self.resumes and self.last else {}
        query = ("&" if "?" in self.path else "?") + "_snapshot=true"
        connection.request("GET", f"/v1{self.path}{query}", None, headers(self.user, Accept="text/event-stream", **more))
        answer = connection.getresponse()
        if answer.status != 200:
            answer.read()
            self.state, self.model, self.last = answer.status, {}, None
            return
        event = {}
        for line in (raw.decode().rstrip("\n") for raw in answer):
            if self.stopping.is_set():
                return
            if line and not line.startswith(":"):
                key, _, value = line.partition(":")
                event[key] = value.lstrip()
            elif not line and event:
                if self.take(event):
                    return
                event = {}
        self.state = "cut"

    def take(self, event):
        """Notes one event; True at the end of the stream."""
        kind, data = event.get("event"), json.loads(event.get("data") or "{}")
        self.events += 1
        self.last = event.get("id", self.last)
        if kind in ("start", "reset"):
            self.state = "live"
            if kind == "reset" or not data.get("resumed"):
                self.model = {}
        elif kind == "snapshot":
            self.show(f"{self.path.split('?')[0]}/{data['data']['id']}", data["data"])
        elif kind == "change" and data["action"] in ("create", "update"):
            self.show(data["uri"], data["data"])
        elif kind == "change":
            self.model.pop(data["uri"].rsplit("/", 1)[1], None)
        elif kind == "end":
            self.state = f"end: {data.get('reason')}"
        return kind == "end"

    def show(self, uri, data):
        self.seen.append((uri, data.get("v")))
        self.model[data["id"]] = data

    def differs(self, client):
        """What is not as a GET says; None when all is."""
        status, answer = client.send(self.user, "GET", self.path)
        if status != 200:
            return None if self.state == status else f"GET {status}, stream {self.state}"
        want = {item["id"]: item for item in answer["data"]}
        if self.state == "live" and self.model == want:
            return None
        return f"stream {self.state}: {self.model}, GET: {want}"


class Changes:
    """Random changes of a bucket with two collections and two groups."""

    def __init__(self, chance, ids):
        self.chance, self.ids, self.version = chance, ids, 0
        self.principals = [*ids.values(), f"{GROUPS}/g1", f"{GROUPS}/g2", "system.Authenticated"]

    def some(self, most, odds=1.0):
        if self.chance.random() >= odds:
            return []
        return self.chance.sample(self.principals, self.chance.randint(0, most))

    def data(self, **more):
        self.version += 1
        return {"data": {"v": self.version, **more}}

    def record(self, collection):
        record = f"{collection}/records/r{self.chance.randint(1, 6)}"
        kind = self.chance.randint(1, 2)
        shared = {"permissions": {"read": self.some(2), "write": self.some(1, 0.2)}} if self.chance.random() < 0.6 else {}
        return self.chance.choices((
            ("PUT", record, {**self.data(kind=kind), **shared}),
            ("DELETE", record, None),
            ("PATCH", record, self.data(kind=kind)),
            ("PATCH", record, {"permissions": {"read": self.some(2)}}),
            ("DELETE", f"{collection}/records", None),
        ), (45, 10, 7, 6, 2))[0]

    def parent(self, collection):
        group = f"{GROUPS}/{self.chance.choice(('g1', 'g2'))}"
        members = [principal for principal in self.ids.values() if self.chance.random() < 0.5]
        return self.chance.choices((
            ("PUT", group, self.data(members=members)),
            ("DELETE", group, None),
            ("PUT", collection, {**self.data(), "permissions": {"read": self.some(1), "write": self.some(1, 0.2), "record:create": self.some(1, 0.3)}}),
            ("DELETE", collection, None),
            ("PUT", BUCKET, {**self.data(), "permissions": {"read": self.some(1, 0.4), "write": []}}),
            ("DELETE", BUCKET, None),
        ), (80, 30, 80, 30, 40, 10))[0]

    def single(self):
        collection = self.chance.choice((C1, C2))
        return self.record(collection) if self.chance.random() < 0.72 else self.parent(collection)

    def next(self):
        """A request, and the versions that only its own steps could see."""
        if self.chance.random() > 0.03:
            return self.single(), set()
        before = self.version
        steps = [{"method": method, "path": path, **({"body": body} if body else {})}
                 for method, path, body in (self.single() for _ in range(self.chance.randint(2, 4)))]
        return ("POST", "/batch", {"requests": steps}), set(range(before + 1, self.version + 1))


def furnish(client):
    for path in (BUCKET, C1, C2):
        if client.send("adm", "GET", path)[0] != 200:
            client.send("adm", "PUT", path)


def play(cluster, seed, seconds):
    chance = random.Random(seed)
    client = Client(cluster.nodes, random.Random(seed))
    changes = Changes(chance, {user: client.send(user, "GET", "/")[1]["user"]["id"] for user in USERS})
    could_see, within_batch = {user: set() for user in USERS}, set()

    def look():
        for user, path in itertools.product(USERS, LISTS):
            status, answer = client.send(user, "GET", path)
            if status == 200:
                could_see[user].update((f"{path.split('?')[0]}/{item['id']}", item.get("v")) for item in answer["data"])

    furnish(client)
    look()
    places = itertools.cycle(cluster.nodes)
    streams = [Stream(next(places), user, path, resumes) for user in USERS for path in LISTS for resumes in (False, True)]
    for stream in streams:
        stream.start()
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        request, hidden = changes.next()
        client.send("adm", *request)
        within_batch |= hidden
        count += 1
        look()
        if chance.random() < 0.5:
            furnish(client)
            look()
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.05)
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        bad = [f"{s.user} {s.path} from {s.node.name}: {what}" for s in streams if (what := s.differs(client))]
        if not bad or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for stream in streams:
        stream.stopping.set()
        bad += [f"{stream.user} {stream.path} from {stream.node.name} was shown {uri} of version {version}, which no GET could see"
                for uri, version in stream.seen if version not in within_batch and (uri, version) not in could_see[stream.user]]
    for line in bad[:20]:
        print(f"compare: {line}")
    result = (f"seed {seed}: {count} changes, {len(streams)} streams from {len(cluster.nodes)} nodes, "
              f"{sum(stream.events for stream in streams)} events: {len(bad)} differences from GETs")
    print(f"compare: {result}", flush=True)
    return not bad, result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quinto", required=True, help="the binary")
    parser.add_argument("--seed", type=int, required=True, help="of the first run; the next ones count on")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of changes, for each run")
    parser.add_argument("--out", help="the page with the results")
    options = parser.parse_args()
    equal, results = True, []
    for seed in range(options.seed, options.seed + options.runs):
        with nodes.serving(options.quinto, nodes.OPEN_TO_ALL) as cluster:
            good, result = play(cluster, seed, options.seconds)
        equal &= good
        results.append(result)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as page:
            page.write(PAGE.format(results="\n".join(results)))
    sys.exit(not equal)


if __name__ == "__main__":
    main()
