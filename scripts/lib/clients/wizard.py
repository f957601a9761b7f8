"""kinto-wizard: what it loads it dumps again, the same file."""

import os
import subprocess
import sys

LIMIT_SECONDS = 180

FILE = """\
buckets:
  staging:
    collections:
      articles:
        data:
          displayFields:
          - title
          schema:
            properties:
              title:
                type: string
            type: object
        permissions:
          read:
          - system.Everyone
        records:
          1f8a3c1e-7a90-4c9c-9d6f-1c8cb1d9a001:
            data:
              title: "na\\xEFve"
              tags:
              - a
              - 2
            permissions: {}
          1f8a3c1e-7a90-4c9c-9d6f-1c8cb1d9a002:
            data:
              title: second
            permissions: {}
    data:
      owner: ops
    groups:
      editors:
        data:
          members:
          - account:alice
          - account:bob
        permissions:
          read:
          - system.Authenticated
    permissions:
      collection:create:
      - account:bob
"""


# kinto-wizard 6 calls itertools.batched, which Python has since 3.12; Kinto runs on 3.11 too,
# where it is given the one of the documentation. Its own code stays as it is.
MAIN = """\
import itertools

def batched(iterable, n):
    iterator = iter(iterable)
    while batch := tuple(itertools.islice(iterator, n)):
        yield batch

if not hasattr(itertools, "batched"):
    itertools.batched = batched

import kinto_wizard.__main__
kinto_wizard.__main__.main()
"""


def wizard(url, auth, *args):
    command = [sys.executable, "-c", MAIN, args[0], "--server", url, "--auth", ":".join(auth), *args[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0:
        raise AssertionError(f"kinto-wizard {args[0]}: {done.returncode} {done.stderr[-2000:]}")
    return done.stdout


def run(url, auth, folder):
    """Loads, dumps, loads the dump into the same place and dumps again."""
    path, again = os.path.join(folder, "load.yaml"), os.path.join(folder, "dump.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(FILE)
    wizard(url, auth, "validate", path)
    wizard(url, auth, "load", path)
    dumped = wizard(url, auth, "dump", "--full", "--bucket", "staging")
    with open(again, "w", encoding="utf-8") as file:
        file.write(dumped)
    wizard(url, auth, "load", again, "--force")
    second = wizard(url, auth, "dump", "--full", "--bucket", "staging")
    return dumped, second
