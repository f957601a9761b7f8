package fsm

// Member is one node of the cluster as `quinto cluster status` shows it.
type Member struct {
	Name     string   `json:"name"`     // stable, unique
	Role     string   `json:"role"`     // "leader" or "follower"
	Suffrage string   `json:"suffrage"` // "voter" or "nonvoter"
	HTTP     string   `json:"http"`     // host:port of the public API
	Cluster  string   `json:"cluster"`  // host:port of the cluster port
	Revision Revision `json:"revision"` // applied there; 0 when it did not answer
	Lag      uint64   `json:"lag"`      // revisions behind the leader
	Ready    bool     `json:"ready"`    // serves linearizable reads now
	// Alarms are what this node, or the leader of it, finds wrong, in words.
	Alarms []string `json:"alarms,omitempty"`
}

// Level is how fresh a read must be.
type Level uint8

// The levels of the Quinto-Consistency header.
const (
	Linearizable Level = iota // sees every write acknowledged before it began (default)
	Session                   // sees at least the revision that the client shows
	Stale                     // answers at once from what the node has
)

// Freshness is what a reader asks of a View.
type Freshness struct {
	Level    Level
	Revision Revision // Session: wait until the node has applied it
}
