package openapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func document() *Document {
	return &Document{Title: "shop", Version: "1.23", BasePath: "/v1", Security: map[string]json.RawMessage{"basicauth": []byte(`{"type":"basic"}`)},
		Resources: []Resource{{Name: "bucket", Plural: "buckets", Path: "/buckets", Permissions: []string{"read", "collection:create"},
			Properties: []byte(`{"n":{"type":"integer"}}`), Required: []string{"n"}, ListMethods: []string{"GET", "POST"}, ObjectMethods: []string{"PATCH"}}},
		Operations: []Operation{{Method: "POST", Path: "/__flush__", ID: "create_flush", Tag: "Flush", Open: true}}}
}

func at(t *testing.T, tree any, keys ...string) any {
	t.Helper()
	for _, key := range keys {
		next, ok := tree.(map[string]any)[key]
		if !ok {
			t.Fatalf("no %q of %q", key, keys)
		}
		tree = next
	}
	return tree
}

func TestSwagger(t *testing.T) {
	text, err := document().Swagger("https", "h:1")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(doc["swagger"], doc["host"], doc["schemes"], doc["basePath"], doc["securityDefinitions"]); got != "2.0h:1[https]/v1map[basicauth:map[type:basic]]" {
		t.Error(got)
	}
	if got := fmt.Sprint(at(t, doc, "paths", "/buckets/{id}", "parameters")); got != "[map[in:path name:id required:true type:string]]" {
		t.Error(got)
	}
	body := at(t, doc, "paths", "/buckets", "post", "parameters").([]any)[0]
	if got := fmt.Sprint(at(t, body, "schema", "required"), at(t, body, "schema", "properties", "permissions", "properties", "collection:create", "title")); got != "[data]Collection:Create" {
		t.Error(got)
	}
	if _, there := at(t, doc, "paths", "/buckets").(map[string]any)["delete"]; there {
		t.Error("a method that does not exist")
	}
	if got := fmt.Sprint(at(t, doc, "paths", "/__flush__", "post", "security"), at(t, doc, "paths", "/__flush__", "post", "responses")); got != "[] map[default:map[description:UNDOCUMENTED RESPONSE]]" {
		t.Error(got)
	}
	if !strings.Contains(string(text), `"maximum":9223372036854775808`) {
		t.Error("the bound of numbers lost digits")
	}
}

func TestOpenAPI(t *testing.T) {
	text, err := document().OpenAPI("https", "h:1")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(doc["openapi"], doc["servers"], at(t, doc, "components", "securitySchemes")); got != "3.1.0[map[url:https://h:1/v1]] map[basicauth:map[scheme:basic type:http]]" {
		t.Error(got)
	}
	patch := at(t, doc, "paths", "/buckets/{id}", "patch", "requestBody", "content").(map[string]any)
	if len(patch) != 3 || patch[mediaPatch] == nil {
		t.Errorf("%v", patch)
	}
	if got := at(t, doc, "paths", "/buckets", "get", "responses", "400", "content", mediaJSON, "schema", "$ref"); got != "#/components/schemas/Error" {
		t.Error(got)
	}
	// What a client must give, an answer may lack.
	answer, err := json.Marshal(at(t, doc, "paths", "/buckets", "get", "responses", "200"))
	if err != nil || strings.Contains(string(answer), "required") {
		t.Errorf("%s", answer)
	}
	for _, old := range []string{`"swagger"`, `"produces"`, `"in":"body"`, "definitions"} {
		if strings.Contains(string(text), old) {
			t.Errorf("%s is left of Swagger", old)
		}
	}
}

func TestTwoOperationsOfOnePath(t *testing.T) {
	d := document()
	d.Operations = append(d.Operations, d.Operations[0])
	if _, err := d.Swagger("http", "h"); err == nil {
		t.Error("accepted")
	}
}

// Kinto calls a few kinds otherwise than their URLs.
func TestLabels(t *testing.T) {
	d := Document{Resources: []Resource{{Name: "user-data", Plural: "__user_data__", Path: "/__user_data__", Label: "user-datas", Param: "principal", ObjectMethods: []string{"DELETE"}}}}
	text, err := d.Swagger("http", "h")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"/__user_data__/{principal}":`, `"operationId":"delete_user-data"`, `"tags":["User-datas"]`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("missing %s in %s", want, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	got := string(Refusals(json.RawMessage(`{"200":{"description":"a"},"401":{"description":"b"},"404":{"description":"c","schema":{"type":"string"}}}`)))
	if strings.Count(got, "ErrorSchema") != 1 || !strings.Contains(got, `"schema":{"type":"string"}`) || string(Refusals(nil)) != "" {
		t.Error(got)
	}
}
