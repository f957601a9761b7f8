"""Two servers are read over HTTP, whole, and must say the same."""

import concurrent.futures
import random

import requests

PAGE = 1000
READERS = 4


def session(auth):
    s = requests.Session()
    s.auth = auth
    s.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=READERS))
    return s


def whole_list(s, url, path):
    """Every object and tombstone of a list, oldest first, and its ETag."""
    items, query, etag = [], f"?_since=0&_sort=last_modified,id&_limit={PAGE}", None
    while query:
        r = s.get(url + path + query)
        assert r.status_code == 200, (url, path, r.status_code, r.text[:200])
        etag = etag or r.headers["ETag"]
        items += r.json()["data"]
        query = "?" + r.headers["Next-Page"].split("?", 1)[1] if "Next-Page" in r.headers else None
    return items, etag


def walk(s, url):
    """Each list of a server: its path, what is in it, its ETag."""
    todo = ["/accounts", "/buckets"]
    while todo:
        path = todo.pop(0)
        items, etag = whole_list(s, url, path)
        yield path, items, etag
        for i in items:
            if i.get("deleted"):
                continue
            if path == "/buckets":
                todo += [f"{path}/{i['id']}/{kind}" for kind in ("groups", "collections", "history")]
            elif path.endswith("/collections"):
                todo.append(f"{path}/{i['id']}/records")


def compare(old, new, auth, most):
    """The differences, how many lists and objects were read. Of a list with more than `most` objects, that many are read for their permissions."""
    a, b, differences, objects = session(auth), session(auth), [], []
    lists = count = 0
    for path, one, etag1 in walk(a, old):
        two, etag2 = whole_list(b, new, path)
        lists, count = lists + 1, count + len(one)
        if path == "/accounts":  # Kinto has a timestamp for each account, quinto one for all
            etag2 = etag1
        if etag1 != etag2:
            differences.append(f"{path}: ETag {etag1} and {etag2}")
        if one != two:
            here = {i["id"]: i for i in two}
            differences += [f"{path}/{i['id']}: {str(i)[:200]} and {str(here.get(i['id']))[:200]}" for i in one if here.get(i["id"]) != i][:5]
            differences.append(f"{path}: {len(one)} and {len(two)} objects, or another order")
        if path.endswith("/history"):
            continue  # entries have no address
        live = [i["id"] for i in one if not i.get("deleted")]
        objects += [f"{path}/{i}" for i in (live if len(live) <= most else random.sample(live, most))]

    def both(path):
        one, two = a.get(old + path), b.get(new + path)
        sides = []
        for r in (one, two):
            body = r.json()
            for principals in (body.get("permissions") or {}).values():
                principals.sort()
            sides.append((r.status_code, body, r.headers.get("ETag")))
        return None if sides[0] == sides[1] else f"{path}: {str(sides[0])[:300]} and {str(sides[1])[:300]}"

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        differences += [d for d in pool.map(both, objects) if d]
    return differences, lists, count, len(objects)
