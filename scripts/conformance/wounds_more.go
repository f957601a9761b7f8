package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Wounds that need settings of their own, or that show in time and memory.
const (
	historyAndSchemas = "includes=kinto.plugins.history experimental_collection_schema_validation=true"
	accountsOn        = "includes=kinto.plugins.accounts multiauth.policies=account " +
		"multiauth.policy.account.use=kinto.plugins.accounts.AccountsPolicy account_create_principals=system.Everyone"
)

// lostUpdates: clients read a record's ETag, then all of them put the record with it in If-Match: one may be told 200.
func lostUpdates(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "updates")
	for round := 0; round < s.size.rounds && err == nil; round++ {
		path := fmt.Sprintf("%s/records/r%d", coll, round)
		var first answer
		if first, err = s.must(ctx, "PUT", path, `{"data":{"n":0}}`, 201); err != nil {
			break
		}
		data, _ := first.body["data"].(map[string]any)
		stamp, _ := data["last_modified"].(float64)
		conditional := *s
		conditional.header = http.Header{"If-Match": {`"` + strconv.FormatFloat(stamp, 'f', 0, 64) + `"`}}
		var mu sync.Mutex
		written := 0
		err = together(s.size.clients, func(client int) error {
			a, err := conditional.do(ctx, "PUT", path, "application/json", fmt.Sprintf(`{"data":{"n":%d}}`, client))
			if a.status == http.StatusOK {
				mu.Lock()
				written++
				mu.Unlock()
			}
			return err
		})
		harmed += max(0, written-1)
		of += s.size.clients
	}
	return harmed, of, err
}

func lightWithHistory(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	for _, behavior := range []string{"light", "diff"} {
		asking := *s
		asking.header = http.Header{"Response-Behavior": {behavior}}
		coll, err := s.collection(ctx, "light")
		if err == nil {
			_, err = s.must(ctx, "PUT", coll+"/records/r", `{"data":{"w":1}}`, 200, 201)
		}
		if err != nil {
			return 0, 0, err
		}
		a, err := asking.do(ctx, "PATCH", coll+"/records/r", "application/json", `{"data":{"w":2}}`)
		if err != nil {
			return 0, 0, err
		}
		of++
		harmed += whether(a.status != http.StatusOK)
	}
	return harmed, of, nil
}

// What past schemas are measured with: each is small as a text and large once it is read, so that what a server writes does
// not count for much. Memory below the allowance may be any server's own caches.
const (
	pastSchemaCount     = 50
	pastSchemaMembers   = 30_000
	memoryAllowance     = 64 << 20
	largestStatusAnswer = 1 << 20
)

// pastSchemas: a collection's schema is replaced again and again, and each validates one record.
func pastSchemas(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	coll, err := s.collection(ctx, "schemas")
	if err != nil {
		return 0, 0, err
	}
	values := strings.TrimSuffix(strings.Repeat("{},", pastSchemaMembers), ",")
	before := int64(0)
	for i := range pastSchemaCount {
		schema := fmt.Sprintf(`{"data":{"schema":{"title":"n%d","default":[%s]}}}`, i, values)
		if _, err = s.must(ctx, "PUT", coll, schema, 200); err == nil {
			_, err = s.must(ctx, "PUT", coll+"/records/r", `{"data":{"a":1}}`, 200, 201)
		}
		if err == nil && i == pastSchemaCount/10 { // both have warmed up
			before, err = residentBytes(s.pid)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	after, err := residentBytes(s.pid)
	return int(max(0, after-before-memoryAllowance) >> 20), int(after >> 20), err
}

// residentBytes is the memory that a process has, from Linux' /proc.
func residentBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range bytes.Split(text[:min(len(text), largestStatusAnswer)], []byte("\n")) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == "VmRSS:" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", pid)
}

// mostNames bounds the accounts of namesByTime: each costs four hashes.
const mostNames = 10

// namesByTime: wrong logins with names that exist and with names that do not, in turn. A name is told when a login with one
// that does not exist takes less than half of what the fastest of those that exist takes.
func namesByTime(ctx context.Context, s *sufferer) (harmed, of int, err error) {
	of = min(s.size.rounds, mostNames)
	for i := 0; i < of && err == nil; i++ {
		_, err = s.must(ctx, "PUT", fmt.Sprintf("nobody%d:/accounts/there%d", i, i), `{"data":{"password":"another"}}`, 201)
	}
	var there, absent []time.Duration
	login := func(name string) time.Duration {
		begun := time.Now()
		if err == nil {
			_, err = s.must(ctx, "GET", name+":/", "", 200)
		}
		return time.Since(begun)
	}
	for i := range of {
		there = append(there, login(fmt.Sprintf("there%d", i)))
		absent = append(absent, login(fmt.Sprintf("absent%d", i)))
	}
	if err != nil {
		return 0, 0, err
	}
	for _, took := range absent {
		harmed += whether(took < slices.Min(there)/2)
	}
	return harmed, of, nil
}
