"""What is proved: each proof prints one line and is counted."""

import concurrent.futures
import hashlib

from nodes import DemoError


class Proofs:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, ok, detail=""):
        ok = bool(ok)
        self.passed += ok
        self.failed += not ok
        print(f"  {'ok  ' if ok else 'FAIL'}  {what}" + (f": {detail}" if detail else ""), flush=True)
        return ok

    def summary(self):
        print(f"{self.passed} passed, {self.failed} failed")
        print(f"demo: {self.passed} proofs passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


def some(items, most=3):
    """The first few of what is wrong, for a line."""
    items = sorted(items, key=str)
    return ", ".join(str(i) for i in items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def bare(record):
    return {name: value for name, value in record.items() if name not in ("id", "last_modified")}


def content(proofs, records, stamps, listings):
    """Each record exactly once and as it was acknowledged, on every node, in one order.

    records: what was sent, by id. stamps: last_modified as acknowledged, by id.
    listings: what each node gave, by its name.
    """
    for name, listing in listings.items():
        ids = [r["id"] for r in listing]
        lost = records.keys() - set(ids)
        extra = set(ids) - records.keys()
        doubled = len(ids) - len(set(ids))
        wrong = [r["id"] for r in listing if r["id"] in records and bare(r) != bare(records[r["id"]])]
        stamped = [r["id"] for r in listing if r["last_modified"] != stamps.get(r["id"])]
        proofs.check(f"{name} has every acknowledged city exactly once, unchanged",
                     not (lost or extra or doubled or wrong or stamped),
                     f"{len(ids):,} cities" if not (lost or extra or doubled or wrong or stamped) else
                     f"lost {some(lost)}; unknown {some(extra)}; doubled {doubled}; changed {some(wrong)}; other timestamps {some(stamped)}")
    first, *others = listings.values()
    proofs.check("the listings of the three nodes are equal, in the same order", all(o == first for o in others),
                 f"{len(first):,} cities each")


def digest(listing):
    """The digest that sync.cjs makes of its local database."""
    lines = hashlib.sha256()
    for r in sorted(listing, key=lambda r: r["id"]):
        lines.update(f"{r['id']} {r['last_modified']} {r['population']} {r['name']}\n".encode())
    return lines.hexdigest()


def collection(uri):
    return uri.rsplit("/records/", 1)[0]


def first_deliveries(entries):
    """Entries without repeats, in order of arrival."""
    seen = set()
    return [e for e in entries if e["id"] not in seen and not seen.add(e["id"])]


def webhooks(proofs, entries, expected, optional, watched):
    """What the consumer of webhooks saw, beside the changes that were acknowledged.

    expected: (uri, last_modified) of each change. optional: of changes that may be
    delivered. watched: URIs of collections.
    """
    invalid = [e for e in entries if not e["valid"]]
    proofs.check("every webhook has a valid signature, by the libraries of PyPI and npm", entries and not invalid,
                 f"{len(entries):,} deliveries" if not invalid else some([e["why"] for e in invalid]))
    valid = [e for e in entries if e["valid"]]
    changes = {(e["uri"], e["last_modified"]) for e in valid}
    missing, unknown = expected - changes, {c for c in changes if collection(c[0]) in watched} - expected - optional
    proofs.check("every acknowledged change of the watched collections was delivered", not missing,
                 f"{len(expected):,} changes" if not missing else f"{len(missing)} missing: {some(missing)}")
    proofs.check("no change was delivered that nobody made", not unknown, "" if not unknown else f"{len(unknown)}: {some(unknown)}")
    strange = {collection(e["uri"]) for e in valid} - watched
    proofs.check("nothing of an unwatched collection was delivered", not strange, some(strange))
    last, disorder = {}, []
    for e in first_deliveries(valid):
        lane = collection(e["uri"])
        if e["revision"] <= last.get(lane, 0):
            disorder.append((e["uri"], e["revision"]))
        last[lane] = e["revision"]
    proofs.check("first deliveries came in the order of the changes, in each collection", not disorder,
                 f"{len(last)} collections" if not disorder else some(disorder))
    repeats(proofs, valid)


def repeats(proofs, entries):
    """One webhook-id is one change, and a repeat has the id of the first delivery."""
    by_id, by_change = {}, {}
    for e in entries:
        change = (e["uri"], e["revision"], e["action"], e["last_modified"])
        by_id.setdefault(e["id"], set()).add(change)
        by_change.setdefault(change, set()).add(e["id"])
    mixed = [i for i, changes in by_id.items() if len(changes) > 1] + [c for c, ids in by_change.items() if len(ids) > 1]
    lost = {e["id"] for e in entries if e["lost"]}
    again = {i for i in lost if sum(e["id"] == i for e in entries) > 1}
    proofs.check("a repeated delivery has the webhook-id of the first", not mixed and lost and again == lost,
                 f"{len(entries) - len(by_id)} repeats, of them {len(again)} whose answer got lost on purpose"
                 if not mixed else some(mixed))


def same_state(proofs, cluster, wait):
    """The replicated state of all nodes at one moment, in two digests.

    The state goes on without new revisions: cursors of webhooks, trimmed events. So
    the nodes are asked at once, and again until all answer for the same state.
    """
    def ask(node):
        return node.get("/__cluster__/hash")

    def hashes():
        with concurrent.futures.ThreadPoolExecutor(len(cluster.nodes)) as pool:
            found = list(pool.map(ask, cluster.nodes))
        seen.append(found)
        return found if len({(h["revision"], h["state"], h["full"]) for h in found}) == 1 else None

    seen = []
    try:
        wait(hashes)
    except DemoError:
        proofs.check("the three nodes have the same state hash", False, str(seen[-1]))
        return
    one = seen[-1][0]
    proofs.check("the three nodes have the same state hash", True,
                 f"{one['state'][:16]}… at revision {one['revision']:,}, over all content {one['full'][:16]}…")
