"""Leads most of the requests to objects that exist, so that they get past the 404."""

import schemathesis

EXISTING = {"bucket_id": "b", "collection_id": "c"}
OBJECTS = {"/buckets/{id}": "b", "/buckets/{bucket_id}/groups/{id}": "g", "/buckets/{bucket_id}/collections/{id}": "c",
           "/buckets/{bucket_id}/collections/{collection_id}/records/{id}": "r"}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Names an object that exists unless the generated name is a rare one."""
    if not path_parameters:
        return path_parameters
    named = dict(path_parameters)
    # What was generated decides, so that a seed gives the same requests again.
    if sum(len(str(value)) for value in named.values()) % 4 == 3:
        return named
    for name, value in EXISTING.items():
        if name in named:
            named[name] = value
    path = context.operation.path
    # The bucket itself must stay: a DELETE of it would leave nothing to test.
    if "id" in named and path in OBJECTS and not (context.operation.method.upper() == "DELETE" and path != list(OBJECTS)[-1]):
        named["id"] = OBJECTS[path]
    return named


@schemathesis.hook
def map_query(context, query):
    """Has nobody wait long for a change: a long poll is slow on purpose, not a hang."""
    wait = (query or {}).get("_wait")
    try:
        long = float(wait) > 1
    except (TypeError, ValueError):  # absent, or no number: as generated
        return query
    return {**query, "_wait": "1"} if long else query
