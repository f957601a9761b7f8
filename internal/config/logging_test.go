package config

import (
	"strings"
	"testing"
)

// template is the end of the file that `kinto init` writes.
const template = `
[loggers]
keys = root, kinto

[handlers]
keys = console

[formatters]
keys = color, json

[logger_root]
level = INFO
handlers = console

[logger_kinto]
level = DEBUG
handlers = console
qualname = kinto
propagate = 0

[handler_console]
class = kinto.core.StreamHandlerWithRequestID
args = (sys.stderr,)
level = NOTSET
formatter = color

[formatter_color]
class = logging_color_formatter.ColorFormatter

[formatter_json]
class = kinto.core.JsonLogFormatter
`

func TestLogging(t *testing.T) {
	own := strings.Replace(template, "keys = root, kinto", "keys = root, kinto, requests", 1) +
		"[logger_requests]\nlevel = WARNING\nqualname = request.summary\nhandlers =\n"
	for name, c := range map[string]struct {
		text string
		want Logging
	}{
		"none":           {"", Logging{}},
		"kinto's":        {template, Logging{Requests: true, Subrequests: true}},
		"JSON":           {strings.Replace(template, "formatter = color", "formatter = json", 1), Logging{Requests: true, Subrequests: true, JSON: true}},
		"stdout":         {strings.Replace(template, "sys.stderr", "sys.stdout", 1), Logging{Requests: true, Subrequests: true, Stdout: true}},
		"warnings only":  {strings.Replace(template, "level = INFO", "level = WARN", 1), Logging{}},
		"quiet handler":  {strings.Replace(template, "level = NOTSET", "level = ERROR", 1), Logging{}},
		"one is quiet":   {own, Logging{Subrequests: true}},
		"no handler":     {strings.Replace(template, "level = INFO\nhandlers = console", "level = INFO\nhandlers =", 1), Logging{}},
		"unknown level":  {strings.Replace(template, "level = INFO", "level = LOUD", 1), Logging{}},
		"only formatted": {"\n[formatters]\nkeys = json\n", Logging{}},
	} {
		got := mustLoad(t, Options{Path: write(t, "[app:main]\n"+c.text)}).Logging
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
