"""A consumer of webhooks: checks each signature with the libraries of PyPI and of npm,
and writes down what came.

    receiver.py PORT SECRET JOURNAL [LOST...]

JOURNAL gets one JSON object a line, in the order of arrival. Of the deliveries
whose numbers are given as LOST the answer gets lost: they are taken, and
answered with 500, as by a consumer that breaks down too late.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Judge:
    """verify.cjs: npm's library, asked about one delivery after the other."""

    def __init__(self, secret):
        self.lock = threading.Lock()
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "verify.cjs")
        self.node = subprocess.Popen(["node", script, secret], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def refusal(self, headers, body):
        """Empty when the signature is good."""
        question = json.dumps({"headers": headers, "body": base64.b64encode(body).decode()})
        with self.lock:
            self.node.stdin.write(question + "\n")
            self.node.stdin.flush()
            answer = self.node.stdout.readline().strip()
        return "" if answer == "ok" else "npm: " + (answer or "it ended")


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, secret, journal, lost):
        super().__init__(("127.0.0.1", port), Handler)
        self.webhook = Webhook(secret)
        self.judge = Judge(secret)
        self.journal = open(journal, "a", buffering=1, encoding="utf-8")
        self.lost = lost
        self.taken = 0
        self.lock = threading.Lock()

    def take(self, headers, body):
        """Writes a delivery down; says whether its answer shall get lost."""
        entry = {"id": headers.get("webhook-id"), "valid": True}
        try:
            change = self.webhook.verify(body, dict(headers))
        except (WebhookVerificationError, ValueError) as error:
            entry.update(valid=False, why=f"{type(error).__name__}: {error}")
            change = {}
        if refusal := self.judge.refusal(dict(headers), body):
            entry.update(valid=False, why=refusal)
        new = change.get("impacted_objects", [{}])[0].get("new", {})
        entry.update({name: change.get(name) for name in ("revision", "action", "uri", "resource_name")})
        entry["last_modified"] = new.get("last_modified")
        with self.lock:
            self.taken += 1
            entry["lost"] = self.taken in self.lost
            self.journal.write(json.dumps(entry) + "\n")
        return entry["lost"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lost = self.server.take(self.headers, body)
        self.send_response(500 if lost else 204)
        if lost:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def main():
    port, secret, journal, *lost = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Receiver(int(port), secret, journal, {int(n) for n in lost})
    server.serve_forever()


if __name__ == "__main__":
    main()
