"""Writes kinto.txt: what Kinto with PostgreSQL answers to many list requests over the records of one collection.

python3 gen.py postgresql://user@host:port/database > kinto.txt, with a Python that has kinto[postgresql]; the database is
flushed. First come the objects as JSON lines, newest last; then one line per request: the query string, TAB, and JSON with
either "error" and "details" (name, and description unless it is the error) or "pages" (ids, or objects if projected, following
Next-Page), "count" (of HEAD), and of the first Next-Page "last" (last_object of its token) and "next" (its query string).
Requests on which Kinto answers 5xx are left out.
"""
import json
import base64
import random
import sys
import urllib.parse

import kinto
from pyramid.request import Request

settings = {
    "kinto.storage_backend": "kinto.core.storage.postgresql", "kinto.storage_url": sys.argv[1],
    "kinto.permission_backend": "kinto.core.permission.memory", "kinto.cache_backend": "kinto.core.cache.memory",
    "multiauth.policies": "basicauth", "kinto.userid_hmac_secret": "x", "kinto.bucket_create_principals": "system.Authenticated",
    "kinto.paginate_by": "7", "kinto.storage_max_fetch_size": "50",
}
app = kinto.main({}, **settings)
app.registry.storage.initialize_schema()
app.registry.storage.flush()
AUTH = "Basic " + base64.b64encode(b"u:p").decode()
RECORDS = "/v1/buckets/b/collections/c/records"


def call(method, path, body=None):
    request = Request.blank(urllib.parse.quote(path, safe="".join(map(chr, range(33, 127)))), method=method, headers={"Authorization": AUTH, "Content-Type": "application/json"})
    if body is not None:
        request.body = json.dumps(body).encode()
    return request.get_response(app)


r = call("PUT", "/v1/buckets/b")
assert r.status_int == 201, r.text
assert call("PUT", "/v1/buckets/b/collections/c").status_int == 201
call("HEAD", RECORDS)

VALUES = [None, "", "1", "A", "a", "b", "é", "10", 0, 1, 2.5, 10, -3, 1.0, True, False, [1], [1, 2], ["a", "b"], [{"k": 1, "l": 2}], {"x": 1}, {"x": 2}, {"x": "a"}, "true", "a*b", "x\ny"]
rng = random.Random(5)
for i, v in enumerate(VALUES + ["missing"] * 3):
    obj = {"id": "r%02d" % i, "last_modified": 1000 + 10 * i, "g": rng.choice(["p", "q", "R"]), "n": rng.choice([1, 2, 2.5, "2", None]), "deep": {"x": {"y": rng.randint(0, 3)}, "t": rng.choice(["u", 5])}, "tags": rng.sample(["a", "b", "c", 1, None, {"k": 1}], rng.randint(1, 4)), "min_age": i % 3}
    if v != "missing":
        obj["v"] = v
    if i % 4 == 0:
        del obj["n"], obj["deep"]
    assert call("POST", RECORDS, {"data": obj}).status_int == 201, obj
    print(json.dumps(obj))
for i in range(5):
    rid = "t%02d" % i
    assert call("PUT", RECORDS + "/" + rid, {"data": {"last_modified": 500 + i, "v": i}}).status_int == 201
    r = call("DELETE", RECORDS + "/" + rid + "?last_modified=%d" % (1005 + 60 * i))
    assert r.json["data"]["last_modified"] == 1005 + 60 * i, r.json
    print(json.dumps({"id": rid, "last_modified": 1005 + 60 * i, "deleted": True}))


def token_of(url):
    return json.loads(base64.b64decode(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))["_token"]))


seen = set()


def ask(qs):
    if qs in seen or len(qs) > 8000:
        return
    seen.add(qs)
    out = {}
    try:
        head = call("HEAD", RECORDS + "?" + qs)
        r = call("GET", RECORDS + "?" + qs)
        if r.status_int == 400:
            out["error"] = r.json["message"]
            out["details"] = [[d["name"], d["description"]] for d in r.json.get("details", [])]
            if len(out["details"]) == 1 and out["details"][0][1] == out["error"]:
                out["details"][0][1] = ""
        elif r.status_int != 200:
            return
        else:
            out["count"] = int(head.headers["Total-Objects"])
            out["pages"], out["last"] = [], []
            projected = "_fields" in qs
            while True:
                out["pages"].append(r.json["data"] if projected else " ".join(o["id"] for o in r.json["data"]))
                url = r.headers.get("Next-Page")
                if not url:
                    break
                if not out["last"]:
                    out["last"] = [token_of(url)["last_object"]]
                    q = urllib.parse.urlsplit(url).query
                    out["next"] = "&".join(p if not p.startswith("_token=") else "_token=T" for p in q.split("&"))
                r = call("GET", url.replace("http://localhost", ""))
                if r.status_int != 200:
                    return  # Kinto refuses its own tokens with lists and objects
        if "Alert" in r.headers:
            out["alert"] = True
    except Exception:
        return
    print(qs + "\t" + json.dumps(out, separators=(",", ":")))


def tok(t):
    return "_token=" + urllib.parse.quote(base64.b64encode((t if isinstance(t, str) else json.dumps(t)).encode()))


NUMBERS = ["", "0", "1", "5", "-1", "-1.5", "1.5", "1e1", "abc", "true", "null", "[]", "[1]", "{}", '""', '"3"', '"-3"', '" 4 "', "1_0", "+2", "%2B2", "0x1", "9223372036854775807", "9223372036854775808", "9223372036854775809", "1e30", "1e400", "NaN", "1.0", "[%22a%22]", "%221%22%22", "false", "0.0", "é", "--1"]
for n in NUMBERS:
    ask("_limit=" + n)
    for name in ("_since", "_before", "last_modified", "gt_last_modified", "not_last_modified", "in_last_modified", "contains_last_modified"):
        if n != "null":
            ask(name + "=" + n)
for ts in ("1100", '"1100"', "1100.5", "1105", "1245", "99999", "33333333333333"):
    for name in ("_since", "_before", "_to", "last_modified", "eq_last_modified", "gt_last_modified", "lt_last_modified", "min_last_modified", "max_last_modified", "not_last_modified"):
        ask(name + "=" + ts)
        ask(name + "=" + ts + "&_sort=last_modified&_limit=3")
        ask(name + "=" + ts + "&deleted=true")
        ask(name + "=" + ts + "&not_deleted=true&_limit=4")
ask("_since=1100&_before=1200")
ask("_since=1100&_before=1200&gt_last_modified=1150&_sort=-v")
TEXTS = ["", "a", "A", "1", '"1"', "1.0", "10", "2.5", "true", "True", "false", "null", "[1]", "[1,2]", "[2,1]", '["a","b"]', '{"x":1}', '{"x":1.0}', '{"x":"a"}', "[]", "{}", "é", "%C3%A9", '"\\u00e9"', "a*b", "x%0Ay", "0", "-0", "a,b", "1,10", "1,,10", '"1","a"', "p", "r", "R", "nope", '{"k":1}', '[{"k":1}]', "NaN", "1e400", "+", "%zz", "%", "\\", '"\\u0000"', "%00", '["%00"]', '{"%00":1}', '"\\\\u0000"']
OPS = ["", "eq_", "not_", "lt_", "max_", "min_", "gt_", "in_", "exclude_", "has_", "contains_", "contains_any_"]
for text in TEXTS:
    for op in OPS:
        for field in ("v", "n", "tags", "deep.t"):
            if field == "v" or rng.random() < 0.2:
                if text != "[]" or op not in ("lt_", "max_", "min_", "gt_"):  # jsonb sorts [] before null
                    ask(op + field + "=" + text)
    if text not in ("[]", "{}"):
        for field in ("v", "g", "id", "tags", "deep"):
            ask("like_" + field + "=" + text)
for text in ("a*", "*A", "*b*", "a*b", "**", "*", "r0*", "*1*0", '"1"', '"[1"', "É", '": 1"', "*null*", "x*y", '"1, 2"'):
    for field in ("v", "id", "tags", "g"):
        ask("like_" + field + "=" + text)
for op in OPS + ["like_"]:
    for text in ("r01", '"r01"', "5", "0", "", "null", "true", "[]", "[1]", "1.5", "{}", "r01,r02", '"r01",2', "r01,5", "t01"):
        ask(op + "id=" + text)
for qs in """deep.x.y=1 deep.x.y=1&deep.t=u deep.x=1 gt_deep.x.y=1 not_deep.x.y=2 has_deep has_deep=1 has_deep.x.y=0 deep.x={"y":2} deep.t.u=1 v.x=1 v.0=1 id.x=1 not_id.x=1 last_modified.x=1
min_age=1 eq_min_age=1 min_min_age=1 gt_age=1 in_=1 in_v contains_=1 foo-bar=1 gt_foo-bar=1 in_foo-bar=1 =5 & &&v=1& v v&v v=1&v=2 in_v=1&in_v=a contains_tags=a&contains_tags=b contains_any_tags=a&contains_any_tags=b like_v=a&like_v=b has_v=a&has_v=b
_limit=1&_limit=2 _since=1&_since=2 id=a&id=b _token=a&_token=b _sort=v&_sort=-n _sort=v,n&_sort=g _limit=x&_since=y&last_modified=z _limit=x&like_v=1 id=5&_limit=x _foo=1 _v=1 %20v=1 v%20=1 +v+=1 +_since=1100 +_since=x gt_%20v=1
deleted=true deleted=false not_deleted=true has_deleted=true _since=0&has_deleted=false _since=0&deleted=1 V=1 v.=1 .v=1 like_=1 é=1 gt_é=1 _token= _token=123 _token=true _token="" _token=null _token=abc _token=%5B%5D _token=%FF v=%FF %FF=1 _token=[1] _token={"a":1}
_limit=3&v=1 _limit=3&_sort=v&g=p g=p&n=2 g=p&not_n=2 n=2.0 in_n=2,null in_n=2.5,"2" exclude_n=2,"2" exclude_n= in_n= in_id= exclude_id=r01,r02 exclude_id=1 not_id=r01 min_id=r20 lt_id=r03 gt_id=5""".split():
    ask(qs)
for n in (0, 1, 2, 3, 7, 8, 100):
    for s in ("", "v", "-v", "g", "g,-n", "-g,v", "id", "-id", "+v", "%2Bg,last_modified", "-last_modified", "last_modified", "-g,last_modified", "deep.x.y", "-deep.t,tags", "deep.x", "tags", "nope", "-nope", "!v", "v,!x,-g", "v-", "--v", "+-v", " g , -n ", ",,g,", "g.x", "min_age,-deep.x.y,n", "id,v", "n,n,-n"):
        ask("_limit=%d&_sort=%s" % (n, s))
        if n == 3:
            ask("_limit=3&_sort=%s&_since=1100" % s)
            ask("has_n=true&_sort=%s&_limit=4" % s)
for f in ("v", "deep.x", "deep.x.y", "deep.x.y,deep.t", "deep,deep.x", "deep.x,deep", "deep.no", "deep.t.u", "v.x", "id", "last_modified", "nope", "", ",", "v,,g", "tags.0", " v", "deep.", ".v", "g&_fields=n", "deleted", "v&_since=1100", "deleted&_since=1100", "v.x,v.y", "deep.x,deep.x.y,deep.x.z"):
    ask("_limit=50&_fields=" + f)
good = {"last_object": {"last_modified": 1100}, "offset": 3, "nonce": "n"}
for change in ({}, {"offset": -1}, {"offset": True}, {"offset": 1.5}, {"offset": "1"}, {"offset": None}, {"last_object": []}, {"last_object": {}}, {"last_object": {"last_modified": "1100"}}, {"last_object": {"last_modified": "x"}}, {"last_object": {"last_modified": True}}, {"last_object": {"last_modified": None}}, {"last_object": {"last_modified": 1100, "v": 1}}):
    ask(tok({**good, **change}))
    ask(tok({**good, **change}) + "&_sort=v")
    ask(tok({**good, **change}) + "&_sort=-v&_limit=2")
for key in good:
    ask(tok({k: v for k, v in good.items() if k != key}))
for raw in ("[]", "1", "x", "{", '"a"', "null"):
    ask(tok(raw))
