"""Each planted fault must be found by exactly the proof that is there for it."""

import contextlib
import copy
import io
import unittest

import proofs

CITIES = "/buckets/world/collections/cities"
RECORDS = {str(i): {"id": str(i), "name": f"city {i}", "population": i} for i in range(1, 4)}
STAMPS = {name: 1000 + i for i, name in enumerate(RECORDS)}
LISTING = [{**r, "last_modified": STAMPS[name]} for name, r in RECORDS.items()]
EXPECTED = {(f"{CITIES}/records/{name}", stamp) for name, stamp in STAMPS.items()}


def delivery(number, stamp, **other):
    uri = f"{CITIES}/records/{number}"
    return {"id": f"msg-{number}", "valid": True, "lost": False, "revision": 10 + number, "action": "create",
            "uri": uri, "last_modified": stamp, **other}


# The second one was answered with an error, and came again.
DELIVERIES = [delivery(1, 1000), delivery(2, 1001, lost=True), delivery(2, 1001), delivery(3, 1002)]


def failed(check, *arguments):
    """The names of the proofs that fail."""
    found = proofs.Proofs()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        check(found, *arguments)
    return [line.removeprefix("  FAIL  ").split(":")[0] for line in printed.getvalue().splitlines() if line.startswith("  FAIL")]


class Content(unittest.TestCase):
    exact = "b has every acknowledged city exactly once, unchanged"
    equal = "the listings of the three nodes are equal, in the same order"

    def check(self, change, *names):
        listing = change(copy.deepcopy(LISTING))
        self.assertEqual(failed(proofs.content, RECORDS, STAMPS, {"a": LISTING, "b": listing}), list(names))

    def test_whole(self):
        self.check(lambda rows: rows)

    def test_lost(self):
        self.check(lambda rows: rows[1:], self.exact, self.equal)

    def test_doubled(self):
        self.check(lambda rows: [*rows, rows[0]], self.exact, self.equal)

    def test_unknown(self):
        self.check(lambda rows: [*rows, {"id": "9", "last_modified": 1}], self.exact, self.equal)

    def test_changed(self):
        self.check(lambda rows: [{**rows[0], "population": 9}, *rows[1:]], self.exact, self.equal)

    def test_other_timestamp(self):
        self.check(lambda rows: [{**rows[0], "last_modified": 9}, *rows[1:]], self.exact, self.equal)

    def test_order(self):
        self.check(lambda rows: rows[::-1], self.equal)


class Webhooks(unittest.TestCase):
    signed = "every webhook has a valid signature, by the libraries of PyPI and npm"
    complete = "every acknowledged change of the watched collections was delivered"
    real = "no change was delivered that nobody made"
    watched = "nothing of an unwatched collection was delivered"
    ordered = "first deliveries came in the order of the changes, in each collection"
    repeated = "a repeated delivery has the webhook-id of the first"

    def check(self, entries, *names):
        self.assertEqual(failed(proofs.webhooks, entries, EXPECTED, set(), {CITIES}), list(names))

    def test_whole(self):
        self.check(DELIVERIES)

    def test_nothing(self):
        self.check([], self.signed, self.complete, self.repeated)

    def test_invalid(self):
        self.check([*DELIVERIES, {**delivery(4, 9), "valid": False, "why": "forged"}], self.signed)

    def test_missing(self):
        self.check(DELIVERIES[:-1], self.complete)

    def test_unknown(self):
        self.check([*DELIVERIES, delivery(4, 1003)], self.real)

    def test_second_effect(self):
        self.check([*DELIVERIES, delivery(3, 1009, id="msg-9", revision=99)], self.real)

    def test_unwatched(self):
        self.check([*DELIVERIES, delivery(4, 1, uri="/buckets/world/collections/quiet/records/4")], self.watched)

    def test_order(self):
        self.check([DELIVERIES[3], *DELIVERIES[:3]], self.ordered)

    def test_late_repeat_is_in_order(self):
        self.check([*DELIVERIES, DELIVERIES[0]])

    def test_other_id(self):
        self.check([*DELIVERIES, delivery(3, 1002, id="msg-9")], self.ordered, self.repeated)

    def test_id_used_twice(self):
        self.check([*DELIVERIES[:3], delivery(3, 1002, id="msg-1")], self.repeated)

    def test_never_again(self):
        self.check([DELIVERIES[0], DELIVERIES[1], DELIVERIES[3]], self.repeated)


class Summary(unittest.TestCase):
    def test_nothing_proved_is_no_success(self):
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(proofs.Proofs().summary(), 1)


if __name__ == "__main__":
    unittest.main()
