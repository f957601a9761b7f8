package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// userSecret is the userid_hmac_secret of both servers, so that a user has one principal on both.
const userSecret = "conformance-secret"

// userPassword is the password of every user of the scenarios.
const userPassword = "pass"

// placeholder matches {name}, {name:argument} and either with an offset: {ts:3+1000}, {now-5}.
var placeholder = regexp.MustCompile(`\{([a-z]+[0-9]?)(?::([^{}\s"+]+?))?([+-][0-9]+)?\}`)

var (
	errUnknownPlaceholder = errors.New("unknown placeholder")
	errNotInAnswer        = errors.New("not in the answer")
)

// placeholderLabel names the earlier request that a placeholder refers to, "" when it refers to none.
func placeholderLabel(m []string) (string, error) {
	switch m[1] {
	case "b", "b2", "b3", "s", "now":
		if m[2] != "" {
			return "", errUnknownPlaceholder
		}
		return "", nil
	case "me":
		return "", nil
	case "etag", "ts", "id", "next", "token", "state":
		return m[2], nil
	case "json":
		label, _, ok := strings.Cut(m[2], ":")
		if !ok {
			return "", errUnknownPlaceholder
		}
		return label, nil
	}
	return "", errUnknownPlaceholder
}

// variables are the values that a scenario chose itself: the same on both servers, compared literally.
type variables struct {
	suffix string // makes buckets and users of this scenario in this run unlike all others
	now    int64  // milliseconds, fixed when the scenario starts
}

// userName is the account name that a scenario's user has in this run.
func (v variables) userName(user string) string { return user + "-" + v.suffix }

// credentials are what a request sends for `user=NAME`, `user=NAME:PASSWORD` or, for a name that all scenarios share, `user=!NAME`.
func (v variables) credentials(user string) (name, password string) {
	name, password, given := strings.Cut(user, ":")
	if !given {
		password = userPassword
	}
	if shared, ok := strings.CutPrefix(name, "!"); ok {
		return shared, password
	}
	return v.userName(name), password
}

// principal is the id Kinto's basic auth gives a user: an HMAC of "name:password" (row 6.2).
func (v variables) principal(user string) string {
	return principalOf(userSecret, v.userName(user)+":"+userPassword)
}

func principalOf(secret, credentials string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(credentials))
	return "basicauth:" + hex.EncodeToString(mac.Sum(nil))
}

// static replaces what does not depend on an answer and leaves the rest.
func (v variables) static(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		m := placeholder.FindStringSubmatch(whole)
		switch m[1] {
		case "b", "b2", "b3":
			return "bkt" + strings.TrimPrefix(m[1], "b") + "-" + v.suffix
		case "s":
			return v.suffix
		case "me":
			return v.principal(m[2])
		case "now":
			return strconv.FormatInt(v.now+offset(m[3]), 10)
		}
		return whole
	})
}

func offset(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64) // the pattern admits nothing else; "" is 0
	return n
}

// captured replaces what earlier answers of one server gave. It also returns the times that were computed from them.
func captured(text string, answers map[string]Answer) (string, []int64, error) {
	var times []int64
	var failure error
	out := placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		m := placeholder.FindStringSubmatch(whole)
		value, at, err := capture(m, answers)
		if err != nil && failure == nil {
			failure = fmt.Errorf("%s: %w", whole, err)
		}
		if at != 0 {
			times = append(times, at)
		}
		return value
	})
	return out, times, failure
}

// capture gives the text of one placeholder, and the time in it when it was computed with an offset.
func capture(m []string, answers map[string]Answer) (string, int64, error) {
	label, err := placeholderLabel(m)
	if err != nil {
		return "", 0, err
	}
	answer := answers[label]
	switch m[1] {
	case "etag":
		return some(answer.Header.Get("ETag"))
	case "ts":
		at, err := strconv.ParseInt(strings.Trim(answer.Header.Get("ETag"), `"`), 10, 64)
		if err != nil {
			return "", 0, fmt.Errorf("%w: no ETag", errNotInAnswer)
		}
		at += offset(m[3])
		return strconv.FormatInt(at, 10), at, nil
	case "next":
		return some(answer.Header.Get("Next-Page"))
	case "token":
		next, err := url.Parse(answer.Header.Get("Next-Page"))
		if err != nil {
			return "", 0, err
		}
		return some(url.QueryEscape(next.Query().Get("_token")))
	case "state":
		to, err := url.Parse(answer.Header.Get("Location"))
		if err != nil {
			return "", 0, err
		}
		return some(to.Query().Get("state"))
	case "id":
		return jsonAt(answer.Body, "data.id")
	}
	_, path, _ := strings.Cut(m[2], ":")
	return jsonAt(answer.Body, path)
}

func some(value string) (string, int64, error) {
	if value == "" {
		return "", 0, errNotInAnswer
	}
	return value, 0, nil
}

// jsonAt gives the value at a dotted path: strings bare, everything else as JSON.
func jsonAt(body []byte, path string) (string, int64, error) {
	node, err := decodeJSON(body)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", errNotInAnswer, err)
	}
	for _, step := range strings.Split(path, ".") {
		switch at := node.(type) {
		case map[string]any:
			node = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return "", 0, fmt.Errorf("%w: %s", errNotInAnswer, path)
			}
			node = at[i]
		default:
			return "", 0, fmt.Errorf("%w: %s", errNotInAnswer, path)
		}
	}
	if text, ok := node.(string); ok {
		return some(text)
	}
	if node == nil {
		return "", 0, fmt.Errorf("%w: %s", errNotInAnswer, path)
	}
	text, err := json.Marshal(node)
	return string(text), 0, err
}
