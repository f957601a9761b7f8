package main

// avoidance is something that random sequences do not do, because the difference it leads to cannot be told from a real one when it shows.
type avoidance struct {
	what, backend, why string // backend "": with both
}

// avoided lists what the generator stays away from; hand-written scenarios cover it where it says so.
var avoided = []avoidance{
	{"deleting a bucket in which a group may exist", "", "Kinto's members keep the principal of the lost group, which shows much later (scenario: deleting the bucket of a group takes the principal back)"},
	{"deleting buckets and collections inside a batch", "", "Kinto runs the cascade when the batch is over (scenario: creating and deleting in one batch)"},
	{"_limit, _sort and tokens of a list DELETE", "", "Kinto makes the token from a tombstone (scenario: a token of a list DELETE with a sort on data)"},
	{"patch types and other content types inside a batch", "", "Kinto lays every patch as a plain merge (scenario: patch types inside a batch)"},
	{"If-None-Match with an answer's ETag inside a batch", "", "Kinto answers 500 to the whole batch (scenario: an answer of 304 inside a batch)"},
	{"a merge patch of an object over a value that is none, on purpose", "", "Kinto answers 500 (scenario: merge patch of an object over another value); where it happens by chance the sequence ends"},
	{"times more than a day ahead, and client's times of buckets", "", "quinto refuses the former; the clock of the list of buckets is shared with other sequences"},
	{"lists of all buckets, and system.Authenticated as a member of a group", "", "sequences that run meanwhile would see each other"},
	{"paths with /batch in a batch", "", "Kinto refuses any path with these letters (scenario: a path with /batch in it)"},
	{"numbers of more than 15 digits and a fraction", "", "Kinto's parser is not exact (scenario: numbers with more digits than a double has)"},
	{"sorting and comparing by ids that a server drew", "", "two servers draw other ids, so their order differs"},
	{"reading on after the time of a list that nobody wrote", "", "Kinto gives it at the first read, quinto when its parent is made: the sequence ends there, and what makes a parent writes into its lists"},
	{"data.deleted = true", "memory", "the memory backend does not count such objects, PostgreSQL does"},
	{"has_ filters", "memory", "the memory backend forgets the conditions before it, those of the ACL too; PostgreSQL does not"},
	{"like_ on other fields than texts and ids", "memory", "the memory backend answers 500 for values that are no text"},
	{"contains_ on fields that may hold no list", "memory", "the memory backend takes a text for a list of letters"},
	{"a quoted time with an operator on last_modified", "memory", "Python compares a text with a number"},
	{"0, 1, true and false in in_ and exclude_", "memory", "True is 1 to Python"},
	{"comparing and sorting lists and objects", "memory", "Python cannot order some of them, and orders others not as jsonb does"},
	{"-0.0, 1e22, integers beyond 64 bit, U+0000", "postgresql", "jsonb prints them in another form, whose length HEAD tells, or refuses them (scenario: numbers read back from PostgreSQL)"},
	{"two objects of a list with one time in the far past", "postgresql", "Kinto answers 409 (scenario: Retry-After of a conflict); where a copied time leads to it the sequence ends"},
	{"a client's time that is the list's own", "postgresql", "PostgreSQL raises it to now, the memory backend and quinto by one (scenario: a last_modified equal to the list's timestamp is bumped)"},
	{"exclude_ of nothing, gt_ of an empty list, _since=null", "postgresql", "accidents of SQL (scenarios: exclude_, filters that only PostgreSQL answers by type, _since of null on PostgreSQL)"},
}
