"""Shows a collection live in Chromium while nodes are killed: docs/examples/live, and a
WebSocket beside it, must end equal to a GET.

The browser is driven by nothing but pages: a page of the test frames the example, and
posts what it shows to the test's own HTTP server.
"""

import argparse
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import requests

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

import nodes  # noqa: E402

EXAMPLE = os.path.join(HERE, "..", "..", "..", "docs", "examples", "live")
AUTH = ("alice", "secret")
COLLECTION = "/buckets/live/collections/items"
WAIT_SECONDS = 180


class Reports(http.server.SimpleHTTPRequestHandler):
    """Serves the pages, and takes what they show."""

    seen = {}

    def do_POST(self):  # noqa: N802 (the name is the library's)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Reports.seen[self.path] = json.loads(body)
        self.send_response(204)
        self.end_headers()

    def translate_path(self, path):
        folder = HERE if path.startswith("/test.html") else EXAMPLE
        return os.path.join(folder, os.path.basename(urllib.parse.urlsplit(path).path))

    def log_message(self, *_):
        pass


class Writer(threading.Thread):
    """Writes through whatever node answers, until it is told to stop."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.stopping, self.done = cluster, threading.Event(), 0

    def run(self):
        n = 0
        while not self.stopping.is_set():
            n += 1
            node = self.cluster.nodes[n % len(self.cluster.nodes)]
            url = f"{node.url}{COLLECTION}/records/r{n % 17}"
            try:
                if n % 5 == 0:
                    answer = requests.delete(url, auth=AUTH, timeout=5)
                else:
                    answer = requests.put(url, json={"data": {"n": n, "at": node.name}}, auth=AUTH, timeout=5)
                self.done += answer.status_code < 300
            except requests.RequestException:
                pass
            time.sleep(0.01)


def wait(what, check):
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        if check():
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"live: waited in vain: {what}; seen {json.dumps(Reports.seen)[:2000]}")
        time.sleep(0.05)


def rows(node):
    answer = requests.get(f"{node.url}{COLLECTION}/records", auth=AUTH, timeout=30)
    answer.raise_for_status()
    return {record["id"]: record for record in answer.json()["data"]}


def equal(node):
    """Both the page and the WebSocket show what a GET says; False where it has no answer."""
    try:
        want = rows(node)
    except requests.RequestException:  # a 503 while another leader is elected
        return False
    shown = dict(row.split(" ", 1) for row in Reports.seen.get("/page", {}).get("rows", []))
    page = {key: {"id": key, **json.loads(text)} for key, text in shown.items()}
    return page == want and Reports.seen.get("/socket", {}).get("records") == want


def serving(cluster, what):
    """The node that a stream comes from."""
    wait(f"{what} to be live", lambda: any(node.http in Reports.seen[what]["state"] for node in cluster.nodes))
    return next(node for node in cluster.nodes if node.http in Reports.seen[what]["state"])


def play(cluster, browser, kills):
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Reports))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    query = urllib.parse.urlencode({"nodes": ",".join(f"http://{node.http}" for node in cluster.nodes), "collection": COLLECTION, "user": ":".join(AUTH)})
    url = f"http://127.0.0.1:{pages.server_port}/test.html?{query}"
    profile = os.path.join(cluster.folder, "browser")
    with open(os.path.join(cluster.folder, "browser.log"), "wb") as log:
        chromium = subprocess.Popen([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", "--remote-debugging-port=0", url],
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        first = cluster.nodes[0]
        for path in ("/buckets/live", COLLECTION):
            requests.put(first.url + path, auth=AUTH, timeout=30).raise_for_status()
        requests.put(f"{first.url}{COLLECTION}/records/early", json={"data": {"n": 0}}, auth=AUTH, timeout=30).raise_for_status()
        wait("the first record in the browser", lambda: equal(first))
        writer = Writer(cluster)
        writer.start()
        victims = [cluster.leader, lambda: serving(cluster, "/page"), lambda: serving(cluster, "/socket")]
        for kill in range(kills):
            node = victims[kill % len(victims)]()
            done = writer.done
            wait("writes before the kill", lambda: writer.done > done + 20)  # noqa: B023
            node.kill()
            done = writer.done
            wait("writes without the killed node", lambda: writer.done > done + 20)  # noqa: B023
            cluster.start(node)
            cluster.wait_ready(node)
        writer.stopping.set()
        writer.join()
        wait("the browser to show what a GET says", lambda: equal(first))
        print(f"live: {writer.done} writes, {kills} nodes killed, {len(rows(first))} records: EventSource and WebSocket, "
              f"{Reports.seen['/socket']['connections']} connections of it, show what a GET says")
    finally:
        os.killpg(chromium.pid, signal.SIGKILL)  # its own session: the program is a wrapper, and has children
        chromium.wait()
        pages.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quinto", required=True)
    parser.add_argument("--browser", required=True)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    with nodes.serving(options.quinto, nodes.OPEN_TO_ALL) as cluster:
        play(cluster, options.browser, options.kills)


if __name__ == "__main__":
    main()
