package config

import "time"

// Health says when the cluster finds fault with itself, and what it does then.
type Health struct {
	// StallTimeout is how long a leader's disk may hang before it gives up.
	StallTimeout time.Duration
	// StallExit is how long a disk may hang before the process ends.
	StallExit time.Duration
	// StuckAfter is how long a follower that answers may get no entries.
	StuckAfter time.Duration
	// ClockWarn is the difference between two clocks that is logged.
	ClockWarn time.Duration
	// ClockMax is the difference from most others with which a node does not lead.
	ClockMax time.Duration
	// MinFreeBytes of disk stay free, else writes are refused.
	MinFreeBytes int64
	// RemoveDead lets the leader remove members that are silent for DeadAfter, as long
	// as MinVoters voters are left.
	RemoveDead bool
	DeadAfter  time.Duration
	MinVoters  int
}

func healthSettings() []Setting {
	seconds := func(name, initial string, least int64, doc string, field func(c *Config) any) Setting {
		return Setting{Name: "quinto." + name, Default: initial, Min: least, Max: 30 * 24 * 3600, Unit: time.Second, Doc: doc, field: field}
	}
	return []Setting{
		seconds("stall_timeout_seconds", "4", 1, "A leader whose disk hangs so long gives up, so that the others elect.", func(c *Config) any { return &c.Health.StallTimeout }),
		seconds("stall_exit_seconds", "60", 2, "A node whose disk hangs so long ends; more than `quinto.stall_timeout_seconds`.", func(c *Config) any { return &c.Health.StallExit }),
		seconds("stuck_after_seconds", "10", 1, "A follower that answers and gets no entries for so long raises an alarm.", func(c *Config) any { return &c.Health.StuckAfter }),
		seconds("clock_warn_seconds", "5", 1, "Clocks of two nodes that differ by more are logged and shown.", func(c *Config) any { return &c.Health.ClockWarn }),
		seconds("clock_max_seconds", "60", 1, "A node whose clock differs by more from those of most voters does not lead.", func(c *Config) any { return &c.Health.ClockMax }),
		{Name: "quinto.min_free_bytes", Default: "67108864", Min: mib, Max: 1024 * gib, Doc: "Disk that stays free: below it writes are 507.", field: func(c *Config) any { return &c.Health.MinFreeBytes }},
		{Name: "quinto.autopilot_remove_dead", Default: "false", Doc: "Let the leader remove members that have been silent for long, one at a time.", field: func(c *Config) any { return &c.Health.RemoveDead }},
		seconds("autopilot_dead_after_seconds", "86400", 60, "How long a member is silent before it is removed.", func(c *Config) any { return &c.Health.DeadAfter }),
		{Name: "quinto.autopilot_min_voters", Default: "3", Min: 3, Max: 16, Doc: "Voters that have to be left after such a removal.", field: func(c *Config) any { return &c.Health.MinVoters }},
	}
}
