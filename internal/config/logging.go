package config

import (
	"strings"

	"gopkg.in/ini.v1"
)

// Logging is what the sections [loggers], [handlers] and [formatters] say of the
// two loggers of Kinto that are written here: a line for each request, and one for
// each request of a batch (Kinto 12.2). Without these sections both are silent.
type Logging struct {
	// Requests writes `request.summary`.
	Requests bool
	// Subrequests writes `subrequest.summary`.
	Subrequests bool
	// JSON writes Mozilla's JSON (kinto.core.JsonLogFormatter) instead of text.
	JSON bool
	// Stdout writes to standard output instead of standard error.
	Stdout bool
}

// The names of Kinto's loggers and the classes of its JSON.
const (
	requestLogger    = "request.summary"
	subrequestLogger = "subrequest.summary"
	rootLogger       = "root"
)

// levels of Python's logging by name; 0 asks the logger above.
var levels = map[string]int{"NOTSET": 0, "DEBUG": 10, "INFO": 20, "WARNING": 30, "WARN": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}

const infoLevel = 20

// logger is a section [logger_<name>].
type logger struct {
	level     int
	handlers  []string
	propagate bool
}

// readLogging reads the sections of Python's logging.config.fileConfig.
func readLogging(parsed *ini.File) Logging {
	loggers := map[string]logger{}
	for _, name := range logNames(parsed, "loggers") {
		keys := rawKeys(parsed, "logger_"+name)
		qualified := keys["qualname"]
		if name == rootLogger {
			qualified = rootLogger
		}
		loggers[qualified] = logger{level: levels[strings.ToUpper(keys["level"])], handlers: logList(keys["handlers"]),
			propagate: keys["propagate"] != "0"}
	}
	var l Logging
	var handlers []string
	if l.Requests, handlers = logs(loggers, requestLogger); l.Requests {
		l.sink(parsed, handlers)
	}
	if l.Subrequests, handlers = logs(loggers, subrequestLogger); l.Subrequests && !l.Requests {
		l.sink(parsed, handlers)
	}
	return l
}

// logs reports whether a logger lets INFO through, and to which handlers: its own
// and those of the loggers above it, as long as they propagate.
func logs(loggers map[string]logger, name string) (on bool, handlers []string) {
	level := 0
	for {
		at, defined := loggers[name]
		if defined {
			if level == 0 {
				level = at.level
			}
			handlers = append(handlers, at.handlers...)
			if name != rootLogger && !at.propagate {
				break
			}
		}
		if name == rootLogger {
			break
		}
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			name = name[:dot]
		} else {
			name = rootLogger
		}
	}
	return level > 0 && level <= infoLevel && len(handlers) > 0, handlers
}

// sink reads where and how the first handler that takes INFO writes.
func (l *Logging) sink(parsed *ini.File, handlers []string) {
	for _, name := range handlers {
		handler := rawKeys(parsed, "handler_"+name)
		if levels[strings.ToUpper(handler["level"])] > infoLevel {
			continue
		}
		class := rawKeys(parsed, "formatter_"+handler["formatter"])["class"]
		l.JSON = strings.HasSuffix(class, ".JsonLogFormatter") || strings.HasSuffix(class, ".MozlogFormatter")
		l.Stdout = strings.Contains(handler["args"], "stdout")
		return
	}
	l.Requests, l.Subrequests = false, false
}

// logNames are the keys of a section such as [loggers].
func logNames(parsed *ini.File, section string) []string {
	return logList(rawKeys(parsed, section)["keys"])
}

func logList(text string) (list []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}
