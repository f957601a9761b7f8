package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"quinto/fsm"
)

// pageRows are read from the database at a time.
const pageRows = 500

// epoch is a column of Kinto's schema in ms, as its function as_epoch says it.
const epoch = "(EXTRACT(EPOCH FROM last_modified) * 1000)::BIGINT"

// postgresSource is Kinto's PostgreSQL schema (version 26 of its storage), read in
// one transaction: the state of one moment, whoever goes on writing.
type postgresSource struct {
	name        string
	conn, other *pgx.Conn // other: of the permissions; the same one if they are in one database
	tx, acl     pgx.Tx
	selected    Selection
	leftOut     []string
}

func openPostgres(ctx context.Context, dsn, permissions string, selected Selection) (_ *postgresSource, err error) {
	p := &postgresSource{name: redact(dsn), selected: selected}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close(ctx))
		}
	}()
	if p.conn, p.tx, err = snapshotOf(ctx, dsn); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	p.acl = p.tx
	if permissions != "" && permissions != dsn {
		if p.other, p.acl, err = snapshotOf(ctx, permissions); err != nil {
			return nil, fmt.Errorf("%s: %w", redact(permissions), err)
		}
	}
	return p, p.countOthers(ctx)
}

func snapshotOf(ctx context.Context, dsn string) (*pgx.Conn, pgx.Tx, error) {
	// SQLAlchemy's name of the driver is part of some Kinto's URLs.
	dsn = strings.Replace(dsn, "postgresql+psycopg2://", "postgresql://", 1)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	return conn, tx, err
}

func redact(text string) string {
	if u, err := url.Parse(text); err == nil && u.User != nil {
		return u.Redacted()
	}
	return text
}

// lister is where the objects of one of Kinto's resources go.
type lister struct{ resource, plural string }

var listers = []lister{{"account", "accounts"}, {"bucket", "buckets"}, {"group", "groups"}, {"collection", "collections"}, {"record", "records"}, {"history", historyPlural}}

// countOthers notes what is in the database and has no place here yet.
func (p *postgresSource) countOthers(ctx context.Context) error {
	rows, err := p.tx.Query(ctx, "SELECT resource_name, count(*) FROM objects WHERE NOT deleted GROUP BY resource_name ORDER BY resource_name")
	if err != nil {
		return fmt.Errorf("it has none of Kinto's tables: %w", err)
	}
	var name string
	var count int64
	_, err = pgx.ForEachRow(rows, []any{&name, &count}, func() error {
		if !slices.ContainsFunc(listers, func(l lister) bool { return l.resource == name }) {
			p.leftOut = append(p.leftOut, fmt.Sprintf("%d objects of resource %q", count, name))
		}
		return nil
	})
	return err
}

// Name implements Source.
func (p *postgresSource) Name() string { return p.name }

// LeftOut implements Source.
func (p *postgresSource) LeftOut() []string { return p.leftOut }

// Total implements Source.
func (p *postgresSource) Total(ctx context.Context) (n int64, err error) {
	err = p.tx.QueryRow(ctx, "SELECT count(*) FROM objects WHERE resource_name IN ('account', 'bucket', 'group', 'collection', 'record', 'history')").Scan(&n)
	return n, err
}

// Items implements Source.
func (p *postgresSource) Items(ctx context.Context, resume func(fsm.Path) (place, bool), yield func(*Item) error) error {
	stamps, err := p.timestamps(ctx)
	if err != nil {
		return err
	}
	var parents []string // of groups and collections, then of records
	var collections []string
	remember := func(i *Item) error {
		if !i.List && !i.Deleted && i.Refused == "" {
			switch i.Path.List().ID() {
			case "buckets":
				parents = append(parents, string(i.Path))
			case "collections":
				collections = append(collections, string(i.Path))
			}
		}
		return yield(i)
	}
	for _, l := range listers {
		lists := []string{""}
		switch l.resource {
		case "group", "collection", "history":
			lists = parents
		case "record":
			lists = collections
		}
		for _, parent := range p.withOrphans(l, lists, stamps) {
			if err := p.list(ctx, l, parent, stamps, resume, remember); err != nil {
				return err
			}
		}
	}
	return nil
}

// withOrphans adds the parents that only the objects name: Kinto leaves records
// behind when it deletes more than 10,000.
func (p *postgresSource) withOrphans(l lister, lists []string, stamps map[stampKey]fsm.Timestamp) []string {
	all := slices.Clone(lists)
	known := map[string]bool{}
	for _, parent := range lists {
		known[parent] = true
	}
	if l.resource == "account" {
		return all
	}
	var more []string
	for k := range stamps {
		if k.resource == l.resource && !known[k.parent] && k.parent != "" {
			more = append(more, k.parent)
		}
	}
	slices.Sort(more)
	return append(all, more...)
}

type stampKey struct{ resource, parent string }

// timestamps are those of all lists: of the newest object, tombstones included, or
// as Kinto noted it when the list was empty.
func (p *postgresSource) timestamps(ctx context.Context) (map[stampKey]fsm.Timestamp, error) {
	rows, err := p.tx.Query(ctx, `SELECT resource_name, parent_id, MAX(at) FROM (
		SELECT resource_name, parent_id, `+epoch+` AS at FROM objects
		UNION ALL SELECT resource_name, parent_id, `+epoch+` FROM timestamps) AS both_tables GROUP BY 1, 2`)
	if err != nil {
		return nil, err
	}
	all := map[stampKey]fsm.Timestamp{}
	var k stampKey
	var at int64
	_, err = pgx.ForEachRow(rows, []any{&k.resource, &k.parent, &at}, func() error {
		if k.resource == "account" { // each account is a list of its own in Kinto
			k.parent = ""
		}
		all[k] = max(all[k], fsm.Timestamp(at))
		return nil
	})
	return all, err
}

// list gives one list of a resource, then its timestamp.
func (p *postgresSource) list(ctx context.Context, l lister, parent string, stamps map[stampKey]fsm.Timestamp,
	resume func(fsm.Path) (place, bool), yield func(*Item) error) error {
	path := fsm.Path(parent).Child(l.plural)
	if !p.selected.wants(path) && path != "/buckets" {
		return nil
	}
	from, done := resume(path)
	if l.resource == "bucket" || l.resource == "collection" {
		from, done = place{}, false // what lies below has to be found
	}
	for !done {
		items, err := p.page(ctx, l, parent, from)
		if err != nil {
			return err
		}
		for i := range items {
			if err := yield(&items[i]); err != nil {
				return err
			}
		}
		if done = len(items) < pageRows; !done {
			last := items[len(items)-1]
			from = place{last.LastModified, last.Path.ID()}
		}
	}
	return yield(&Item{Path: path, List: true, LastModified: stamps[stampKey{l.resource, parent}]})
}

func (p *postgresSource) page(ctx context.Context, l lister, parent string, from place) ([]Item, error) {
	where := "parent_id = $2"
	if l.resource == "account" {
		where = "$2 = ''"
	}
	rows, err := p.tx.Query(ctx, `SELECT id, `+epoch+`, deleted, data::text FROM objects
		WHERE resource_name = $1 AND `+where+` AND (last_modified, id COLLATE "C") > (TIMESTAMP 'epoch' + $3::bigint * INTERVAL '1 millisecond', $4::text)
		ORDER BY last_modified, id COLLATE "C" LIMIT `+fmt.Sprint(pageRows), l.resource, parent, int64(from.LastModified), from.ID)
	if err != nil {
		return nil, err
	}
	list := fsm.Path(parent).Child(l.plural)
	var items []Item
	var id, data string
	var at int64
	var deleted bool
	_, err = pgx.ForEachRow(rows, []any{&id, &at, &deleted, &data}, func() error {
		i := Item{Path: list.Child(id), LastModified: fsm.Timestamp(at), Deleted: deleted}
		if !deleted {
			i.Data = []byte(data)
		}
		items = append(items, i)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return items, p.permissions(ctx, items)
}

// permissions fills in those of items.
func (p *postgresSource) permissions(ctx context.Context, items []Item) error {
	at := make(map[string]*Item, len(items))
	paths := make([]string, 0, len(items))
	for i := range items {
		if !items[i].Deleted {
			at[string(items[i].Path)] = &items[i]
			paths = append(paths, string(items[i].Path))
		}
	}
	rows, err := p.acl.Query(ctx, "SELECT object_id, permission, principal FROM access_control_entries WHERE object_id = ANY($1)", paths)
	if err != nil {
		return err
	}
	var object, permission, principal string
	_, err = pgx.ForEachRow(rows, []any{&object, &permission, &principal}, func() error {
		i := at[object]
		if i.Permissions == nil {
			i.Permissions = map[string][]string{}
		}
		i.Permissions[permission] = append(i.Permissions[permission], principal)
		return nil
	})
	return err
}

// Close implements Source.
func (p *postgresSource) Close(ctx context.Context) error {
	var errs []error
	for _, c := range []*pgx.Conn{p.conn, p.other} {
		if c != nil {
			errs = append(errs, c.Close(ctx))
		}
	}
	return errors.Join(errs...)
}
