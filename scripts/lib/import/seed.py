"""Fills a Kinto with what an import must bring over, the odd things first."""

import json

import requests

ADMIN = ("admin", "admin's secret")
ALICE = ("alice", "wonderland")
BOB = ("bob", "builder")

ODD = [
    {"one": 1.0, "tiny": 5e-324, "large": 1e22, "e16": 1e16, "e-7": 1e-7, "neg": -0.5},
    {"big": 9007199254740993, "min": -9223372036854775808, "max": 9223372036854775807},
    {"text": "ünïcödé 🐘 \u2028 \"quotes\" \\ / \b\f\n\r\t", "": "empty name", "__proto__": {"a": 1}},
    {"none": None, "empty": {}, "list": [], "deep": [[[[{"a": [None, True, False]}]]]]},
    {"zz": 1, "a": 2, "mm": 3, "long name that sorts last": 4},
    {},
    {"schema": 12345, "deleted": False, "sort": "x"},
]


def fill(url, records, sql):
    """Over HTTP what people make, by SQL the bulk of the records."""
    s = requests.Session()
    s.auth = ADMIN

    def put(path, data=None, permissions=None, auth=None):
        body = {k: v for k, v in (("data", data), ("permissions", permissions)) if v is not None}
        r = s.put(url + path, json=body, auth=auth or ADMIN)
        assert r.status_code in (200, 201), (path, r.status_code, r.text)
        return r.json()["data"]

    for name, password in (ALICE, BOB):
        put("/accounts/" + name, {"password": password, "mail": name + "@example.com"}, auth=(name, password))
    for bucket in ("blog", "empty", "gone", "big"):
        put("/buckets/" + bucket, {"title": bucket}, {"read": ["account:bob"]})
    s.delete(url + "/buckets/gone")
    put("/buckets/blog", {"nested": {"b": [1, 2.5]}}, {"write": ["/buckets/blog/groups/editors"], "collection:create": ["system.Authenticated"]})
    put("/buckets/blog/groups/editors", {"members": ["account:alice"], "motto": "we write"}, {"read": ["system.Authenticated"]})
    put("/buckets/blog/groups/nobody", {"members": []})
    put("/buckets/blog/groups/left", {"members": ["account:bob"]})
    s.delete(url + "/buckets/blog/groups/left")
    for collection in ("articles", "odd", "empty", "gone"):
        put("/buckets/blog/collections/" + collection, {"displayFields": ["title"]}, {"record:create": ["account:bob"]})
    s.delete(url + "/buckets/blog/collections/gone")
    for n in range(40):
        put(f"/buckets/blog/collections/articles/records/a{n}", {"n": n, "title": f"no. {n}"},
            {"read": ["system.Everyone"], "write": [f"account:user{n}", "account:bob"]} if n % 3 else None)
    for n in range(0, 40, 4):
        s.delete(f"{url}/buckets/blog/collections/articles/records/a{n}")
    put("/buckets/blog/collections/articles/records/a4", {"n": 4, "again": True})
    for n, data in enumerate(ODD):
        put(f"/buckets/blog/collections/odd/records/odd_{n}-", data)
    put("/buckets/blog/collections/odd/records/past", {"last_modified": 1234567890123, "from": "the past"})
    put("/buckets/blog/collections/odd/records/" + "i" * 500, {"long": "id"})
    put("/buckets/big/collections/bulk", {}, {"read": ["account:alice"]})
    sql(f"""
        INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
        SELECT 'bulk-' || n, '/buckets/big/collections/bulk', 'record', from_epoch(1700000000000 + n),
               CASE WHEN n % 10 = 0 THEN '{{"deleted": true}}'::jsonb ELSE
               jsonb_build_object('n', n, 'price', n / 8.0, 'name', 'item ' || md5(n::text), 'tags', jsonb_build_array(md5(n::text), n % 7)) END,
               n % 10 = 0
        FROM generate_series(1, {records}) AS n;
        INSERT INTO access_control_entries (object_id, permission, principal)
        SELECT '/buckets/big/collections/bulk/records/bulk-' || n, 'write', 'account:alice' FROM generate_series(1, {records}) AS n WHERE n % 10 <> 0;
    """)


def spoil(sql):
    """Puts in what cannot come over; the ids that the report must name."""
    large = json.dumps({"x": "x" * (1100 << 10)})
    sql(f"""
        INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted) VALUES
        ('too-large', '/buckets/blog/collections/articles', 'record', from_epoch(1900000000001), '{large}', false),
        ('orphan', '/buckets/blog/collections/vanished', 'record', from_epoch(1900000000002), '{{}}', false),
        ('bad id!', '/buckets/blog/collections/articles', 'record', from_epoch(1900000000003), '{{}}', false),
        ('huge-number', '/buckets/blog/collections/articles', 'record', from_epoch(1900000000004), '{{"n": 1e400}}', false);
    """)
    return ["too-large", "orphan", "bad id!", "huge-number"]
