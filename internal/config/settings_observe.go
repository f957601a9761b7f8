package config

// observeSettings are those of measurements that belong to no single plugin.
func observeSettings() []Setting {
	return []Setting{
		{Name: "metrics_matchdict_fields", Default: "bucket_id collection_id group_id record_id",
			Doc:   "Ids of the URL that become labels of the measurements of requests; for a plugin's endpoint also what its path names.",
			field: func(c *Config) any { return &c.MetricsFields }},
	}
}
