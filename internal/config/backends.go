package config

import "strings"

// Kinto's names of backends. There is one engine here (docs/adr/0007): storage can
// be durable or in memory, permissions live with the objects, and what Kinto would
// cache is replicated. A name that stands for another server is refused with what to
// do: starting without the data in it would look like losing it.
const (
	memoryStorage    = "kinto.core.storage.memory"
	memoryPermission = "kinto.core.permission.memory"
	memoryCache      = "kinto.core.cache.memory"

	postgresStorage    = "kinto.core.storage.postgresql"
	postgresPermission = "kinto.core.permission.postgresql"
)

const importAdvice = "remove the line: quinto has its own replicated and durable store and needs no database; " +
	"bring the data over with: quinto import --from "

func storageBackend(text string) (string, bool) {
	switch {
	case text == "" || text == memoryStorage:
		return "", true
	case text == postgresStorage:
		return importAdvice + "postgresql://…, its storage_url; or name " + memoryStorage, false
	case strings.Contains(text, "redis"):
		return importAdvice + "http://…/v1, the running Kinto; or name " + memoryStorage, false
	}
	return importAdvice + "http://…/v1, a Kinto that runs on it; or name " + memoryStorage, false
}

func permissionBackend(text string) (string, bool) {
	switch text {
	case "", memoryPermission:
		return "", true
	case postgresPermission:
		return importAdvice + "postgresql://…, and --permissions-from its permission_url if that is another database", false
	}
	return importAdvice + "http://…/v1, a Kinto that runs on it", false
}

func cacheBackend(text string) (string, bool) {
	return "remove the line: what Kinto would cache is in quinto's replicated store, and nothing has to be brought over; or name " + memoryCache,
		text == "" || text == memoryCache
}
