package resource

import (
	"fmt"
	"html"
	"strings"

	"quinto/internal/canon"
)

// RedirectPage is what Kinto's framework says in a 307: the type and text that suit
// an Accept header.
func RedirectPage(accept, location string) (contentType, body string) {
	const text = "The resource has been moved to %s; you should be redirected automatically."
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(accept, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("text/html", "text/*", "*/*"):
		return "text/html; charset=UTF-8", fmt.Sprintf("<html>\n <head>\n  <title>307 Temporary Redirect</title>\n </head>\n <body>\n"+
			"  <h1>307 Temporary Redirect</h1>\n  "+text+"\n\n\n </body>\n</html>", html.EscapeString(location))
	case has("application/json", "application/*"):
		message := canon.AppendString(nil, fmt.Sprintf(text, location)+"\n\n")
		return "application/json", fmt.Sprintf(`{"message": %s, "code": "307 Temporary Redirect", "title": "Temporary Redirect"}`, message)
	default:
		return "text/plain; charset=UTF-8", "307 Temporary Redirect\n\n" + fmt.Sprintf(text, location) + "\n\n"
	}
}
