"""Runs the tutorials of docs/: every block of code, in order, and what it must print.

A block ```sh runs in one shell per tutorial; ```js NAME and ```ini NAME are written to a
file of that name, and a script that is followed by a block ```text is run by node. A
block ```text is what the block before it prints; … stands for anything within a line.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
import time

import requests

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "demo"))

from clients import end  # noqa: E402
from nodes import free_ports  # noqa: E402

START_SECONDS = 90
BLOCK_SECONDS = 180
# The address that the texts name; each tutorial gets a server of its own elsewhere.
ADDRESS = "127.0.0.1:8888"
BLOCK = re.compile(r"^```(sh|js|ini|text)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
MARK = "--- end of block ---"


class Shell:
    """One bash for all blocks: variables and functions live on, as in a terminal."""

    def __init__(self, folder, env):
        self.process = subprocess.Popen(["bash"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def run(self, code):
        self.process.stdin.write(f"{code}\necho; echo '{MARK}'\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == MARK:
                break
            lines.append(line)
        return "".join(lines)


def equal(got, want):
    pattern = ".*".join(re.escape(part) for part in want.strip().split("…"))
    return re.fullmatch(pattern, got.strip()) is not None


def server(binary, folder, port):
    ini = os.path.join(folder, "sharing.ini")
    args = [binary, "start", "--ini", ini] if os.path.exists(ini) else [binary, "start", "--data", os.path.join(folder, "data"), "--port", str(port)]
    process = subprocess.Popen(args, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port}/v1/__heartbeat__", timeout=2).ok:
                return process
        except requests.RequestException:
            pass
        time.sleep(0.05)
    end(process)
    raise SystemExit("tutorials: the server did not start: " + process.stderr.read())


def tutorial(path, binary, node_path):
    """Runs one page; returns the number of checked outputs, and what was wrong."""
    port = free_ports(1)[0]
    with open(path, encoding="utf-8") as page:
        blocks = [(kind, name, body.replace(ADDRESS, f"127.0.0.1:{port}").replace("port = 8888", f"port = {port}"))
                  for kind, name, body in BLOCK.findall(page.read())]
    checked, wrong = 0, []
    with tempfile.TemporaryDirectory(prefix="quinto-tutorial-") as folder:
        for kind, name, body in blocks:
            if kind == "ini":
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(body)
        process = server(binary, folder, port)
        env = {**os.environ, "NODE_PATH": node_path}
        shell = Shell(folder, env)
        try:
            for i, (kind, name, body) in enumerate(blocks):
                expected = blocks[i + 1][2] if i + 1 < len(blocks) and blocks[i + 1][0] == "text" else None
                if kind == "sh":
                    got = shell.run(body)
                elif kind == "js":
                    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                        file.write(body)
                    if expected is None:
                        continue
                    done = subprocess.run(["node", name], cwd=folder, env=env, capture_output=True, text=True, timeout=BLOCK_SECONDS, check=False)
                    got = done.stdout + done.stderr
                else:
                    continue
                if expected is not None:
                    checked += 1
                    if not equal(got, expected):
                        diff = difflib.unified_diff(expected.strip().splitlines(), got.strip().splitlines(), "the page", "what was printed", lineterm="")
                        wrong.append("\n".join([body, *diff]))
        finally:
            end(shell.process)
            end(process, START_SECONDS)
    return checked, wrong


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--quinto", required=True)
    flags.add_argument("--node-path", required=True)
    flags.add_argument("pages", nargs="+")
    args = flags.parse_args()
    failed = 0
    for page in args.pages:
        begun = time.monotonic()
        checked, wrong = tutorial(page, os.path.abspath(args.quinto), args.node_path)
        print(f"  {'FAILED' if wrong else 'ok    '} {page}: {checked - len(wrong)} of {checked} outputs ({time.monotonic() - begun:.1f} s)", flush=True)
        for text in wrong:
            print(text)
        failed += bool(wrong)
    print(f"tutorials: {len(args.pages) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
