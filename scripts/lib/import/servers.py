"""PostgreSQL, Kinto and quinto as processes of one run, on a scratch folder."""

import os
import pwd
import random
import shlex
import signal
import socket
import subprocess
import time

import requests

START_SECONDS = 90
STOP_SECONDS = 20


def free_port():
    """A loopback port below those of outgoing connections."""
    while True:
        port = random.randint(12000, 31000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process:
    """A process that ends with this run, by its own id."""

    def __init__(self, name, folder, args, ready, user=None, env=None):
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, user=user,
                env=dict(os.environ, PYTHONWARNINGS="ignore", **(env or {})),
            )
        end = time.monotonic() + START_SECONDS
        while not ready():
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log, encoding="utf-8", errors="replace") as f:
                    raise SystemExit(f"{name} does not start:\n{f.read()[-2000:]}")
            time.sleep(0.05)

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Postgres:
    """A server on a scratch folder, as the user postgres when this runs as root."""

    def __init__(self, programs, folder):
        self.programs, self.folder, self.port = programs, os.path.join(folder, "pg"), free_port()
        self.user = "postgres" if os.getuid() == 0 else None
        os.mkdir(self.folder, 0o755)
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        data = os.path.join(self.folder, "data")
        self.run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        args = [os.path.join(programs, "postgres"), "-D", data, "-h", "127.0.0.1", "-k", "", "-p", str(self.port),
                "-c", "fsync=off", "-c", "timezone=UTC"]
        self.process = Process("postgres", folder, args, lambda: self.sql("postgres", "SELECT 1", check=False) == 0, self.user)
        self.sql("postgres", "CREATE DATABASE kinto")
        self.dsn = f"postgresql://postgres:secret@127.0.0.1:{self.port}/kinto"

    def run(self, program, *args, check=True, text=None):
        done = subprocess.run(
            [os.path.join(self.programs, program), *args], input=text, user=self.user, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
        if check and done.returncode:
            raise SystemExit(f"{program}: {done.stdout[-2000:]}")
        return done.returncode

    def sql(self, database, statement, check=True):
        return self.run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-X", "-q",
                        "-v", "ON_ERROR_STOP=1", "-f", "-", text=statement, check=check)

    def stop(self):
        self.process.stop(signal.SIGINT)


def answers(url):
    try:
        return requests.get(url + "/__lbheartbeat__", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def commands(page):
    """The shell commands of a page, by the comment `<!-- name -->` above each block."""
    found, name, lines = {}, None, None
    with open(page, encoding="utf-8") as f:
        for line in f:
            if lines is not None:
                if line.startswith("```"):
                    found[name], lines, name = "".join(lines), None, None
                else:
                    lines.append(line)
            elif line.startswith("<!-- test: "):
                name = line[len("<!-- test: "):].split(" -->")[0]
            elif name and line.startswith("```"):
                lines = []
    return found


def shell(script, folder, env, check=True):
    """Runs a block of the tutorial; the code and what it wrote."""
    done = subprocess.run(["bash", "-euc", script], cwd=folder, env=dict(os.environ, **env), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if check and done.returncode:
        raise SystemExit(f"{shlex.quote(script)}\nended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.returncode, done.stdout
