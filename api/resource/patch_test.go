package resource

import (
	"fmt"
	"strings"
	"testing"

	"quinto/internal/canon"
)

// The examples of RFC 7396, appendix A, whose patch is an object.
func TestMergePatchFollowsTheRFC(t *testing.T) {
	for _, c := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"n":1.50,"m":1}`, `{"m":{"x":1e30}}`, `{"n":1.50,"m":{"x":1e30}}`},
	} {
		if got := mergePatch(canon.Value(c.target), canon.Value(c.patch)); string(got) != c.want {
			t.Errorf("%s + %s = %s, want %s", c.target, c.patch, got, c.want)
		}
	}
}

func TestJSONPatchFollowsTheRFC(t *testing.T) {
	for _, c := range []struct{ doc, patch, want string }{
		{`{"foo":"bar"}`, `[{"op":"add","path":"/baz","value":"qux"}]`, `{"foo":"bar","baz":"qux"}`},
		{`{"foo":["bar","baz"]}`, `[{"op":"add","path":"/foo/1","value":"qux"}]`, `{"foo":["bar","qux","baz"]}`},
		{`{"foo":["bar"]}`, `[{"op":"add","path":"/foo/-","value":["abc"]}]`, `{"foo":["bar",["abc"]]}`},
		{`{"foo":[]}`, `[{"op":"add","path":"/foo/0","value":1}]`, `{"foo":[1]}`},
		{`{"foo":["bar","qux","baz"]}`, `[{"op":"remove","path":"/foo/1"}]`, `{"foo":["bar","baz"]}`},
		{`{"foo":1.5,"n":1e+30}`, `[{"op":"replace","path":"/n","value":2.0}]`, `{"foo":1.5,"n":2.0}`},
		{`{"foo":{"bar":"baz","w":"f"},"q":{"c":"g"}}`, `[{"op":"move","from":"/foo/w","path":"/q/t"}]`, `{"foo":{"bar":"baz"},"q":{"c":"g","t":"f"}}`},
		{`{"foo":["a","g","c","e"]}`, `[{"op":"move","from":"/foo/1","path":"/foo/3"}]`, `{"foo":["a","c","e","g"]}`},
		{`{"a":{"b":1}}`, `[{"op":"copy","from":"/a","path":"/a/c"}]`, `{"a":{"b":1,"c":{"b":1}}}`},
		{`{"/":9,"~1":10}`, `[{"op":"test","path":"/~01","value":10},{"op":"test","path":"/~1","value":9.0}]`, `{"/":9,"~1":10}`},
		{`{"a":1}`, `[{"op":"move","from":"/a","path":"/a"}]`, `{"a":1}`},
		{`{"foo":[1,2]}`, `[{"op":"add","path":"/foo/3","value":1}]`, "can't insert outside of list"},
		{`{"foo":[1,2]}`, `[{"op":"remove","path":"/foo/-"}]`, "invalid array index '-'"},
		{`{"foo":[1,2]}`, `[{"op":"remove","path":"/foo/2"}]`, "can't remove a non-existent object '2'"},
		{`{"foo":[1,2]}`, `[{"op":"test","path":"/foo/01","value":1}]`, "'01' is not a valid sequence index"},
		{`{"foo":[1,2]}`, `[{"op":"test","path":"/foo/99999999999999999999","value":1}]`, "out of bounds"},
		{`{"foo":[1,2]}`, `[{"op":"test","path":"/foo/-","value":1}]`, "EndOfList([1, 2])"},
		{`{"foo":"s"}`, `[{"op":"add","path":"/foo/x","value":1}]`, "Cannot apply token 'x'"},
		{`{"foo":1}`, `[{"op":"add","path":"/foo/x","value":1}]`, "does not support indexing"},
		{`{"a":{"b":1}}`, `[{"op":"move","from":"/a","path":"/a/b"}]`, "Cannot move values into their own children"},
		{`{"a":1}`, `[{"op":"test","path":"/a","value":true}]`, "1 (<class 'int'>) is not equal to tested value True (<class 'bool'>)"},
		{`{"a":1}`, `[{"op":"remove","path":"/a"},{"op":"test","path":"/~2","value":1}]`, "Found invalid escape ~2"},
		{`{"a":1}`, `[{"op":"copy","from":"/b","path":"/c"}]`, "failed: 'b'"},
	} {
		var body parsed
		body.parse([]byte(c.patch), canon.Limits{})
		ops, problems := body.readPatch()
		if problems != nil {
			t.Fatalf("%s: %v", c.patch, problems)
		}
		got, err := applyPatch(canon.Value(c.doc), ops, 0)
		if text := fmt.Sprint(err); err != nil && !strings.Contains(text, c.want) || err == nil && string(got) != c.want {
			t.Errorf("%s on %s: %s, %v, want %s", c.patch, c.doc, got, err, c.want)
		}
	}
}

// A patch by somebody who may write but does not see the ACL must not rebuild it
// from what he sees: Kinto locks the author out.
func TestPatchKeepsThePermissionsItDoesNotShow(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(0)
	c.want(200, "", "alice", "PATCH /buckets/b/collections/c", `{"permissions":{"record:create":["system.Authenticated"]}}`)
	c.want(201, "", "bob", "PUT "+records+"/r", `{"data":{"a":1},"permissions":{"read":["system.Everyone"]}}`)
	for _, p := range []struct{ media, body string }{
		{jsonPatchType, `[{"op":"replace","path":"/data/a","value":2}]`},
		{mergePatchType, `{"permissions":{"read":["carl"]}}`},
		{mergePatchType, `{"data":{"a":{"b":1}}}`},
	} {
		c.want(200, "", "alice", "PATCH "+records+"/r", p.body, "content-type", p.media)
		c.want(200, `"write":[`, "bob", "GET "+records+"/r", "")
	}
	c.want(200, "", "bob", "PATCH "+records+"/r", `[{"op":"add","path":"/permissions/read/dora"}]`, "content-type", jsonPatchType)
	c.want(200, `"read":["carl","dora"]`, "bob", "GET "+records+"/r", "")
	c.want(200, "", "bob", "PATCH "+records+"/r", `[{"op":"remove","path":"/permissions/read/carl"}]`, "content-type", jsonPatchType)
	c.want(200, `"read":["dora"]`, "bob", "GET "+records+"/r", "")
	c.want(200, "", "bob", "PATCH "+records+"/r", `{"permissions":{"read":null}}`, "content-type", mergePatchType)
	if r := c.do("bob", "GET "+records+"/r", ""); strings.Contains(string(r.Body), `"read"`) {
		t.Errorf("null did not remove the permission: %s", r.Body)
	}
	// Adding without seeing adds to what is there.
	c.want(201, "", "bob", "PUT "+records+"/s", `{"permissions":{"read":["carl"]}}`)
	c.want(200, "", "alice", "PATCH "+records+"/s", `[{"op":"add","path":"/permissions/read/dora"}]`, "content-type", jsonPatchType)
	c.want(200, `"read":["carl","dora"]`, "bob", "GET "+records+"/s", "")
}

func TestPatchesThatKintoFailsOn(t *testing.T) {
	c, _ := newClient(t, map[string]string{"quinto.limit_record_bytes": "4096"})
	c.withRecords(0)
	c.want(201, "", "alice", "PUT "+records+"/r", `{"data":{"a":1,"l":["0123456789012345678901234567890123456789"]}}`)
	path := "PATCH " + records + "/r"
	c.want(200, `"a":{"b":{}}`, "alice", path, `{"data":{"a":{"b":{"c":null}}}}`, "content-type", mergePatchType)
	for patch, why := range map[string]string{
		`[{"op":"replace","path":"/data","value":5}]`:                "must remain objects",
		`[{"op":"remove","path":"/data"}]`:                           "must remain objects",
		`[{"op":"add","path":"/permissions/read","value":5}]`:        "is not iterable",
		`[{"op":"add","path":"/permissions/foo","value":{"x":"x"}}]`: "is not one of read, write",
		`[` + strings.TrimSuffix(strings.Repeat(`{"op":"test","path":"/data/a","value":1},`, MaxPatchOperations+1), ",") + `]`: "limited to 100",
	} {
		c.want(400, why, "alice", path, patch, "content-type", jsonPatchType)
	}
	c.want(200, `{"data":{}}`, "alice", path, `{"data":{"a":null}}`, "content-type", mergePatchType, "response-behavior", "light")
	bomb := strings.TrimSuffix(strings.Repeat(`{"op":"copy","from":"/data/l","path":"/data/l/-"},`, 90), ",")
	c.want(413, "", "alice", path, "["+bomb+"]", "content-type", jsonPatchType)
}

func TestPatchTypesInsideABatch(t *testing.T) {
	c, _ := newClient(t, nil)
	c.withRecords(1)
	part := func(media, body string) string {
		return `{"method":"PATCH","path":"` + records + `/r1","headers":{"Content-Type":"` + media + `"},"body":` + body + `}`
	}
	c.want(200, `"data":{"o":{"x":1},`, "alice", "POST /batch",
		`{"requests":[`+part(mergePatchType, `{"data":{"n":null,"o":{"x":1,"y":null}}}`)+`]}`)
	c.want(200, `"data":{"o":{"x":1},"p":5,`, "alice", "POST /batch",
		`{"requests":[`+part(jsonPatchType, `[{"op":"add","path":"/data/p","value":5}]`)+`]}`)
	c.want(400, "mapping type", "alice", "POST /batch", `{"requests":[`+part("application/json", `[]`)+`]}`)
	c.want(200, `"data":{"last_modified":`, "alice", "POST /batch", `{"requests":[{"method":"PATCH","path":"`+records+
		`/r1","headers":{"Content-Type":"`+jsonPatchType+`","Response-Behavior":"diff"},"body":[]}]}`)
}
