package main

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// timeWindow is how far from the scenario's clock a number may be and still be a time that the server gave.
// Times outside of it (1500000000000, the year 2100) were chosen by the scenario or follow from such a choice, and are compared exactly.
const timeWindow = int64(time.Hour / time.Millisecond)

var (
	millis     = regexp.MustCompile(`\d{13}`)
	uuidForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	hashForm   = regexp.MustCompile(`^\$2b\$12\$[./A-Za-z0-9]{53}$`) // a password's, as Kinto's accounts keep it
	nameForm   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{7}$`)
	pythonSet  = regexp.MustCompile(`one of \['[^\]]*'\]`)
	loginState = regexp.MustCompile(`state=[0-9a-f]{16,}`)
	pageToken  = regexp.MustCompile(`_token=[^&"]+`)
	isoDate    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00`)
)

// place says where a value was seen: times given by one request to different lists may fall into one millisecond.
type place struct {
	request string // label
	field   string
	list    string // the list whose clock gave the time
}

// isHistory tells the lists whose clock runs beside that of what is written.
func isHistory(list string) bool { return strings.HasSuffix(list, "/history") }

func (p place) String() string { return p.request + " " + p.field }

// timePair is one time as each of the two servers gave it.
type timePair struct {
	a, b int64
	at   place
}

// relations remembers, for one scenario, which time and which id of one server stands for which of the other.
// A generated id gets a symbol at first sight; a time must stand to all times before it as its counterpart does: equal, before or after.
type relations struct {
	static    string // every text that the scenario itself chose
	now       int64  // milliseconds
	generated bool   // nobody chose what a message prints
	jsonb     bool   // the reference keeps JSON as PostgreSQL does: see asJSONB
	bases     [2][]string
	pairs     []timePair
	known     map[[2]int64]bool
	ids       [2]map[string]string
}

func newRelations(static string, now int64, baseA, baseB string) *relations {
	return &relations{
		static: static, now: now, bases: [2][]string{{baseA}, {baseB}},
		known: map[[2]int64]bool{}, ids: [2]map[string]string{{}, {}},
	}
}

// learnIDs gives a symbol to every generated id of an answer: a member "id" of a generator's form that the scenario did not choose.
func (r *relations) learnIDs(side int, node any) {
	switch at := node.(type) {
	case []any:
		for _, item := range at {
			r.learnIDs(side, item)
		}
	case map[string]any:
		for _, key := range sortedKeys(at) {
			if id, ok := at[key].(string); ok && (key == "id" || key == "password" && hashForm.MatchString(id)) {
				r.learnID(side, id)
			}
			r.learnIDs(side, at[key])
		}
	}
}

func (r *relations) learnID(side int, id string) {
	form := "name"
	switch {
	case r.ids[side][id] != "" || strings.Contains(r.static, id):
		return
	case uuidForm.MatchString(id):
		form = "uuid4"
	case hashForm.MatchString(id):
		form = "bcrypt"
	case !nameForm.MatchString(id):
		return
	}
	r.ids[side][id] = fmt.Sprintf("‹id#%d %s›", len(r.ids[side])+1, form)
}

// isServerTime tells times that a server gave from numbers that the scenario chose.
func (r *relations) isServerTime(ms int64) bool {
	return ms > r.now-timeWindow && ms < r.now+timeWindow && !strings.Contains(r.static, strconv.FormatInt(ms, 10))
}

// normal gives the text with addresses, ids and times of one side replaced by symbols, and the times in their order.
func (r *relations) normal(side int, text string) (string, []int64) {
	for _, base := range r.bases[side] {
		text = strings.ReplaceAll(strings.ReplaceAll(text, base, "‹base›"), url.QueryEscape(base), "‹base›")
	}
	text = loginState.ReplaceAllString(text, "state=‹state›")
	text = pageToken.ReplaceAllString(text, "_token=‹token›")
	text = pythonSet.ReplaceAllStringFunc(text, sortedSet)
	text = isoDate.ReplaceAllString(text, "‹date›") // of a history's entry
	for id, symbol := range r.ids[side] {
		text = strings.ReplaceAll(text, id, symbol)
	}
	var times []int64
	text = millis.ReplaceAllStringFunc(text, func(digits string) string {
		ms, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || !r.isServerTime(ms) {
			return digits
		}
		times = append(times, ms)
		return "‹time›"
	})
	return text, times
}

// sortedSet brings a set that Python printed into one order; Kinto prints it in no stable one.
func sortedSet(text string) string {
	items := strings.Split(strings.TrimSuffix(strings.TrimPrefix(text, "one of ["), "]"), ", ")
	sort.Strings(items)
	return "one of [" + strings.Join(items, ", ") + "]"
}

// same compares one value of both sides. The empty string means that they agree; otherwise the two texts show the difference.
func (r *relations) same(at place, a, b string) (string, string, bool) {
	textA, timesA := r.normal(0, a)
	textB, timesB := r.normal(1, b)
	if textA != textB {
		return textA, textB, false
	}
	for i := range timesA {
		if sayA, sayB, ok := r.relate(at, timesA[i], timesB[i]); !ok {
			return sayA, sayB, false
		}
	}
	return "", "", true
}

// relate compares how a and b stand to all earlier times, and remembers them.
func (r *relations) relate(at place, a, b int64) (string, string, bool) {
	if r.known[[2]int64{a, b}] {
		return "", "", true
	}
	r.known[[2]int64{a, b}] = true
	earlier := r.pairs
	r.pairs = append(r.pairs, timePair{a: a, b: b, at: at})
	for _, p := range earlier {
		signA, signB := sign(a-p.a), sign(b-p.b)
		// Two lists have two clocks, each of which may run ahead: what one batch gives to both has no order, nor
		// has the time of a history's entry to that of what it tells of.
		twoClocks := p.at.list != at.list && (p.at.request == at.request || isHistory(p.at.list) || isHistory(at.list))
		if signA != signB && !twoClocks {
			return relationText(signA, a-p.a, p.at), relationText(signB, b-p.b, p.at), false
		}
	}
	return "", "", true
}

// learnTime remembers a time that was computed from captured ones and sent.
func (r *relations) learnTime(label string, a, b int64) {
	if !r.known[[2]int64{a, b}] {
		r.known[[2]int64{a, b}] = true
		r.pairs = append(r.pairs, timePair{a: a, b: b, at: place{request: label, field: "(sent)"}})
	}
}

func sign(n int64) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func relationText(sign int, by int64, at place) string {
	word := [...]string{"before", "equal to", "after"}[sign+1]
	return fmt.Sprintf("%s the time of request %s (%+d ms)", word, at, by)
}

// httpDate replaces a Last-Modified that is the instant of the ETag beside it; any other date is shown as it is.
func httpDate(date, etag string) string {
	ms, err := strconv.ParseInt(strings.Trim(etag, `"`), 10, 64)
	if err != nil {
		return date
	}
	seconds := ms / 1000
	if ms%1000 < 0 {
		seconds--
	}
	if date == time.Unix(seconds, 0).UTC().Format(http.TimeFormat) {
		return "‹instant of ETag›"
	}
	return date
}

// pageURL brings the parameters of a Next-Page into one order; their order has no meaning.
func pageURL(text string) string {
	page, err := url.Parse(text)
	if err != nil {
		return text
	}
	params := strings.Split(strings.ReplaceAll(page.RawQuery, "%22", `"`), "&") // so that a time after it is seen whole
	sort.Strings(params)
	page.RawQuery = strings.Join(params, "&")
	return page.String()
}
