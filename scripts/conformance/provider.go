package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
)

// providerMark in settings stands for the URL of an OpenID provider that both servers of
// a pair are pointed at. Its answers depend on nothing but the question: it knows the
// tokens good-NAME and the codes NAME.
const providerMark = "{idp}"

// providerProfiles are what it tells of its users beside sub and email.
var providerProfiles = map[string]string{
	"anna": `,"name":"\u00c4nna \"A\"","groups":["x",{"y":1.50}],"email_verified":true`,
	"eve":  `,"email_verified":false`,
}

// startProvider serves the provider until stop is called.
func startProvider() (url string, stop func()) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"%[1]s/auth","token_endpoint":"%[1]s/token","userinfo_endpoint":"%[1]s/me","jwks_uri":"%[1]s/keys"}`, server.URL)
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch name, good := strings.CutPrefix(token, "good-"); {
		case good:
			fmt.Fprintf(w, `{"sub":%q,"email":"%[1]s@example.org"%s}`, name, providerProfiles[name])
		case token == "html":
			fmt.Fprint(w, "<html>")
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("client_secret") != "s3cret" || r.PostForm.Get("code") == "bad" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "invalid_grant"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token": "good-%s", "token_type": "Bearer", "of": "a?b>c~"}`, r.PostForm.Get("code"))
	})
	return server.URL, server.Close
}
