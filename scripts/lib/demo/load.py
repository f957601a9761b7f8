"""Loads records through the official Python client, in batches, over all nodes."""

import logging
import threading
import time
import uuid

import kinto_http
import requests
from kinto_http.exceptions import KintoException

from nodes import DemoError

BATCH = 25
THREADS = 6
REQUEST_SECONDS = 35  # more than a node works on a request
BATCH_SECONDS = 60  # after so long without an answer a batch is given up
RETRY_PAUSE = 0.05
AGAIN = (429, 502, 503, 504)  # nothing is known, or nothing was done: send it again

# The client logs every answer within a batch as a warning.
logging.getLogger("kinto_http").setLevel(logging.CRITICAL)


class Load:
    """Batches of records on their way into one collection.

    Each batch has one Idempotency-Key, whichever node it is sent to and however
    often: what was done already is not done again. Records are created with
    If-None-Match, so that a repeated effect would be refused, and seen.
    """

    def __init__(self, nodes, auth, bucket, collection, records, progress):
        self.nodes, self.auth, self.bucket, self.collection = nodes, auth, bucket, collection
        self.batches = [records[i : i + BATCH] for i in range(0, len(records), BATCH)]
        self.progress = progress
        self.stamps = {}  # id -> last_modified, of what was acknowledged
        self.sent = {}  # node name -> acknowledged batches
        self.times = []  # (sent, acknowledged) of each batch
        self.repeats = 0  # requests sent again
        self.failures = []
        self._next = self._limit = 0
        self._done = 0
        self._turn = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def allow(self, share):
        """Lets the load go on up to this share of all batches."""
        with self._turn:
            self._limit = round(len(self.batches) * share)
            self._turn.notify_all()

    def wait(self, share):
        """Waits until this share is acknowledged."""
        target = round(len(self.batches) * share)
        with self._turn:
            self._turn.wait_for(lambda: self._done >= target or self.failures)
        if self.failures:
            raise DemoError(self.failures[0])

    def outstanding(self):
        """Batches that may be sent and are not acknowledged yet."""
        with self._turn:
            return self._limit - self._done

    def close(self):
        with self._turn:
            self.failures.append("the load was stopped")
            self._turn.notify_all()

    def outage(self, moment):
        """Seconds from a moment to the first answer to a batch that was sent after it."""
        return min((done for sent, done in self.times if sent > moment), default=float("inf")) - moment

    def _take(self):
        with self._turn:
            self._turn.wait_for(lambda: self._next < self._limit or self.failures or self._next == len(self.batches))
            if self.failures or self._next == len(self.batches):
                return None
            self._next += 1
            return self._next - 1

    def _work(self):
        clients = [client(node.url, self.auth) for node in self.nodes]
        while (number := self._take()) is not None:
            try:
                self._send(number, clients)
            except Exception as error:  # a thread that ends in silence would stop the load
                with self._turn:
                    self.failures.append(f"batch {number}: {type(error).__name__}: {error}")
                    self._turn.notify_all()

    def _send(self, number, clients):
        batch, key = self.batches[number], str(uuid.uuid4())
        deadline = time.monotonic() + BATCH_SECONDS
        attempt = 0
        while True:
            turn = (number + attempt) % len(clients)
            sent = time.monotonic()
            answers = self._try(clients[turn], key, batch, last=sent > deadline)
            if answers is not None:
                break
            attempt += 1
            time.sleep(RETRY_PAUSE)
        done = time.monotonic()
        with self._turn:
            for record, answer in zip(batch, answers, strict=True):
                self.stamps[record["id"]] = answer["data"]["last_modified"]
            name = self.nodes[turn].name
            self.sent[name] = self.sent.get(name, 0) + 1
            self.times.append((sent, done))
            self.repeats += attempt
            self._done += 1
            self._turn.notify_all()
        self.progress.update(len(batch))

    def _try(self, one, key, batch, last):
        """Sends a batch once; None: it has to be sent again."""
        one.session.headers["Idempotency-Key"] = key
        try:
            with one.batch() as together:
                for record in batch:
                    together.create_record(id=record["id"], data=record, bucket=self.bucket, collection=self.collection)
            return together.results()
        except requests.RequestException:
            if last:
                raise
        except KintoException as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if last or status not in AGAIN:
                raise
        return None


def client(url, auth):
    """The official client, without retries of its own: they are the caller's business here."""
    return kinto_http.Client(server_url=url, auth=auth, timeout=REQUEST_SECONDS, headers={})


def listing(node, auth, bucket, collection, deleted=False, own=False):
    """All records of a collection through a node, in the order it gives them.

    own: as this very node has them, without asking the leader whether that is all.
    """
    one = client(node.url, auth)
    if own:
        one.session.headers["Quinto-Consistency"] = "stale"
    options = {"_since": "0"} if deleted else {}
    return one.get_records(bucket=bucket, collection=collection, **options)
