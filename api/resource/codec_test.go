package resource

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"quinto/fsm"
)

func sampleRequest() *Request {
	return &Request{ID: []byte{1, 2, 3}, Method: "PUT", Path: "/buckets/b", Query: "a=1", Header: Header{"accept": "*/*", "if-match": `"5"`},
		Body: []byte(`{}`), Scheme: "https", Host: "example.org", Prefix: "/v1", Client: "127.0.0.1", Hop: 1, retry: true}
}

func sampleResponse() *Response {
	return &Response{Status: 412, Header: []HeaderField{{"ETag", `"5"`}, {"Allow", "GET"}}, Body: []byte(`{"code":412}`), outcome: outcomeUnknown}
}

func sampleOutline() *outline {
	return &outline{status: 200, fields: []HeaderField{contentTypeField}, batch: []entry{
		{path: "/v1/buckets/b", out: &outline{status: 201, stamp: opRange{0, 1}, parts: []part{{literal: []byte(`{"data":`)}, {ops: opRange{0, 1}}}}},
		{path: "/v1/buckets", head: true, out: &outline{status: 404, raised: true, parts: []part{
			{stored: &fsm.Object{Path: "/buckets/b", Revision: 7, LastModified: -3, Deleted: true}}}}},
	}}
}

// The encodings reach the log and other versions of this program: they are for
// ever. A difference here needs a new format number, not a new file.
func TestEncodingsAreGolden(t *testing.T) {
	got := hex.EncodeToString(EncodeRequest(sampleRequest())) + "\n" + hex.EncodeToString(EncodeResponse(sampleResponse())) + "\n" +
		hex.EncodeToString(sampleOutline().encode()) + "\n"
	want, err := os.ReadFile("testdata/encodings.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("encodings changed:\n%s", got)
	}
	for i, line := range strings.Fields(string(want)) {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		var back, orig any
		switch i {
		case 0:
			orig = sampleRequest()
			back, err = DecodeRequest(b)
		case 1:
			orig = sampleResponse()
			back, err = DecodeResponse(b)
		case 2:
			orig = sampleOutline()
			back, err = decodeOutline(b)
		}
		if err != nil || !reflect.DeepEqual(back, orig) {
			t.Errorf("line %d: %v\n%+v\n%+v", i+1, err, back, orig)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(EncodeRequest(sampleRequest()))
	f.Add(EncodeResponse(sampleResponse()))
	f.Add(sampleOutline().encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRequest(b); err == nil {
			again, err := DecodeRequest(EncodeRequest(r))
			if err != nil || !bytes.Equal(EncodeRequest(again), EncodeRequest(r)) {
				t.Fatalf("request: %v", err)
			}
		}
		_, _ = DecodeResponse(b)
		if o, err := decodeOutline(b); err == nil {
			_, _ = o.render(result{{Path: "/buckets/b", LastModified: 1, Data: []byte("{}")}})
		}
	})
}
