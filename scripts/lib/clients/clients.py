"""The official clients, unmodified, on three nodes behind a round robin: see scripts/clients."""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time

import requests
from ruamel.yaml import YAML

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

from nodes import Cluster, DemoError, free_ports  # noqa: E402
import openid  # noqa: E402
from proxy import RoundRobin  # noqa: E402
import python  # noqa: E402
import wizard  # noqa: E402

LIMIT_SECONDS = 120
AUTH = ("clients", "secret")

SETTINGS = [
    "kinto.project_name = clients",
    "kinto.userid_hmac_secret = a secret of these clients",
    "kinto.includes = kinto.plugins.default_bucket kinto.plugins.history kinto.plugins.accounts kinto.plugins.openid",
    "kinto.default_bucket_hmac_secret = another",
    "kinto.experimental_permissions_endpoint = true",
    f"kinto.multiauth.policies = account basicauth {' '.join(openid.POLICIES)}",
    "kinto.multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy",
    "kinto.multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy",
    "kinto.account_create_principals = system.Everyone",
]


def javascript(script, url, node_path, bucket):
    command = ["node", os.path.join(HERE, script), url, ":".join(AUTH), bucket]
    done = subprocess.run(command, env={**os.environ, "NODE_PATH": node_path}, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{script}: {done.stderr[-3000:]}")
    return json.loads(done.stdout)["methods"]


def offline(url, node_path):
    for path in ("/buckets/offline", "/buckets/offline/collections/notes", "/buckets/offline/collections/dump"):
        requests.put(url + path, auth=AUTH, timeout=LIMIT_SECONDS).raise_for_status()
    return [f"kinto.js: all {javascript('offline.cjs', url, node_path, 'offline')} methods of its collections"]


def wizards(url, folder):
    """The dump is what was loaded, but for what the server adds: times, ids beside the
    names, and the loader in each write permission. The order of members is chance."""
    dumped, second = wizard.run(url, AUTH, folder)
    user = requests.get(url + "/", auth=AUTH, timeout=LIMIT_SECONDS).json()["user"]["id"]

    def loaded(tree):
        if isinstance(tree, dict):
            cleaned = {key: loaded(value) for key, value in tree.items() if key not in ("id", "last_modified")}
            return {key: value for key, value in cleaned.items() if value not in ({}, [])}
        if isinstance(tree, list):
            return [loaded(value) for value in tree if value != user]
        return tree

    yaml = YAML(typ="safe")
    want = loaded(yaml.load(wizard.FILE))
    for text in (dumped, second):
        got = loaded(yaml.load(text))
        python.must(got == want, f"dumped {got}\nloaded {want}")
    return ["kinto-wizard: what it loads it dumps again, and loads that"]


def prove(url, node_path, folder, *more):
    """Runs all; returns how many failed."""
    steps = [
        lambda: python.run(url, AUTH),
        lambda: [f"kinto-http.js: all {javascript('http.cjs', url, node_path, 'js')} methods of client, bucket and collection"],
        lambda: offline(url, node_path),
        lambda: wizards(url, folder),
        *more,
    ]
    passed = failed = 0
    for step in steps:
        begun = time.monotonic()
        try:
            for line in step():
                print(f"  ok    {line} ({time.monotonic() - begun:.1f} s)", flush=True)
                passed += 1
        except Exception as error:  # whatever a client raises is what this is to show
            print(f"  FAILED {type(error).__name__}: {error}", flush=True)
            failed += 1
    return passed, failed


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--quinto", required=True)
    flags.add_argument("--node-path", required=True)
    flags.add_argument("--url", help="use this server instead of three nodes, for example a real Kinto")
    args = flags.parse_args()
    logging.getLogger("kinto_http").setLevel(logging.ERROR)  # it warns of every part of a batch that went well
    folder = tempfile.mkdtemp(prefix="quinto-clients-")
    cluster = proxy = provider = None
    more = []
    try:
        url = args.url
        if url is None:
            ports = free_ports(11)
            host = f"127.0.0.1:{ports[9]}"
            provider = openid.Provider(ports[10], args.node_path, [f"http://{host}/v1/openid/{policy}/token" for policy in openid.POLICIES])
            cluster = Cluster(args.quinto, folder, SETTINGS + openid.settings(ports[10]), ports[:9])
            for node in cluster.nodes:
                cluster.start(node)
            cluster.wait_ready(*cluster.nodes)
            proxy = RoundRobin(ports[9], [node.http for node in cluster.nodes])
            url = proxy.url
            more = [lambda: openid.run(host, [node.url for node in cluster.nodes], provider)]
        passed, failed = prove(url, args.node_path, folder, *more)
        if proxy is not None:
            print("  requests by node:", ", ".join(str(n) for n in proxy.served.values()))
        print(f"clients: {passed} passed, {failed} failed")
        return 1 if failed else 0
    except DemoError as error:
        print(f"clients: {error}", file=sys.stderr)
        for node in cluster.nodes if cluster else []:
            print(f"--- {node.name}\n{node.tail()}", file=sys.stderr)
        return 1
    finally:
        if provider is not None:
            provider.stop()
        if proxy is not None:
            proxy.stop()
        if cluster is not None:
            cluster.stop()
            cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
