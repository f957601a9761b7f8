package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// generatedFile is what a report calls the file of generated scenarios.
const generatedFile = "generated"

// scenario makes the sequence one that the runner takes.
func (q sequence) scenario() *Scenario {
	sc := &Scenario{Name: fmt.Sprintf("generated from seed %d", q.seed), File: generatedFile, Line: len(q.steps), Settings: q.settings, Generated: true}
	for _, s := range q.steps {
		sc.Requests = append(sc.Requests, s.request())
	}
	return sc
}

func (s step) label() string { return "g" + strconv.Itoa(s.id) }

func (s step) request() *Request {
	r := &Request{Label: s.label(), File: generatedFile, Line: s.id, Method: s.method, Target: s.path + queryText(s.query), User: s.user, Header: s.header, Settle: s.settle()}
	if s.body != nil {
		r.Body = []byte(jsonText(s.body))
	}
	switch s.path {
	case "/": // as the scenarios of hello have it
		r.Typed, r.Any = []string{"body.project_name", "body.project_version"}, []string{"body.config"}
	case "/buckets": // other sequences write into this list meanwhile
		r.Any = []string{"header:ETag", "header:Last-Modified"}
	case "/batch":
		for i := range s.parts {
			if part, ok := s.part(i); ok && strings.TrimPrefix(strings.Split(part, "?")[0], "/v1") == "/buckets" {
				r.Any = append(r.Any, fmt.Sprintf("body.responses[%d].headers.ETag", i), fmt.Sprintf("body.responses[%d].headers.Last-Modified", i))
			}
		}
	}
	return r
}

// part gives the path of one request of a batch.
func (s step) part(i int) (string, bool) {
	body, _ := s.body.(map[string]any)
	requests, _ := body["requests"].([]any)
	if i >= len(requests) {
		return "", false
	}
	part, _ := requests[i].(map[string]any)
	path, ok := part["path"].(string)
	return path, ok
}

// settle is how many milliseconds the clock of a list may run ahead after the step: one for each object it wrote.
func (s step) settle() int {
	if s.method == "DELETE" && strings.Count(s.path, "/")%2 == 1 {
		return len(records) + maxSteps
	}
	return 3 * s.parts
}

// queryText writes a query string; placeholders stay as they are.
func queryText(query [][2]string) string {
	var b strings.Builder
	for i, q := range query {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(escape(q[0]) + "=" + escape(q[1]))
	}
	return b.String()
}

// escape escapes a value for a query, but for its placeholders and what is escaped already.
func escape(text string) string {
	if strings.HasPrefix(text, "%") {
		return text
	}
	var b strings.Builder
	for {
		at := placeholder.FindStringIndex(text)
		if at == nil {
			return b.String() + queryEscape(text)
		}
		b.WriteString(queryEscape(text[:at[0]]) + text[at[0]:at[1]])
		text = text[at[1]:]
	}
}

func queryEscape(text string) string {
	return strings.NewReplacer("%2C", ",", "%2A", "*").Replace(url.QueryEscape(text))
}

// jsonText writes a body in one line, its keys in order and its placeholders as they are.
func jsonText(value any) string {
	var b strings.Builder
	writeJSON(&b, value)
	return b.String()
}

func writeJSON(b *strings.Builder, value any) {
	switch at := value.(type) {
	case map[string]any:
		keys := sortedKeys(at)
		sort.Strings(keys)
		for i, key := range keys {
			b.WriteString([]string{"{", ", "}[min(i, 1)])
			writeJSON(b, key)
			b.WriteString(": ")
			writeJSON(b, at[key])
		}
		b.WriteString([]string{"{}", "}"}[min(len(keys), 1)])
	case []any:
		for i, item := range at {
			b.WriteString([]string{"[", ", "}[min(i, 1)])
			writeJSON(b, item)
		}
		b.WriteString([]string{"[]", "]"}[min(len(at), 1)])
	case bare:
		b.WriteString(string(at))
	case string:
		if strings.Contains(at, `\u0000`) || strings.HasPrefix(at, `\"`) { // escaped already
			b.WriteString(`"` + at + `"`)
			return
		}
		if strings.Contains(at, "{etag:") { // its quotes come with the answer
			b.WriteString(`"\"{ts:` + strings.TrimPrefix(at, "{etag:") + `\""`)
			return
		}
		text, err := json.Marshal(at)
		if err != nil {
			panic(err) // a string always has a form in JSON
		}
		b.WriteString(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(text)))
	default:
		text, err := json.Marshal(at)
		if err != nil {
			panic(err) // only numbers, booleans and null are left
		}
		b.Write(text)
	}
}

// scenarioText prints a sequence in the form of the scenario files, with the statuses that Kinto gave.
func scenarioText(q sequence, outcomes []Outcome) string {
	labels := map[string]string{}
	var b strings.Builder
	fmt.Fprintf(&b, "scenario generated from seed %d\nrows: 1.b-1 1.b-5\n", q.seed)
	if q.settings != "" {
		fmt.Fprintf(&b, "settings: %s\n", q.settings)
	}
	for i, s := range q.steps {
		labels[s.label()] = strconv.Itoa(i + 1)
		r := s.request()
		fmt.Fprintf(&b, "%s %s", r.Method, relabel(r.Target, labels))
		if r.User != "" {
			fmt.Fprintf(&b, " user=%s", r.User)
		}
		if i < len(outcomes) && outcomes[i].Answers[0].Err == nil {
			fmt.Fprintf(&b, " => %d", outcomes[i].Answers[0].Status)
		}
		b.WriteByte('\n')
		for _, h := range r.Header {
			fmt.Fprintf(&b, "%s: %s\n", h[0], relabel(h[1], labels))
		}
		if len(r.Any) > 0 {
			fmt.Fprintf(&b, "@any %s\n", strings.Join(r.Any, " "))
		}
		if len(r.Typed) > 0 {
			fmt.Fprintf(&b, "@type %s\n", strings.Join(r.Typed, " "))
		}
		if r.Body != nil {
			fmt.Fprintf(&b, "  %s\n", relabel(string(r.Body), labels))
		}
	}
	return b.String()
}

// relabel gives placeholders the labels that the requests have in a file.
func relabel(text string, labels map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		label, err := placeholderLabel(placeholder.FindStringSubmatch(whole))
		if err != nil || label == "" {
			return whole
		}
		return strings.Replace(whole, ":"+label, ":"+labels[label], 1)
	})
}

// refersTo lists the labels that a request needs answers of.
func refersTo(r *Request) []string {
	var labels []string
	for _, text := range r.texts() {
		for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
			if label, err := placeholderLabel(m); err == nil && label != "" {
				labels = append(labels, label)
			}
		}
	}
	return labels
}
