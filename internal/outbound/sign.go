package outbound

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Limits of secrets.
const (
	MaxSecrets     = 4
	MinSecretBytes = 24 // of the decoded key, as Standard Webhooks asks
	MaxSecretBytes = 64
	secretPrefix   = "whsec_"
)

// Signers sign with each secret that is in rotation: the receiver accepts any.
type Signers []*standardwebhooks.Webhook

// ReadSecrets reads secrets, separated by white space: several while one is replaced
// by another. Errors never quote them.
func ReadSecrets(text string) (Signers, error) {
	secrets := strings.Fields(text)
	if len(secrets) == 0 || len(secrets) > MaxSecrets {
		return nil, fmt.Errorf("secret: %s and 24 to 64 random bytes in base64 are needed, up to %d of them separated by spaces", secretPrefix, MaxSecrets)
	}
	var all Signers
	for _, s := range secrets {
		encoded, ok := strings.CutPrefix(s, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < MinSecretBytes || len(key) > MaxSecretBytes {
			return nil, fmt.Errorf("secret: %s and %d to %d random bytes in base64 are needed", secretPrefix, MinSecretBytes, MaxSecretBytes)
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return nil, err
		}
		all = append(all, signer)
	}
	return all, nil
}

// Sign adds the headers of Standard Webhooks for body to h.
func (all Signers) Sign(h http.Header, id string, now time.Time, body []byte) error {
	signatures := make([]string, len(all))
	for i, s := range all {
		var err error
		if signatures[i], err = s.Sign(id, now, body); err != nil {
			return err
		}
	}
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return nil
}
