package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// wounds are all there are.
func wounds() []*wound {
	return []*wound{
		{name: "writes of batches that were acknowledged and are not there", harm: lostWrites, luck: true},
		{name: "409 for creating other records at the same moment", harm: conflicts, luck: true},
		{name: "409 for two records with the same time in the past", harm: samePast},
		{name: "records that outlive their collection and come back with it", harm: orphans},
		{name: "readers who lose their right when another's JSON patch changes only data", harm: lostRights},
		{name: "500 for a merge patch of an object over a plain value", harm: mergeOverScalar},
		{name: "merge patches in a batch that store null instead of removing", harm: mergeInBatch},
		{name: "JSON patches that a batch refuses", harm: jsonPatchInBatch},
		{name: "500 for `__version__` without its file", harm: versionWithoutFile},
		{name: "503 for a NUL in a value", harm: nulInValue},
		{name: "writers with one ETag in If-Match who are told that they wrote although another did first", harm: lostUpdates, luck: true},
		{name: "500 for a patch whose answer is to be light or diff, with the history", harm: lightWithHistory, settings: historyAndSchemas},
		{name: "MiB of memory (beyond 64) that schemas keep after they were replaced", harm: pastSchemas, settings: historyAndSchemas},
		{name: "names of accounts that the time of a wrong login tells", harm: namesByTime, settings: accountsOn},
	}
}

// together runs f for each of n clients at the same time and gives the first error.
func together(n int, f func(client int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// part is one request of a batch.
func part(method, path, body string) string {
	if body != "" {
		body = `,"body":` + body
	}
	return fmt.Sprintf(`{"method":%q,"path":%q%s}`, method, path, body)
}

// lostWrites: clients put records of their own and one that all of them put, in batches of 10. Where two creations of one
// record meet, Kinto aborts the transaction in the middle of the batch and answers 200.
func lostWrites(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "lost")
	if err != nil {
		return 0, 0, err
	}
	var mu sync.Mutex
	var acknowledged []string
	for round := range s.size.rounds {
		err := together(s.size.clients, func(client int) error {
			var paths, parts []string
			for i := range 10 {
				id := fmt.Sprintf("r%d-%d-%d", round, client, i)
				if i == 5 {
					id = fmt.Sprintf("shared%d", round)
				}
				paths = append(paths, coll+"/records/"+id)
				parts = append(parts, part("PUT", paths[i], fmt.Sprintf(`{"data":{"n":%d}}`, i)))
			}
			a, err := s.do(ctx, "POST", "/batch", "application/json", `{"requests":[`+strings.Join(parts, ",")+`]}`)
			if err != nil || a.status != http.StatusOK {
				return err // refused as a whole: nothing is promised
			}
			responses, _ := a.body["responses"].([]any)
			mu.Lock()
			defer mu.Unlock()
			for i, r := range responses {
				entry, _ := r.(map[string]any)
				if status, _ := entry["status"].(float64); status == 200 || status == 201 {
					acknowledged = append(acknowledged, paths[i])
				}
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	there, err := s.ids(ctx, coll)
	for _, path := range acknowledged {
		if !there[path] {
			harmed++
		}
	}
	return harmed, len(acknowledged), err
}

// ids are the paths of the records of a collection, read by page.
func (s *sufferer) ids(ctx context.Context, coll string) (map[string]bool, error) {
	there := map[string]bool{}
	last := ""
	for {
		a, err := s.must(ctx, "GET", coll+"/records?_sort=id&_fields=id&_limit=100&gt_id=%22"+last+"%22", "", 200)
		if err != nil {
			return nil, err
		}
		data, _ := a.body["data"].([]any)
		if len(data) == 0 {
			return there, nil
		}
		for _, d := range data {
			record, _ := d.(map[string]any)
			last, _ = record["id"].(string)
			there[coll+"/records/"+last] = true
		}
	}
}

// conflicts: clients post records of their own, one after the other.
func conflicts(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "conflicts")
	if err != nil {
		return 0, 0, err
	}
	var mu sync.Mutex
	err = together(s.size.clients, func(client int) error {
		for i := range 4 * s.size.rounds {
			a, err := s.do(ctx, "POST", coll+"/records", "application/json", fmt.Sprintf(`{"data":{"n":%d}}`, i))
			if err != nil {
				return err
			}
			mu.Lock()
			of++
			if a.status == http.StatusConflict || a.status >= 500 {
				harmed++
			}
			mu.Unlock()
		}
		return nil
	})
	return harmed, of, err
}

// samePast: two records that were changed in the same millisecond of the past, as an import has them.
func samePast(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "past")
	for i := 0; i < 10 && err == nil; i++ {
		var a answer
		a, err = s.do(ctx, "PUT", fmt.Sprintf("%s/records/r%d", coll, i), "application/json", `{"data":{"last_modified":1500000000000}}`)
		of++
		if a.status == http.StatusConflict {
			harmed++
		}
	}
	return harmed, of, err
}

// orphans: a collection with more records than storage_max_fetch_size is deleted and made again.
func orphans(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "orphans")
	const perBatch = 250
	of = s.size.fetch + 60
	for made := 0; made < of && err == nil; {
		var parts []string
		for ; len(parts) < perBatch && made < of; made++ {
			parts = append(parts, part("PUT", fmt.Sprintf("%s/records/r%d", coll, made), ""))
		}
		_, err = s.must(ctx, "POST", "/batch", `{"requests":[`+strings.Join(parts, ",")+`]}`, 200)
	}
	if err == nil {
		_, err = s.must(ctx, "DELETE", coll, "", 200)
	}
	if err == nil {
		_, err = s.collection(ctx, "orphans")
	}
	if err != nil {
		return 0, 0, err
	}
	left, err := s.ids(ctx, coll)
	return len(left), of, err
}

// lostRights: bob shares his record with carol; alice, the owner of the bucket, changes one field with a JSON patch.
func lostRights(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	me := map[string]string{}
	for _, user := range []string{"bob", "carol"} {
		a, err := s.must(ctx, "GET", user+":/", "", 200)
		if err != nil {
			return 0, 0, err
		}
		who, _ := a.body["user"].(map[string]any)
		me[user], _ = who["id"].(string)
	}
	coll, err := s.collection(ctx, "rights")
	if err == nil {
		_, err = s.must(ctx, "PATCH", coll, fmt.Sprintf(`{"permissions":{"record:create":[%q]}}`, me["bob"]), 200)
	}
	if err == nil {
		_, err = s.must(ctx, "PUT", "bob:"+coll+"/records/r", fmt.Sprintf(`{"data":{"n":1},"permissions":{"read":[%q]}}`, me["carol"]), 201)
	}
	if err == nil {
		var a answer
		a, err = s.do(ctx, "PATCH", coll+"/records/r", "application/json-patch+json", `[{"op":"replace","path":"/data/n","value":2}]`)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("the patch got %d %v", a.status, a.body)
		}
	}
	for _, user := range []string{"bob", "carol"} {
		if err != nil {
			return 0, 0, err
		}
		var a answer
		a, err = s.do(ctx, "GET", user+":"+coll+"/records/r", "", "")
		of++
		if a.status != http.StatusOK {
			harmed++
		}
	}
	return harmed, of, err
}

// oneRecord puts {"w":1} and patches it.
func (s *sufferer) oneRecord(ctx context.Context, bucket, media, patch string) (answer, error) {
	coll, err := s.collection(ctx, bucket)
	if err == nil {
		_, err = s.must(ctx, "PUT", coll+"/records/r", `{"data":{"w":1}}`, 200, 201)
	}
	if err != nil {
		return answer{}, err
	}
	return s.do(ctx, "PATCH", coll+"/records/r", media, patch)
}

func mergeOverScalar(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	a, err := s.oneRecord(ctx, "scalar", "application/merge-patch+json", `{"data":{"w":{"q":1}}}`)
	return whether(a.status != http.StatusOK), 1, err
}

func whether(harmed bool) int {
	if harmed {
		return 1
	}
	return 0
}

// inBatch sends one patch in a batch and gives its status and the data after it.
func (s *sufferer) inBatch(ctx context.Context, bucket, media, patch string) (status float64, data map[string]any, err error) {
	if _, err := s.oneRecord(ctx, bucket, "application/json", `{"data":{"gone":1}}`); err != nil {
		return 0, nil, err
	}
	path := "/buckets/" + bucket + "/collections/c/records/r"
	a, err := s.do(ctx, "POST", "/batch", "application/json",
		fmt.Sprintf(`{"requests":[{"method":"PATCH","path":%q,"headers":{"Content-Type":%q},"body":%s}]}`, path, media, patch))
	if err != nil {
		return 0, nil, err
	}
	if responses, _ := a.body["responses"].([]any); len(responses) == 1 {
		entry, _ := responses[0].(map[string]any)
		status, _ = entry["status"].(float64)
	}
	a, err = s.must(ctx, "GET", path, "", 200)
	data, _ = a.body["data"].(map[string]any)
	return status, data, err
}

func mergeInBatch(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	_, data, err := s.inBatch(ctx, "mergebatch", "application/merge-patch+json", `{"data":{"gone":null}}`)
	_, kept := data["gone"]
	return whether(kept), 1, err
}

func jsonPatchInBatch(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	status, _, err := s.inBatch(ctx, "jsonbatch", "application/json-patch+json", `[{"op":"remove","path":"/data/gone"}]`)
	return whether(status != http.StatusOK), 1, err
}

func versionWithoutFile(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	a, err := s.do(ctx, "GET", "/__version__", "", "")
	return whether(a.status >= http.StatusInternalServerError), 1, err
}

func nulInValue(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	a, err := s.oneRecord(ctx, "nul", "application/json", `{"data":{"w":"\u0000"}}`)
	return whether(a.status >= http.StatusInternalServerError), 1, err
}
