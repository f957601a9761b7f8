"""A consumer of webhooks: checks each signature and writes down what came.

    receiver.py PORT SECRET JOURNAL [LOST...]

JOURNAL gets one JSON object a line, in the order of arrival. Of the deliveries
whose numbers are given as LOST the answer gets lost: they are taken, and
answered with 500, as by a consumer that breaks down too late.
"""

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, secret, journal, lost):
        super().__init__(("127.0.0.1", port), Handler)
        self.webhook = Webhook(secret)
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
