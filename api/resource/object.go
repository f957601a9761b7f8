package resource

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"quinto/api/query"
	"quinto/fsm"
	"quinto/internal/canon"
	"quinto/plugins"
)

// object decides GET, HEAD, PUT, PATCH and DELETE of one object.
func (c *call) object(problems []problem) (*outline, error) {
	switch c.r.Method {
	case http.MethodPut:
		return c.put(problems)
	case http.MethodPatch:
		return c.patch(problems)
	case http.MethodDelete:
		return c.delete(problems)
	}
	if err := c.checkReadBody(problems); err != nil {
		return nil, err
	}
	if err := c.checkID(); err != nil {
		return nil, err
	}
	if err := c.readCurrent(); err != nil {
		return nil, err
	}
	if !c.current.Exists() {
		return nil, c.missing()
	}
	o := &c.current
	if out := c.unmodified(o.LastModified); out != nil {
		return out, nil
	}
	if err := c.precondition(objectTarget(o)); err != nil {
		return nil, err
	}
	out := &outline{status: 200, fields: append(appendStamp(make([]HeaderField, 0, 6), o.LastModified), contentTypeField)}
	fields, err := c.caching(out.fields)
	if err != nil {
		return nil, err
	}
	out.fields = fields
	return out, c.showObject(out, o)
}

// showObject makes the body of a GET: the object with its permissions, or what
// _fields asks for.
func (c *call) showObject(out *outline, stored *fsm.Object) error {
	visible := c.s.visible(*stored)
	o := &visible
	if strings.Contains(c.r.Query, "fields") {
		fields, err := query.ParseFields(c.r.Query, query.Options{})
		if err != nil {
			return queryFailure(err)
		}
		if fields != nil {
			data := fields.Project(query.Object{ID: o.Path.ID(), LastModified: int64(o.LastModified), Data: o.Data})
			out.literal(append(canon.Splice([]byte(`{"data":`), o.Path.ID(), int64(o.LastModified), data), '}'))
			return nil
		}
	}
	b := append(make([]byte, 0, len(o.Data)+len(o.ACL)+128), `{"permissions":`...)
	b = append(c.appendPermissions(b, o.ACL), `,"data":`...)
	c.show(out, b, o)
	return nil
}

// show appends head, the object and a brace to the body. What a batch shows is
// stored with its transaction, so there it only refers to what is stored anyway.
func (c *call) show(out *outline, head []byte, o *fsm.Object) {
	if !c.batch {
		visible := c.s.visible(*o)
		out.literal(append(appendObject(head, &visible), '}'))
		return
	}
	out.literal(head)
	out.parts = append(out.parts, c.reference(o), part{literal: []byte{'}'}})
}

// reference is the part that shows o.
func (p *planner) reference(o *fsm.Object) part {
	if i, ok := p.staged[o.Path]; ok {
		return part{ops: opRange{i, i + 1}}
	}
	stored := p.s.visible(*o)
	return part{stored: &stored}
}

// checkReadBody is the validation of a request without payload: a body that
// claims to be JSON must be it.
func (c *call) checkReadBody(problems []problem) error {
	if len(c.r.Body) > 0 && isJSONType(mediaType(c.r.Header["content-type"])) {
		c.body.parse(c.r.Body, c.s.jsonLimits())
		if c.body.err != nil {
			return c.body.err
		}
		if c.body.fault != nil {
			return validation(append(c.foreign, *c.body.fault)...)
		}
	}
	problems = append(c.foreign, problems...)
	if len(problems) > 0 {
		return validation(problems...)
	}
	return nil
}

func (c *call) checkID() error {
	if !c.route.kind.ValidID(c.links[len(c.links)-1].id) {
		return errInvalidID()
	}
	return nil
}

func (c *call) missing() error {
	return errNoObject(c.route.kind.Name, c.links[len(c.links)-1].id)
}

// payload validates the body of a write together with its headers.
func (c *call) payload(problems []problem) (payload, error) {
	c.body.parse(c.r.Body, c.s.jsonLimits())
	if c.body.err != nil {
		return payload{}, c.body.err
	}
	pl, found := c.body.validate(c.route.kind, c.r.Method == http.MethodPatch)
	found = append(slices.Clip(c.foreign), found...)
	if c.body.fault == nil {
		found = append(found, problems...) // without a body, Kinto sees no headers either
	}
	if len(found) > 0 {
		return pl, validation(found...)
	}
	return pl, nil
}

// checkOwnID refuses a body that names another object.
func (c *call) checkOwnID(pl *payload) error {
	id := c.links[len(c.links)-1].id
	if pl.id == nil {
		return nil
	}
	if text, ok := pl.id.String(); !ok || text != id {
		return invalid(problem{location: "body", name: "id", description: "Object id does not match existing object"})
	}
	return nil
}

// post decides POST on a list.
func (c *call) post(problems []problem) (*outline, error) {
	pl, err := c.payload(problems)
	if err != nil {
		return nil, err
	}
	if err := c.precondition(objectTarget(&c.current)); err != nil {
		return nil, err
	}
	if c.current.Exists() {
		out := &outline{status: 200, fields: append(stampFields(c.current.LastModified), contentTypeField)}
		b := append(c.appendPermissions([]byte(`{"permissions":`), c.current.ACL), `,"data":`...)
		c.show(out, b, &c.current)
		return out, nil
	}
	if pl.id == nil {
		id := c.drawID()
		c.name(id)
		c.unnamed, c.fresh = true, randomUUID(id)
	}
	data := pl.data
	if !pl.hasData {
		data = canon.Value("{}")
	}
	return c.write(&pl, data)
}

// drawnKey is what an id is remembered by while its request is decided.
type drawnKey struct {
	kind string
	nth  int
}

// drawID makes the id of a POST without one. It stays the same while the request is
// decided again, so that a hook that has had to ask elsewhere knows the object again.
func (c *call) drawID() string {
	if len(c.s.hooks) == 0 {
		return c.route.kind.NewID()
	}
	c.drawn++
	key := drawnKey{c.route.kind.Name, c.drawn}
	if id, ok := plugins.Recall(c.ctx, key); ok {
		return id.(string)
	}
	id := c.route.kind.NewID()
	plugins.Remember(c.ctx, key, id)
	return id
}

// put decides PUT: create or replace (Kinto 4.3).
func (c *call) put(problems []problem) (*outline, error) {
	pl, err := c.payload(problems)
	if err != nil {
		return nil, err
	}
	if err := c.checkID(); err != nil {
		return nil, err
	}
	if err := c.precondition(objectTarget(&c.current)); err != nil {
		return nil, err
	}
	if err := c.checkOwnID(&pl); err != nil {
		return nil, err
	}
	data := pl.data
	if !pl.hasData {
		data = canon.Value("{}")
		if c.current.Exists() {
			data = c.current.Data
		}
	}
	return c.write(&pl, data)
}

// delete decides DELETE of an object: it and everything under it.
func (c *call) delete(problems []problem) (*outline, error) {
	if err := c.checkReadBody(problems); err != nil {
		return nil, err
	}
	if err := c.checkID(); err != nil {
		return nil, err
	}
	if !c.current.Exists() {
		return nil, c.missing()
	}
	if err := c.precondition(objectTarget(&c.current)); err != nil {
		return nil, err
	}
	op := c.removal(c.current.Path)
	wish, err := c.wishedTime()
	if err != nil {
		return nil, err
	}
	if wish > c.current.LastModified && wish != 0 {
		op.LastModified, op.HasTime = wish, true
	}
	if op.Inherited, err = c.inherited(); err != nil {
		return nil, err
	}
	if err := c.hooks(fsm.ActionDelete, &c.current, &op); err != nil {
		return nil, err
	}
	i, err := c.stage(op)
	if err != nil {
		return nil, err
	}
	out := &outline{status: 200, fields: []HeaderField{contentTypeField}, stamp: opRange{i, i + 1}}
	out.literal([]byte(`{"data":`))
	out.parts = append(out.parts, part{ops: opRange{i, i + 1}}, part{literal: []byte{'}'}})
	return out, nil
}

// removal is the op that deletes an object of the addressed kind.
func (c *call) removal(p fsm.Path) fsm.Op {
	if len(c.route.kind.Children) > 0 {
		return fsm.Op{Type: fsm.OpDeleteTree, Path: p}
	}
	return fsm.Op{Type: fsm.OpDelete, Path: p}
}

// wishedTime reads ?last_modified= of a DELETE (Kinto 3.8): an integer;
// 0 when absent. Kinto answers anything else with 500, here it is a 400.
func (c *call) wishedTime() (fsm.Timestamp, error) {
	values, _ := url.ParseQuery(c.r.Query) // what does not parse is no parameter
	if !values.Has("last_modified") {
		return 0, nil
	}
	const name = "last_modified"
	all := values[name]
	text := all[len(all)-1]
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, invalid(problem{location: "querystring", name: name, description: fmt.Sprintf(`"%s" is not a number`, text)})
	}
	return fsm.Timestamp(n), c.checkFuture("querystring", name, fsm.Timestamp(n))
}

// checkFuture refuses a timestamp further beyond now, or beyond a list that runs
// ahead of the clock, than quinto.last_modified_ahead_hours (a day).
func (c *call) checkFuture(location, name string, t fsm.Timestamp) error {
	ahead := c.s.cfg.Limits.Ahead
	if t < c.now+fsm.Timestamp(ahead.Milliseconds()) {
		return nil
	}
	l, err := c.view.List(c.route.list)
	if err != nil || t < l.Timestamp+fsm.Timestamp(ahead.Milliseconds()) {
		return err
	}
	return invalid(problem{location: location, name: name, description: fmt.Sprintf("%d is more than %.0f hours in the future", t, ahead.Hours())})
}

// modifiedWish is the last_modified that the body asks for, if it counts: an
// integer above that of the object it replaces (Kinto 3.5, 3.6); 0 is always
// kept on a create.
func (c *call) modifiedWish(pl *payload) (t fsm.Timestamp, ok bool, err error) {
	if !pl.modified.IsInt() {
		return 0, false, nil
	}
	n, fits := pl.modified.Int()
	if !fits {
		n = math.MaxInt64
	}
	t = fsm.Timestamp(n)
	if c.current.Exists() && t <= c.current.LastModified && t != 0 {
		return 0, false, nil
	}
	return t, true, c.checkFuture("body", "data.last_modified", t)
}

// write stages the object with new data and returns its answer.
func (c *call) write(pl *payload, data canon.Value) (*outline, error) {
	kind := c.route.kind
	op := fsm.Op{Type: fsm.OpPut, Path: c.links[len(c.links)-1].path, Data: data, Fresh: c.fresh}
	if op.Path.CheckObject() != nil {
		return nil, errInvalidID()
	}
	var err error
	if op.Data, err = c.complete(pl, data); err != nil {
		return nil, err
	}
	if op.LastModified, op.HasTime, err = c.modifiedWish(pl); err != nil {
		return nil, err
	}
	if c.s.cfg.SchemaValidation {
		if op.Data, err = c.validateSchemas(pl, op.Data); err != nil {
			return nil, err
		}
	}
	old := fsm.ACL(nil)
	action := fsm.ActionCreate
	status := 201
	if c.current.Exists() {
		old, action, status = c.current.ACL, fsm.ActionUpdate, 200
	}
	op.ACL = c.newACL(old, pl.permissions)
	if op.Inherited, err = c.inherited(); err != nil {
		return nil, err
	}
	if err := c.hooks(action, &c.current, &op); err != nil {
		return nil, err
	}
	if limit := c.s.cfg.Limits.RecordBytes; limit > 0 && len(op.Data) > limit {
		return nil, errTooLarge(fmt.Sprintf("Object of %d bytes, the limit is %d", len(op.Data), limit))
	}
	if kind.Members != nil {
		op.Members = kind.Members(op.Data)
	}
	i, err := c.stage(op)
	if err != nil {
		return nil, err
	}
	if status == 201 {
		owner := c.over.Staged(op.Path)
		if op.HasTime || owner > c.now+maxClockRun { // a client's wish says nothing of the lists below
			owner = c.now
		}
		if err := c.initLists(op.Path, max(c.now, owner)); err != nil {
			return nil, err
		}
	}
	out := &outline{status: status, fields: []HeaderField{contentTypeField}, stamp: opRange{i, i + 1}}
	out.literal(append(c.appendPermissions([]byte(`{"permissions":`), op.ACL), `,"data":`...))
	out.parts = append(out.parts, part{ops: opRange{i, i + 1}}, part{literal: []byte{'}'}})
	return out, nil
}

// maxClockRun is how far, in milliseconds, a list's clock runs ahead of time by many
// writes; what is further ahead was wished for by a client.
const maxClockRun = 1000

// initLists gives the lists below a new object their timestamp. They are younger
// than their owner, as those that Kinto makes when they are first read.
func (c *call) initLists(p fsm.Path, owner fsm.Timestamp) error {
	for i, plural := range c.route.kind.Children {
		_, err := c.stage(fsm.Op{Type: fsm.OpSetListTimestamp, Path: p.Child(plural), LastModified: owner + fsm.Timestamp(i+1),
			HasTime: true, IfAbsent: true})
		if err != nil {
			return err
		}
	}
	return nil
}
