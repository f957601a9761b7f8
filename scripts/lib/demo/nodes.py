"""Three quinto processes on loopback, each ended by its own id."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time

import requests

# Below the ephemeral range: no outgoing connection takes a port between the
# probe and the start of the node.
PORTS = range(12_000, 31_000)
START_SECONDS = 90  # of three nodes on a slow machine
STOP_SECONDS = 60
CALL_SECONDS = 30
LOG_TAIL_LINES = 25


class DemoError(Exception):
    """What makes it impossible to go on; its text is for the person who looks on."""


def free_ports(count):
    """Different ports that nobody listens on, over TCP and UDP."""
    found = []
    for port in random.sample(PORTS, 20 * count):
        try:
            with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
        except OSError:
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise DemoError(f"no {count} free ports")


class Node:
    """One process. url is its API, with the version prefix."""

    def __init__(self, name, folder, ports):
        self.name = name
        self.http, self.cluster, self.gossip = (f"127.0.0.1:{port}" for port in ports)
        self.url = f"http://{self.http}/v1"
        self.data = os.path.join(folder, name)
        self.log = os.path.join(folder, name + ".log")
        self.process = None

    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self, binary, ini, seeds):
        args = [binary, "start", "--ini", ini, "--data", self.data, "--name", self.name]
        args += ["--http", self.http, "--cluster", self.cluster, "--gossip", self.gossip]
        args += ["--join", ",".join(seeds), "--expect", str(len(seeds) + 1)]
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C reaches this program alone, which ends the node.
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)

    def wait(self, seconds):
        """Waits for the end; the exit code, or None if it still runs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self):
        """As a power cut of the process: nothing can be tidied up."""
        self.signal(signal.SIGKILL)
        return self.wait(STOP_SECONDS)

    def get(self, path):
        answer = requests.get(self.url + path, timeout=CALL_SECONDS)
        if answer.status_code != 200:
            raise DemoError(f"{self.name}: GET {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-LOG_TAIL_LINES:])


class Cluster:
    """The nodes, three ports each, with one INI file for all of them."""

    def __init__(self, binary, folder, settings, ports):
        self.binary, self.folder = binary, folder
        self.ini = os.path.join(folder, "quinto.ini")
        with open(self.ini, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as ini:
            ini.write("\n".join(["[server:main]", "host = 127.0.0.1", "[app:main]", "use = egg:kinto", *settings, ""]))
        self.nodes = [Node(f"n{i // 3 + 1}", folder, ports[i : i + 3]) for i in range(0, len(ports), 3)]

    def start(self, node):
        node.start(self.binary, self.ini, [n.gossip for n in self.nodes if n is not node])

    def wait_ready(self, *nodes):
        """Waits until each answers a read that needs the leader's confirmation."""
        deadline = time.monotonic() + START_SECONDS
        for node in nodes:
            last = "nothing"
            while True:
                if not node.running():
                    raise DemoError(f"{node.name} ended at its start")
                try:
                    last = requests.head(node.url + "/buckets/ready", auth=("demo", "demo"), timeout=2).status_code
                    if last < 500:
                        break
                except requests.RequestException as error:
                    last = error
                if time.monotonic() > deadline:
                    raise DemoError(f"{node.name} is not ready after {START_SECONDS} s: {last}")
                time.sleep(0.02)

    def status(self, node):
        return node.get("/__cluster__")

    def leader(self):
        """The running node that leads, as a majority's member says."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for node in self.nodes:
                try:
                    name = self.status(node)["leader"] if node.running() else None
                except (requests.RequestException, DemoError):
                    continue
                for other in self.nodes:
                    if other.name == name and other.running():
                        return other
            time.sleep(0.05)
        raise DemoError(f"no leader within {START_SECONDS} s")

    def stop(self):
        """Ends all as an operator does; the exit codes by name, None: had to be killed."""
        for node in self.nodes:
            node.signal(signal.SIGTERM)
        codes = {}
        for node in self.nodes:
            if node.process is not None:
                codes[node.name] = node.wait(STOP_SECONDS)
                node.kill()
        return codes

    def kill(self):
        for node in self.nodes:
            node.signal(signal.SIGKILL)
        for node in self.nodes:
            if node.process is not None:
                node.wait(STOP_SECONDS)


@contextlib.contextmanager
def serving(binary, settings):
    """Three nodes that are ready, in a folder of their own, until they are killed."""
    with tempfile.TemporaryDirectory(prefix="quinto-") as folder:
        cluster = Cluster(os.path.abspath(binary), folder, settings, free_ports(9))
        try:
            for node in cluster.nodes:
                cluster.start(node)
            cluster.wait_ready(*cluster.nodes)
            yield cluster
        finally:
            cluster.kill()


# What both live tests set: users by name and password, who may create buckets.
OPEN_TO_ALL = ["kinto.userid_hmac_secret = live", "multiauth.policies = basicauth", "kinto.bucket_create_principals = system.Authenticated"]
