package plugins

// Redacting is a plugin that has something in the data of objects that nobody is to read,
// and that its BeforeCommit takes out of what clients write. What an operator brings in
// (quinto import, quinto restore --bucket) is not shown to hooks: there this takes it out.
type Redacting interface {
	// Redactor returns what takes it out of the data of an object of a kind, as in
	// "bucket", or nil when it has nothing in those. The data is a JSON object in
	// canonical form, and so is what the function returns: a new one, or the same bytes
	// when there was nothing to take out. It depends on the data only.
	Redactor(kind string) func(data []byte) []byte
}
