"""The proof of `quinto import`: see scripts/import."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time

import kinto_http
import requests

import compare
import seed
import servers

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "..", "docs", "tutorial-migration.md")

KINTO_INI = """[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = %(http_port)s
threads = 8

[app:main]
use = egg:kinto
kinto.includes = kinto.plugins.accounts
                 kinto.plugins.history
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy
kinto.userid_hmac_secret = b4c96a8692291d88fe5a97dd91846eb4
kinto.account_create_principals = system.Everyone
kinto.account_read_principals = account:admin
kinto.account_write_principals = account:admin
kinto.bucket_create_principals = account:admin
kinto.bucket_read_principals = account:admin
kinto.bucket_write_principals = account:admin
kinto.storage_backend = kinto.core.storage.postgresql
kinto.storage_url = {dsn}
kinto.permission_backend = kinto.core.permission.postgresql
kinto.permission_url = {dsn}
kinto.cache_backend = kinto.core.cache.postgresql
kinto.cache_url = {dsn}

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = ERROR
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(message)s
"""


class Proofs:
    def __init__(self):
        self.passed = self.failed = 0
        self.figures = []

    def check(self, good, what):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(("ok     " if good else "FAILED ") + what, flush=True)

    def figure(self, what, value):
        self.figures.append((what, value))
        print(f"       {what}: {value}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("quinto", "venv", "postgres"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--out")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="quinto-import-", dir="/tmp")
    os.chmod(folder, 0o755)
    run = Run(options, folder)
    try:
        run.all()
    finally:
        run.stop()
        if options.keep:
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    p = run.proofs
    if options.out and not p.failed:
        write_page(options, p)
    print(f"import: {p.passed} proofs passed, {p.failed} failed")
    raise SystemExit(1 if p.failed else 0)


class Run:
    def __init__(self, options, folder):
        self.o, self.folder, self.proofs, self.running = options, folder, Proofs(), []
        self.quinto = os.path.abspath(options.quinto)
        self.port = servers.free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.steps = servers.commands(PAGE)
        bins = os.path.join(folder, "bin")
        os.mkdir(bins)
        os.symlink(self.quinto, os.path.join(bins, "quinto"))
        self.env = {"PATH": bins + ":" + os.path.join(options.venv, "bin") + ":" + os.environ["PATH"], "PYTHONWARNINGS": "ignore"}

    def stop(self):
        for p in reversed(self.running):
            p.stop()

    def step(self, name, check=True):
        """A block of the tutorial, with its example names replaced by those of this run."""
        script = self.steps[name]
        for example, real in (("postgresql://kinto:password@db.example.com/kinto", self.pg.dsn), ("http://kinto.example.com/v1", self.old),
                              ("8888", str(self.port)), ("admin:password", ":".join(seed.ADMIN).replace("'", "'\\''")), ("'mine'", "'admin'")):
            script = script.replace(example, real)
        return servers.shell(script, self.folder, self.env, check)

    def start_kinto(self):
        with open(os.path.join(self.folder, "kinto.ini"), "w", encoding="utf-8") as f:
            f.write(KINTO_INI.format(dsn=self.pg.dsn))
        servers.shell("kinto migrate --ini kinto.ini -q", self.folder, self.env)
        servers.shell(f"kinto create-user --ini kinto.ini -q -u admin -p {json.dumps(seed.ADMIN[1])}", self.folder, self.env)
        port = servers.free_port()
        self.old = f"http://127.0.0.1:{port}/v1"
        args = [os.path.join(self.o.venv, "bin", "kinto"), "start", "-q", "--ini", "kinto.ini", "--port", str(port)]
        self.running.append(servers.Process("kinto", self.folder, args, lambda: servers.answers(self.old)))

    def start_quinto(self, ini="quinto.ini", data="data", port=None):
        args = [self.quinto, "start", "--ini", ini, "--data", data, "--port", str(port or self.port)]
        url = f"http://127.0.0.1:{port or self.port}/v1"
        p = servers.Process("quinto", self.folder, args, lambda: servers.answers(url))
        self.running.append(p)
        return p

    def all(self):
        self.pg = servers.Postgres(self.o.postgres, self.folder)
        self.running.append(self.pg)
        self.start_kinto()
        seed.fill(self.old, self.o.records, lambda text: self.pg.sql("kinto", text))
        print(f"       filled Kinto: {self.o.records} records in one collection, and the odd ones", flush=True)
        tokens = self.synchronise()
        self.move()
        self.same("over PostgreSQL")
        self.clients_go_on(tokens)
        self.again()
        self.other_ways()
        self.refusals()

    def synchronise(self):
        """A client with Kinto: for each collection, what it has and the ETag."""
        client = kinto_http.Client(server_url=self.old, auth=seed.ADMIN)
        # Somebody has read each list: Kinto gives an empty one its timestamp only then.
        for _ in compare.walk(compare.session(seed.ADMIN), self.old):
            pass
        tokens = {}
        for bucket, collection in (("blog", "articles"), ("blog", "odd"), ("blog", "empty"), ("big", "bulk")):
            client.get_records(bucket=bucket, collection=collection, _limit=10, pages=1)
            tokens[bucket, collection] = client.get_records_timestamp(bucket=bucket, collection=collection)
        return tokens

    def move(self):
        code, out = self.step("refused", check=False)
        self.proofs.check(code == 2 and "quinto import --from" in out and out.count("\n") == 1, "quinto with Kinto's PostgreSQL settings is refused in one line that says what to do")
        self.step("settings")
        start = self.start_quinto()
        code, out = self.step("dry run")
        self.proofs.check(code == 0 and "would import" in out, "a dry run reads and checks everything")
        r = requests.get(self.url + "/buckets", auth=seed.ADMIN)
        self.proofs.check(r.status_code == 401, "and writes nothing: the accounts are not there yet")
        if self.o.records >= 50_000:
            self.interrupted()
        begun = time.monotonic()
        code, out = self.step("import")
        took = time.monotonic() - begun
        self.proofs.check(code == 0 and " 0 differ" in out, "the import ends well, and its own comparison finds no difference")
        self.proofs.check(any(line.split()[:1] == ["history"] for line in out.splitlines()), "the history comes along")
        rest = ", of what was left after it was killed" if self.o.records >= 50_000 else ""
        self.proofs.figure(f"import from PostgreSQL, with its comparison{rest}", f"{took:.1f} s, {out.split(' written')[0].split()[-1]} items written")
        print(out)

    def interrupted(self):
        """The command is killed on its way and given again."""
        mark = os.path.join(self.folder, "data", "import.checkpoint")
        p = subprocess.Popen(["quinto", "import", "--ini", "quinto.ini", "--data", "data", "--from", self.pg.dsn], cwd=self.folder,
                             env=dict(os.environ, **self.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 300
        while p.poll() is None and time.monotonic() < end:
            if os.path.exists(mark) and os.path.getsize(mark) > 10_000:
                break
            time.sleep(0.01)
        p.send_signal(signal.SIGKILL)
        p.wait()
        self.proofs.check(os.path.exists(mark), "an import that was killed left its checkpoint")

    def same(self, how):
        most = 150 if self.o.records < 50_000 else 5000
        differences, lists, items, objects = compare.compare(self.old, self.url, seed.ADMIN, most)
        for d in differences[:20]:
            print("      ", d)
        self.proofs.check(not differences, f"{how}: {lists} lists with {items} objects and tombstones, {objects} objects with their permissions: no difference between the two servers")
        for who in (seed.ALICE, seed.BOB):
            user = requests.get(self.url + "/", auth=who).json().get("user", {}).get("id")
            self.proofs.check(user == "account:" + who[0], f"{who[0]} is known by the same password")
        one, two = (requests.get(u + "/", auth=seed.ALICE).json()["user"]["principals"] for u in (self.old, self.url))
        self.proofs.check(sorted(one) == sorted(two), "and has the same principals, by groups too")

    def clients_go_on(self, tokens):
        client = kinto_http.Client(server_url=self.url, auth=seed.ADMIN)
        for (bucket, collection), token in tokens.items():
            where = {"bucket": bucket, "collection": collection}
            nothing = client.get_records(_since=token, **where)
            client.create_record(id="new", data={"after": "the move"}, **where)
            news = [r["id"] for r in client.get_records(_since=token, **where)]
            self.proofs.check(nothing == [] and news == ["new"], f"a client of {bucket}/{collection} goes on from its last _since: nothing is sent twice, what is new is")
            client.delete_record(id="new", **where)

    def again(self):
        code, out = self.step("import", check=False)
        written = int(out.split(" written")[0].split()[-1])
        self.proofs.check(written == 0, "the same import again writes nothing")
        self.proofs.check(code == 1 and "differs: " in out, "and says which lists went on here meanwhile")

    def other_ways(self):
        """Export and import of a file, by stopped nodes; import over HTTP."""
        _, first = self.step("export")
        servers.shell("quinto import --ini quinto.ini --data copy --from export.ndjson", self.folder, self.env)
        servers.shell("quinto export --ini quinto.ini --data copy --to copy.ndjson", self.folder, self.env)
        one, two = (open(os.path.join(self.folder, n), encoding="utf-8").read().split("\n", 1)[1] for n in ("export.ndjson", "copy.ndjson"))
        self.proofs.check(one == two, "a stopped node takes the file of an export, and exports the same")
        limited = "--bucket blog --bucket empty "  # Kinto answers some hundred requests a second, and each object takes one
        begun = time.monotonic()
        code, out = servers.shell(f"quinto import --ini quinto.ini --data http {limited}--from {self.old} --auth {json.dumps(':'.join(seed.ADMIN))}", self.folder, self.env, check=False)
        self.proofs.check(code == 0 and " 0 differ" in out, "an import over HTTP ends well")
        self.proofs.check("left out: the history" in out, "and says that the history is left out there")
        self.proofs.figure("import over HTTP of the small buckets", f"{time.monotonic() - begun:.1f} s")
        servers.shell(f"quinto import --ini quinto.ini --data sql {limited}--from {self.pg.dsn}", self.folder, self.env)
        for name in ("http", "sql"):
            servers.shell(f"quinto export --ini quinto.ini --data {name} --to {name}.ndjson", self.folder, self.env)
        one, two = ([line for line in open(os.path.join(self.folder, n + ".ndjson"), encoding="utf-8").readlines()[1:-1] if "/history" not in line.split(",")[0]]
                    for n in ("http", "sql"))
        self.proofs.check(one == two, "and gives the same as one from PostgreSQL")

    def refusals(self):
        names = seed.spoil(lambda text: self.pg.sql("kinto", text))
        code, out = servers.shell(f"quinto import --ini quinto.ini --data copy --bucket blog --from {self.pg.dsn}", self.folder, self.env, check=False)
        refused = [line for line in out.splitlines() if line.startswith("refused ")]
        self.proofs.check(code == 1 and len(refused) == len(names) and all(any(n + ":" in line for line in refused) for n in names),
                          f"{len(names)} records that cannot come over are named with the reason, exit code 1")
        for line in refused:
            print("      ", line[:160])


def write_page(options, proofs):
    with open(options.out, "w", encoding="utf-8") as f:
        f.write("# Import\n\n`make import` writes this page: real Kinto 26.5.0 on PostgreSQL, filled, imported into one quinto node and compared with it over HTTP "
                "(`scripts/import`).\n\n")
        f.write(f"- {options.records} records in the large collection, a tenth of them tombstones, each of the others with a permission of its own; beside it accounts, groups and odd data\n")
        f.write(f"- {os.cpu_count()} cores, {platform.system()} {platform.machine()}; both servers and the database on one machine\n")
        for what, value in proofs.figures:
            f.write(f"- {what}: {value}\n")
        f.write(f"- {proofs.passed} proofs passed, {proofs.failed} failed\n")


if __name__ == "__main__":
    main()
