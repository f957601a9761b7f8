"""Three nodes, all the cities of the world, real Kinto clients, and the leader killed.

Called by scripts/demo, which installs what this needs.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback

import requests
from kinto_http.exceptions import KintoException
from tqdm import tqdm

import proofs
from clients import Consumer, Devices, cities
from load import BATCH, THREADS, Load, client, listing
from nodes import LOG_TAIL_LINES, Cluster, DemoError, free_ports

NODES = 3
AUTH = ("demo", "demo")
BUCKET = "world"
COLLECTIONS = "/buckets/world/collections/"
WATCHED = ("cities", "notes", "journal", "probe")
UNWATCHED = "quiet"
# Shares of the load: up to the first all three nodes serve; at the second the
# leader is killed; after the third the killed node starts again.
HEALTHY, KILLED, RESTARTED = 0.40, 0.50, 0.75
UPDATES = 40  # cities that are edited after the load
# The deliveries whose answer the consumer loses, by number.
LOST = (2, 300, 2000)
OUTAGE_SECONDS = 10  # longer than this without a single write after the kill is a failure
CATCH_UP_SECONDS = 90
IDLE_SECONDS = 60  # webhooks: this long without any delivery ends the waiting


def await_(what, seconds, ask):
    """Asks until there is an answer; DemoError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return answer


def bar(what, total):
    """A progress bar: lively on a terminal, a line now and then elsewhere."""
    return tqdm(total=total, desc="  " + what, unit=" records", mininterval=0.1 if sys.stderr.isatty() else 5,
                maxinterval=10, ncols=100, dynamic_ncols=sys.stderr.isatty())


def clear(progress):
    """Makes room for lines below or instead of the bar."""
    if sys.stderr.isatty():
        progress.clear()
    else:
        print(file=sys.stderr, flush=True)


def head(text):
    print(f"\n{text}", flush=True)


def note(text):
    print(f"        {text}", flush=True)


class Demo:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.proofs = proofs.Proofs()
        port, *ports = free_ports(1 + 3 * NODES)
        self.consumer = Consumer(options.node_path, folder, port, LOST)
        self.cluster = Cluster(options.quinto, folder, self.settings(), ports)
        self.load = self.devices = self.follower = None
        self.expected = set()  # (uri, last_modified) of each acknowledged change of a watched collection
        self.probes = set()  # changes of which some may come before the notifier is registered
        self.stamps = {}  # last_modified of each city, by id

    def settings(self):
        listener = "event_listeners.watch."
        return [
            "kinto.userid_hmac_secret = " + secrets.token_hex(32),
            "multiauth.policies = basicauth",
            "multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy",
            "event_listeners = watch",
            listener + "use = quinto.webhook",
            f"{listener}url = http://127.0.0.1:{self.consumer.port}/changes",
            listener + "secret = " + self.consumer.secret,
            listener + "resources = record",
            listener + "bucket = " + BUCKET,
            listener + "collection = " + " ".join(WATCHED),
        ]

    @property
    def nodes(self):
        return self.cluster.nodes

    @property
    def urls(self):
        return [node.url for node in self.nodes]

    def run(self):
        self.start()
        records = cities(self.options.node_path, self.options.records)
        self.records = {r["id"]: r for r in records}
        self.healthy(records)
        self.kill()
        self.restart()
        self.pull()
        self.quiet()
        self.deliveries()
        self.compare()
        self.stop()

    def start(self):
        head("Three nodes on one machine")
        begun = time.monotonic()
        self.consumer.start()
        for node in self.nodes:
            self.cluster.start(node)
        self.cluster.wait_ready(*self.nodes)
        status = self.cluster.status(self.nodes[2])
        voters = [m["name"] for m in status["members"] if m["suffrage"] == "voter"]
        self.proofs.check("three nodes form one service", sorted(voters) == [n.name for n in self.nodes],
                          f"ready in {time.monotonic() - begun:.1f} s, {status['leader']} leads")
        one = client(self.nodes[0].url, AUTH)
        one.create_bucket(id=BUCKET)
        for name in (*WATCHED, UNWATCHED):
            one.create_collection(id=name, bucket=BUCKET)
        self.probe(one)
        self.devices, self.follower = (Devices(self.options.node_path, self.folder, BUCKET, AUTH) for _ in range(2))

    def probe(self, one):
        """A notifier watches from its registration on, which the first leader does
        at its start: writes until a first change is delivered."""
        begun = time.monotonic()

        def delivered():
            made = one.create_record(bucket=BUCKET, collection="probe", data={"probe": True})["data"]
            self.probes.add((COLLECTIONS + "probe/records/" + made["id"], made["last_modified"]))
            return self.consumer.read()

        await_("a first webhook", 10, delivered)
        note(f"webhooks are on: the first one came after {time.monotonic() - begun:.1f} s")

    def healthy(self, records):
        head(f"{len(records):,} cities through kinto-http, in batches of {BATCH}, {THREADS} at a time, over the three nodes; "
             "kinto.js beside it")
        self.bar = bar("cities", len(records))
        self.load = Load(self.nodes, AUTH, BUCKET, "cities", records, self.bar)
        self.follower.do(do="follow", remotes=self.urls)
        begun = time.monotonic()
        self.devices.send(do="notes", remotes=self.urls)
        self.load.allow(HEALTHY)
        self.load.wait(HEALTHY)
        seconds = time.monotonic() - begun
        loaded = len(self.load.stamps)
        notes = self.devices.answer()
        clear(self.bar)
        self.proofs.check("every node took batches", len(self.load.sent) == len(self.nodes),
                          f"{loaded / seconds:,.0f} records/s with three nodes")
        for proof in notes["proofs"]:
            self.proofs.check("kinto.js: " + proof["what"], proof["ok"], proof["detail"])
        note(f"{notes['syncs']} syncs, the longest {notes['syncMs']:.0f} ms")
        self.edited(notes)

    def edited(self, notes):
        """What the devices published is to be delivered; deletions have the tombstone's time."""
        stamps = {COLLECTIONS + "notes/records/" + r["id"]: r["last_modified"]
                  for r in listing(self.nodes[0], AUTH, BUCKET, "notes", deleted=True)}
        for change in notes["acknowledged"]:
            self.expected.add((change["uri"], change.get("last_modified") or stamps[change["uri"]]))

    def kill(self):
        head("The leader is killed while they load")
        self.devices.do(do="begin", remotes=self.urls)
        self.load.allow(RESTARTED)
        self.load.wait(KILLED)
        self.dead = self.cluster.leader()
        self.killed = time.monotonic()
        self.dead.kill()
        left = self.load.outstanding()
        self.load.wait(RESTARTED)
        outage = self.load.outage(self.killed)
        heir = self.cluster.leader()
        clear(self.bar)
        self.proofs.check("another node leads after SIGKILL of the leader", heir is not self.dead and not self.dead.running(),
                          f"{self.dead.name} is dead, {heir.name} leads")
        self.proofs.check("writing goes on", left > 0 and outage < OUTAGE_SECONDS,
                          f"killed with {left:,} batches on their way or next; the first one after it was acknowledged after {outage:.2f} s")

    def restart(self):
        head("It starts again, and the load ends")
        begun = time.monotonic()
        self.cluster.start(self.dead)
        self.cluster.wait_ready(self.dead)
        ready = time.monotonic() - begun
        down = begun - self.killed
        begun, before = time.monotonic(), len(self.load.stamps)
        self.load.allow(1)
        self.load.wait(1)
        seconds = time.monotonic() - begun
        self.bar.close()
        self.stamps.update(self.load.stamps)
        target = self.cluster.status(self.cluster.leader())["revision"]

        def caught_up():
            return self.dead.get(f"/__cluster__/hash?revision={target}")["revision"] >= target

        await_(f"{self.dead.name} at revision {target}", CATCH_UP_SECONDS, caught_up)
        self.proofs.check("the killed node is back and has caught up", self.dead.running(),
                          f"{down:.1f} s dead, up to date and serving {ready:.1f} s after its start")
        self.proofs.check("every batch was acknowledged", len(self.stamps) == len(self.records),
                          f"{len(self.stamps):,} cities, the last {len(self.stamps) - before:,} with "
                          f"{(len(self.stamps) - before) / seconds:,.0f} records/s, {self.load.repeats} requests of dead or leaderless nodes "
                          "sent again with the same key")
        for name, stamp in self.stamps.items():
            self.expected.add((COLLECTIONS + "cities/records/" + name, stamp))
        self.journal()

    def journal(self):
        """The clients that wrote all the while: nothing is lost or doubled there either."""
        journal = self.devices.do(do="end")
        found = listing(self.dead, AUTH, BUCKET, "journal")
        ids, wrote = {r["id"] for r in found}, set(journal["ids"])
        self.proofs.check("kinto.js: what was written offline during the outage is there, once",
                          ids == wrote and len(found) == len(journal["ids"]),
                          f"{len(found)} notes, {journal['syncs']} syncs, {journal['failed']} failed and were repeated"
                          if ids == wrote else f"lost {proofs.some(wrote - ids)}; unknown {proofs.some(ids - wrote)}")
        for r in found:
            self.expected.add((COLLECTIONS + "journal/records/" + r["id"], r["last_modified"]))

    def pull(self):
        head("The cities on an offline-first device that followed all the while")
        first = self.follower.do(do="pull", remote=self.dead.url)
        same = first["digest"] == proofs.digest(listing(self.nodes[1], AUTH, BUCKET, "cities"))
        self.proofs.check("kinto.js: has all cities, each received once",
                          first["count"] == first["created"] == len(self.records) and first["updated"] == 0 and same,
                          f"{first['count']:,} cities in {first['syncs']} syncs over all nodes, {first['failed']} more failed, "
                          f"the last one through {self.dead.name} in {first['seconds']:.1f} s")
        self.edit_cities()
        again = self.follower.do(do="pull", remote=self.nodes[2].url)
        same = again["digest"] == proofs.digest(listing(self.nodes[0], AUTH, BUCKET, "cities"))
        self.proofs.check("kinto.js: the next sync, through n3, brings just what changed",
                          again["updated"] == UPDATES and again["created"] == 0 and again["count"] == len(self.records) and same,
                          f"{again['updated']} cities in {again['seconds'] * 1000:.0f} ms")

    def edit_cities(self):
        """Edits some cities through all nodes, each with If-Match of its acknowledged timestamp."""
        names = list(self.records)[len(self.records) // 2 :][:UPDATES]
        refused = 0
        for i, name in enumerate(names):
            one = client(self.urls[i % len(self.urls)], AUTH)
            city = {**self.records[name], "population": self.records[name]["population"] + 1}
            stamp = self.stamps[name]
            answer = one.update_record(bucket=BUCKET, collection="cities", id=name, data=city, if_match=stamp)["data"]
            self.records[name], self.stamps[name] = city, answer["last_modified"]
            self.expected.add((COLLECTIONS + "cities/records/" + name, answer["last_modified"]))
            try:
                one.update_record(bucket=BUCKET, collection="cities", id=name, data=city, if_match=stamp)
            except KintoException as error:
                refused += error.response.status_code == 412
        self.proofs.check("an edit on top of an older version is refused, through every node", refused == UPDATES,
                          f"{refused} times 412")

    def quiet(self):
        """Changes that no webhook shall tell."""
        one = client(self.nodes[1].url, AUTH)
        for i in range(BATCH):
            one.create_record(bucket=BUCKET, collection=UNWATCHED, data={"secret": i})

    def deliveries(self):
        head("Webhooks")
        begun, progress = time.monotonic(), bar("webhooks", len(self.expected))
        seen, idle_since = 0, begun
        while self.expected - (seen_changes := self.changes()) and time.monotonic() - idle_since < IDLE_SECONDS:
            if len(self.consumer.entries) > seen:
                seen, idle_since = len(self.consumer.entries), time.monotonic()
            progress.update(len(self.expected & seen_changes) - progress.n)
            time.sleep(0.5)
        progress.update(len(self.expected & self.changes()) - progress.n)
        progress.close()
        time.sleep(1)  # what should not come would come now
        note(f"the last change was delivered {time.monotonic() - begun - 1:.1f} s after the last write; "
             f"{len(self.probes & self.changes())} of {len(self.probes)} changes made at the start, before webhooks were seen to be on, too")
        proofs.webhooks(self.proofs, self.consumer.read(), self.expected, self.probes, {COLLECTIONS + name for name in WATCHED})

    def changes(self):
        return {(e["uri"], e["last_modified"]) for e in self.consumer.read()}

    def compare(self):
        head("The three nodes beside each other")
        # All nodes are at one revision before each is asked for its own content.
        proofs.same_state(self.proofs, self.cluster, lambda ask: await_("one state", CATCH_UP_SECONDS, ask))
        listings = {node.name: listing(node, AUTH, BUCKET, "cities", own=True) for node in self.nodes}
        proofs.content(self.proofs, self.records, self.stamps, listings)

    def stop(self):
        begun = time.monotonic()
        codes = self.cluster.stop()
        self.proofs.check("all nodes end on SIGTERM", set(codes.values()) == {0},
                          f"{time.monotonic() - begun:.1f} s" if set(codes.values()) == {0} else str(codes))

    def close(self):
        """Ends every process that is left."""
        if self.load:
            self.load.close()
            self.bar.close()
        self.cluster.kill()
        self.consumer.stop()
        for devices in (self.devices, self.follower):
            if devices:
                devices.stop()

    def tails(self):
        for node in self.nodes:
            if os.path.exists(node.log):
                print(f"\n--- the last {LOG_TAIL_LINES} lines of {node.log}\n{node.tail()}", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Shows and proves what three nodes are good for.")
    parser.add_argument("--records", type=int, default=0, help="how many cities; default: all, some 135,000")
    parser.add_argument("--keep", action="store_true", help="keep the data and logs of the nodes")
    parser.add_argument("--quinto", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--node-path", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.records and options.records < 1000:
        parser.error("--records: 1000 at least, or the leader cannot be killed in the midst of them")
    return options


def interrupted(number, _frame):
    raise SystemExit(128 + number)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    folder = tempfile.mkdtemp(prefix="quinto-demo-")
    demo = Demo(options, folder)
    begun, finished = time.monotonic(), False
    try:
        demo.run()
        finished = True
    except Exception as error:
        if not isinstance(error, (DemoError, KintoException, requests.RequestException)):
            traceback.print_exc()
        demo.proofs.check("the demo went to its end", False, f"{type(error).__name__}: {error}")
        finished = True
    finally:  # also when interrupted
        demo.close()
        if demo.proofs.failed:
            demo.tails()
        if demo.proofs.failed or not finished or options.keep:
            print(f"\nData and logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    head(f"{time.monotonic() - begun:.0f} s in all")
    return demo.proofs.summary()


if __name__ == "__main__":
    sys.exit(main())
