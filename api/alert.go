package api

import (
	"time"

	"quinto/internal/canon"
	"quinto/internal/config"
)

// alertHeader tells clients that the service ends, or has ended (Kinto 8.3).
const alertHeader = "Alert"

// alerts are the two values of Alert and the instant between them.
type alerts struct {
	end        time.Time // zero: no end is planned
	soft, hard string
}

func newAlerts(c *config.Config) alerts {
	if c.EOS.Date == "" {
		return alerts{}
	}
	url := c.EOS.URL
	if url == "" {
		url = c.Project.Docs
	}
	text := func(code string) string {
		b := canon.AppendString([]byte(`{"code":`), code)
		b = append(b, `,"message":`...)
		if c.EOS.Message == "" {
			b = append(b, "null"...)
		} else {
			b = canon.AppendString(b, c.EOS.Message)
		}
		return string(append(canon.AppendString(append(b, `,"url":`...), url), '}'))
	}
	return alerts{end: c.EOS.At, soft: text("soft-eol"), hard: text("hard-eol")}
}

// over reports whether the service has ended.
func (a alerts) over(now time.Time) bool { return !a.end.IsZero() && !now.Before(a.end) }

// at is the value of Alert, "" if no end is planned.
func (a alerts) at(now time.Time) string {
	if a.over(now) {
		return a.hard
	}
	return a.soft
}
