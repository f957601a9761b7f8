"""kinto-http.py through its whole public interface, blocking and asynchronous: one scenario, two clients."""

import asyncio
import inspect

from kinto_http import AsyncClient, BucketNotFound, Client, KintoException
from kinto_http.patch_type import JSONPatch, MergePatch

# These are of servers with kinto-attachment and of Remote Settings, not of Kinto itself.
# clone and batch are used without being called on the wrapped client alone.
FOREIGN = {
    "add_attachment", "download_attachment", "remove_attachment",
    "get_changeset", "request_review", "approve_changes", "decline_changes", "rollback_changes",
}


class Awaitable:
    """A client whose every method is awaited, and which notes what was called."""

    def __init__(self, client):
        self.client = client
        self.called = set()

    def __getattr__(self, name):
        method = getattr(self.client, name)

        async def call(*args, **kwargs):
            self.called.add(name)
            result = method(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call

    def missing(self):
        public = {name for name, _ in inspect.getmembers(type(self.client), inspect.isfunction) if not name.startswith("_")}
        return sorted(public - FOREIGN - self.called)


def must(condition, what):
    if not condition:
        raise AssertionError(what)


async def refused(status, awaitable):
    try:
        await awaitable
    except KintoException as error:
        must(error.response.status_code == status, f"{error.response.status_code} instead of {status}: {error}")
        return error
    raise AssertionError(f"no {status}")


async def scenario(c, user, bucket):
    """Every method, with what it must give. user is the id of whoever c acts for."""
    info = await c.server_info()
    must(info["user"]["id"] == user and "history" in info["capabilities"], info)
    must(await c.get_endpoint("record", id="r", bucket="b", collection="c") == "/buckets/b/collections/c/records/r", "endpoint")

    await buckets(c, user, bucket)
    await groups(c, user, bucket)
    await collections(c, bucket)
    await records(c, bucket)
    await history(c, bucket)

    entries = await c.get_permissions(exclude_resource_names=["record"])
    must(any(e["uri"] == f"/buckets/{bucket}" and "write" in e["permissions"] for e in entries), entries)
    must(not any(e["resource_name"] == "record" for e in entries), "records were excluded")

    other = await c.clone(bucket=bucket, collection="copy")
    must(other.bucket_name == bucket, "clone")
    await c.delete_bucket(id=bucket)
    await c.delete_bucket(id=bucket, if_exists=True)
    try:
        await c.get_bucket(id=bucket)
        raise AssertionError("a deleted bucket is there")
    except BucketNotFound:
        pass


async def buckets(c, user, bucket):
    made = await c.create_bucket(id=bucket, data={"a": 1}, permissions={"read": ["system.Everyone"]})
    must(made["permissions"] == {"read": ["system.Everyone"], "write": [user]}, made)
    await refused(412, c.create_bucket(id=bucket))
    must((await c.create_bucket(id=bucket, if_not_exists=True))["data"]["a"] == 1, "if_not_exists")
    changed = await c.patch_bucket(id=bucket, data={"b": 2})
    must(changed["data"]["a"] == 1 and changed["data"]["b"] == 2, changed)
    old = changed["data"]
    changed = await c.update_bucket(id=bucket, data={"c": 3})
    must("a" not in changed["data"], changed)
    await refused(412, c.update_bucket(data={**old, "d": 4}))
    must((await c.get_bucket(id=bucket))["data"] == changed["data"], "get_bucket")
    must(bucket in [b["id"] for b in await c.get_buckets()], "get_buckets")
    await c.create_bucket(id=bucket + "-2")
    gone = await c.delete_buckets()
    must({b["id"] for b in gone} >= {bucket, bucket + "-2"} and all(b["deleted"] for b in gone), gone)
    await c.create_bucket(id=bucket)


async def groups(c, user, bucket):
    made = await c.create_group(id="team", bucket=bucket, data={"members": ["account:x"]})
    must(made["data"]["members"] == ["account:x"], made)
    await c.create_group(id="team", bucket=bucket, data={"members": []}, if_not_exists=True)
    changed = await c.patch_group(id="team", bucket=bucket, changes=MergePatch({"note": {"x": 1}}))
    must(changed["data"]["members"] == ["account:x"] and changed["data"]["note"] == {"x": 1}, changed)
    changed = await c.update_group(id="team", bucket=bucket, data={"members": [user]})
    fresh = await c.clone(bucket=bucket)  # a client asks who it is only once
    now = fresh.server_info()
    now = await now if inspect.isawaitable(now) else now
    must(f"/buckets/{bucket}/groups/team" in now["user"]["principals"], now["user"])
    must((await c.get_group(id="team", bucket=bucket))["data"] == changed["data"], "get_group")
    must([g["id"] for g in await c.get_groups(bucket=bucket)] == ["team"], "get_groups")
    await c.delete_group(id="team", bucket=bucket)
    await c.delete_group(id="team", bucket=bucket, if_exists=True)
    await c.create_group(id="team", bucket=bucket, data={"members": []})
    must([g["id"] for g in await c.delete_groups(bucket=bucket)] == ["team"], "delete_groups")


async def collections(c, bucket):
    made = await c.create_collection(id="notes", bucket=bucket, data={"sort": "-title"})
    must(made["data"]["sort"] == "-title", made)
    await c.create_collection(id="notes", bucket=bucket, if_not_exists=True)
    changed = await c.patch_collection(id="notes", bucket=bucket, changes=JSONPatch([{"op": "add", "path": "/data/n", "value": 1}]))
    must(changed["data"]["n"] == 1, changed)
    changed = await c.update_collection(id="notes", bucket=bucket, data={"n": 2}, permissions={"read": ["system.Authenticated"]})
    must((await c.get_collection(id="notes", bucket=bucket))["data"] == changed["data"], "get_collection")
    await c.create_collection(id="other", bucket=bucket)
    must({x["id"] for x in await c.get_collections(bucket=bucket)} == {"notes", "other"}, "get_collections")
    await c.delete_collection(id="other", bucket=bucket)
    await c.delete_collection(id="other", bucket=bucket, if_exists=True)
    must([x["id"] for x in await c.delete_collections(bucket=bucket)] == ["notes"], "delete_collections")
    await c.create_collection(id="notes", bucket=bucket)


async def records(c, bucket):
    where = {"bucket": bucket, "collection": "notes"}
    made = (await c.create_record(id="one", data={"title": "é 𝄞", "n": 1}, **where))["data"]
    must((await c.create_record(id="one", data={}, if_not_exists=True, **where))["data"] == made, "if_not_exists")
    stamp = await c.get_records_timestamp(**where)
    must(stamp == str(made["last_modified"]), stamp)
    for n in range(2, 8):
        await c.create_record(data={"n": n}, **where)
    changed = (await c.patch_record(id="one", data={"n": 10}, **where))["data"]
    must(changed["title"] == made["title"] and changed["n"] == 10, changed)
    error = await refused(412, c.update_record(data={**made, "late": True}, if_match=made["last_modified"], **where))
    must(error.response.json()["details"]["existing"] == changed, "what stands there")
    changed = (await c.update_record(data={**changed, "n": 11}, **where))["data"]
    must((await c.get_record(id="one", **where))["data"] == changed, "get_record")
    all_of_them = await c.get_records(_limit=2, pages=99, **where)
    must(len(all_of_them) == 7 and all_of_them[0]["id"] == "one", "get_records follows pages")
    pages = [page["data"] for page in await c.get_paginated_records(_limit=3, **where)]
    must([len(page) for page in pages] == [3, 3, 1], [len(page) for page in pages])
    must(len(await c.get_records(_since=stamp, min_n=4, **where)) == 5, "filters")
    gone = await c.delete_record(id="one", **where)
    must(gone["deleted"] is True, gone)
    await c.delete_record(id="one", if_exists=True, **where)
    must({r["id"] for r in await c.get_records(_since=stamp, **where) if r.get("deleted")} == {"one"}, "tombstones")
    must(len(await c.delete_records(**where)) == 6, "delete_records")


async def history(c, bucket):
    entries = await c.get_history(bucket=bucket, resource_name="record")
    must(entries[0]["action"] == "delete" and entries[0]["target"]["data"]["deleted"], entries[:1])
    must(len(await c.purge_history(bucket=bucket)) > 0 and await c.get_history(bucket=bucket) == [], "purge_history")


def batches(client, bucket):
    """The blocking client's batches; the asynchronous one has them through the blocking one."""
    client.create_bucket(id=bucket)
    client.create_collection(id="many", bucket=bucket)
    with client.batch(bucket=bucket, collection="many") as batch:
        for n in range(60):  # more than one request may have: the client makes three
            batch.create_record(id=f"r{n}", data={"n": n})
        batch.patch_record(id="r0", changes=MergePatch({"merged": True}))
    results = batch.results()
    must(len(results) == 61 and results[60]["data"]["merged"] is True, results[-1])
    must(len(client.get_records(bucket=bucket, collection="many")) == 60, "batch")
    client.delete_bucket(id=bucket)


def run(url, auth):
    """Both clients; returns what was shown, one line each."""
    blocking = Awaitable(Client(server_url=url, auth=auth, bucket="none", retry=2))
    user = blocking.client.server_info()["user"]["id"]
    asyncio.run(scenario(blocking, user, "py-sync"))
    batches(blocking.client, "py-batch")
    asynchronous = Awaitable(AsyncClient(server_url=url, auth=auth, bucket="none", retry=2))
    asyncio.run(scenario(asynchronous, user, "py-async"))
    blocking.called.add("batch")
    asynchronous.called.add("batch")
    for client in (blocking, asynchronous):
        must(not client.missing(), f"{type(client.client).__name__}: never called: {client.missing()}")
    return [f"kinto-http.py: all {len(blocking.called)} methods of the blocking client",
            f"kinto-http.py: all {len(asynchronous.called)} methods of the asynchronous client"]
