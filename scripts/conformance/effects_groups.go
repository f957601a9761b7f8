package main

import (
	"fmt"
	"slices"
	"strings"
)

// ofSeveralLists are requests that change more than one collection, bucket or account.
func ofSeveralLists() []effectStep {
	const fx, hook = "/buckets/fx", `{"data":{"kinto-emailer":{"hooks":[{"resource_name":"collection","subject":"of %s","template":"{collection_id} {action}","recipients":["carol@example.com"]}]}}}`
	put := func(path, body string) string { return fmt.Sprintf(`{"method":"PUT","path":%q,"body":%s}`, path, body) }
	batch := func(parts ...string) effectStep {
		return effectStep{"POST", "/batch", `{"requests":[` + strings.Join(parts, ",") + `]}`}
	}
	const empty = `{"data":{}}`
	return []effectStep{
		batch(put(fx+"/collections/x1", empty), put(fx+"/collections/x2", empty), put(fx+"/collections/x3", empty)),
		batch(put(fx+"/collections/x1/records/r", empty), put(fx+"/collections/x2", `{"data":{"a":1}}`), put(fx+"/collections/x2/records/r", empty),
			put(fx+"/collections/x1", `{"data":{"a":1}}`), put(fx+"/collections/x4", empty), put(fx+"/collections/x1/records/s", empty)),
		batch(put(fx+"/collections/h1", fmt.Sprintf(hook, "h1")), put(fx+"/collections/h2", fmt.Sprintf(hook, "h2"))),
		batch(put("/buckets/fy", empty), put("/buckets/fz", empty), put("/buckets/fy/groups/g1", `{"data":{"members":[]}}`), put("/buckets/fz/groups/g1", `{"data":{"members":[]}}`),
			put("/buckets/fy/groups/g2", `{"data":{"members":[]}}`), put("/buckets/fy/collections/c", empty), put("/buckets/fz/collections/c", empty)),
		batch(put("/buckets/fy", `{"data":{"a":1}}`), put("/buckets/fz", `{"data":{"a":1}}`)),
		batch(put("/accounts/ann", `{"data":{"password":"123456"}}`), put("/accounts/ben", `{"data":{"password":"123456"}}`)),
		batch(put("/accounts/ann", `{"data":{"password":"1234567"}}`), put("/accounts/ben", `{"data":{"password":"1234567"}}`)),
		{"GET", "/buckets/default", ""},
		batch(put("/buckets/default/collections/d1/records/r", empty), put("/buckets/default/collections/d2/records/r", empty), put("/buckets/default/collections/d2/records/s", empty)),
		batch(put("/buckets/fy/collections/d", empty), put("/buckets/fy/collections/e", empty)),
		{"DELETE", "/buckets/fy/collections", ""},
		{"DELETE", "/accounts", ""},
		{"DELETE", "/buckets", ""},
	}
}

// inOrder sorts what came after one request by what it is about. Times are left out: which of several lists have the same
// is chance.
func inOrder(all []map[string]string) {
	for _, fields := range all {
		delete(fields, "timestamp")
	}
	slices.SortStableFunc(all, func(a, b map[string]string) int {
		for _, name := range []string{"resource_name", "action", "bucket_id", "collection_id", "group_id", "account_id", "body"} {
			if c := strings.Compare(a[name], b[name]); c != 0 {
				return c
			}
		}
		return 0
	})
}
