package changes

import "testing"

// What nobody may keep has a Last-Modified: that of the list where there is one, as WebOb
// has it, else that of the answer.
func TestLastModifiedOfWhatNobodyMayKeep(t *testing.T) {
	const of, now = "Fri, 14 Jul 2017 02:40:00 GMT", "Sun, 22 Nov 2026 02:59:11 GMT"
	for given, want := range map[string]string{of: of, "": now} {
		header := map[string]string{"Last-Modified": given}
		if given == "" {
			header = map[string]string{}
		}
		expires(header, 0, 1795316351485)
		if header["Last-Modified"] != want || header["Expires"] != now || header["Pragma"] != "no-cache" {
			t.Errorf("%q: %v", given, header)
		}
	}
}
