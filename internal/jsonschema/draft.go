package jsonschema

import (
	"embed"
	"fmt"
	"strings"
	"sync"

	"quinto/internal/canon"
)

// draft is one version of the specification: which keywords there are, where
// schemas lie inside a schema, and how one names itself.
type draft struct {
	uri      string // of its meta-schema
	id       string // the member that names a schema: "$id", before draft 6 "id"
	legacy   bool   // up to draft 7: $ref hides its siblings, and "#x" as an id is an anchor
	crazy    bool   // up to 2019-09: "items" may be an array of schemas
	strict   bool   // draft 4: 1.0 is no integer
	keywords map[string]keyword
	// where schemas lie: as the value of a member, in its array, in its object
	inValue, inArray, inObject []string
}

var (
	draft04 = &draft{uri: "http://json-schema.org/draft-04/schema", id: "id", legacy: true, crazy: true, strict: true,
		inValue: []string{"not"}, inArray: arraysOld, inObject: objectsOld}
	draft06 = &draft{uri: "http://json-schema.org/draft-06/schema", id: "$id", legacy: true, crazy: true,
		inValue: valuesOld, inArray: arraysOld, inObject: objectsOld}
	draft07 = &draft{uri: "http://json-schema.org/draft-07/schema", id: "$id", legacy: true, crazy: true,
		inValue: append([]string{"if", "then", "else"}, valuesOld...), inArray: arraysOld, inObject: objectsOld}
	draft2019 = &draft{uri: "https://json-schema.org/draft/2019-09/schema", id: "$id", crazy: true,
		inValue: append([]string{"additionalItems"}, valuesNew...), inArray: arraysOld, inObject: objectsNew}
	draft2020 = &draft{uri: "https://json-schema.org/draft/2020-12/schema", id: "$id",
		inValue: append([]string{"items"}, valuesNew...), inArray: append([]string{"prefixItems"}, arraysOld...), inObject: objectsNew}

	valuesOld  = []string{"additionalItems", "additionalProperties", "contains", "not", "propertyNames"}
	valuesNew  = []string{"additionalProperties", "contains", "contentSchema", "else", "if", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
	arraysOld  = []string{"allOf", "anyOf", "oneOf"}
	objectsOld = []string{"definitions", "patternProperties", "properties"}
	objectsNew = []string{"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)

func drafts() []*draft { return []*draft{draft04, draft06, draft07, draft2019, draft2020} }

// draft03 is known to be refused: what its schemas look like, draft 7 mostly
// refuses at their definition.
const draft03 = "http://json-schema.org/draft-03/schema"

// draftOf is the draft that a schema names with $schema, else the one given.
func draftOf(schema *node, otherwise *draft) *draft {
	name := schema.get("$schema")
	if name == nil {
		return otherwise
	}
	uri := strings.TrimSuffix(name.text, "#")
	for _, d := range drafts() {
		if d.uri == uri {
			return d
		}
	}
	return otherwise
}

func init() {
	for _, d := range drafts() {
		d.keywords = keywordsOf(d)
	}
}

//go:embed meta/*.json
var metaFiles embed.FS

// metaSchemas are the documents of all drafts, which any schema may refer to.
var metaSchemas = sync.OnceValues(func() (*registry, error) {
	reg := newRegistry(nil)
	for _, d := range drafts() {
		name := "meta/" + d.uri[strings.Index(d.uri, "draft"):]
		name = strings.Replace(strings.TrimSuffix(name, "/schema"), "draft/", "", 1) + ".json"
		text, err := metaFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		v, err := canon.Canonical(text, canon.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all, _, err := tree(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, doc := range all.elems {
			reg.add(doc, d)
		}
	}
	return reg, nil
})
