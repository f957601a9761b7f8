// Package defaultbucket is Kinto's plugin kinto.plugins.default_bucket: for each
// user /buckets/default is an alias of a bucket of his own, which is created, as
// are its collections, when it is first used.
package defaultbucket

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// Name is what the setting includes calls the plugin.
const Name = "kinto.plugins.default_bucket"

const (
	alias         = "/buckets/default"
	aliasID       = "default"
	secretSetting = "default_bucket_hmac_secret"
)

func init() {
	plugins.Register(plugins.Module{Name: Name, Settings: secretSetting, New: func() any { return new(plugin) }})
}

// plugin keeps nothing but the secret: a bucket's id follows from its user.
type plugin struct{ secret string }

// Provision reads the secret. Without one it is empty, as in Kinto, which does
// not fall back to userid_hmac_secret although it seems to.
func (p *plugin) Provision(_ context.Context, s plugins.Settings) error {
	if p.secret = s.Text(secretSetting, ""); p.secret == "" {
		s.Log.Warn("without a secret, whoever knows a user id knows the id of that user's default bucket", "setting", secretSetting)
	}
	return nil
}

// BucketID is the id of a user's bucket: the first half of an HMAC-SHA256 of the
// prefixed user id, written as a UUID.
func BucketID(secret, userID string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(userID))
	return uuid.UUID(h.Sum(nil)[:16]).String()
}

// Covers implements plugins.Alias.
func (p *plugin) Covers(path string) bool {
	rest, ok := strings.CutPrefix(path, alias)
	return ok && (rest == "" || rest[0] == '/')
}

// Resolve implements plugins.Alias: bucket and collection are made sure of unless
// the request itself puts them.
func (p *plugin) Resolve(r *plugins.AliasRequest) (*plugins.AliasTarget, error) {
	id := BucketID(p.secret, r.UserID)
	bucket, rest := fsm.Path("/buckets").Child(id), r.Path[len(alias):]
	// Kinto puts {"data": {}} in the place of no body: unlike elsewhere, a PUT
	// without one empties the object.
	t := &plugins.AliasTarget{Path: string(bucket) + rest, EmptyBody: []byte(`{"data":{}}`)}
	if rest == "" {
		t.OldID, t.NewID = aliasID, id
		if r.Method == http.MethodPut {
			return t, nil
		}
	}
	t.Ensure = append(t.Ensure, bucket)
	if tail, ok := strings.CutPrefix(rest, "/collections/"); ok {
		collection, below, deeper := strings.Cut(tail, "/")
		if collection != "" && (r.Method != http.MethodPut || deeper && below != "") {
			t.Ensure = append(t.Ensure, bucket.Child("collections").Child(collection))
		}
	}
	return t, nil
}

// UserInfo implements plugins.UserInfo: the hello view tells the id.
func (p *plugin) UserInfo(_ context.Context, userID string, _ fsm.Reader) (map[string][]byte, error) {
	return map[string][]byte{"bucket": canon.AppendString(nil, BucketID(p.secret, userID))}, nil
}

// Capabilities implements plugins.CapabilityProvider, in Kinto's words.
func (p *plugin) Capabilities() []plugins.Capability {
	return []plugins.Capability{{Name: "default_bucket", Body: `{"description":"The default bucket is an alias for a personal bucket ` +
		`where collections are created implicitly.","url":"https://kinto.readthedocs.io/en/latest/api/1.x/buckets.html#personal-bucket-default"}`}}
}
