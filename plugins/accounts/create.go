package accounts

import (
	"fmt"
	"slices"

	"quinto/fsm"
	"quinto/internal/canon"
)

// ModuleName is what `includes` calls this plugin.
const ModuleName = moduleName

// NamePattern describes the names that ValidName accepts.
const NamePattern = "^[a-zA-Z0-9][+.@a-zA-Z0-9_-]*$"

// ValidName reports whether an account may have this name.
func ValidName(name string) bool { return validID(name) }

// Hash gives what an account keeps of a password. The error is about an empty or
// too long one. It takes a quarter of a second of a processor.
func Hash(password string) (string, error) {
	if password == "" || len(password) > maxPasswordBytes {
		return "", fmt.Errorf("a password has 1 to %d bytes", maxPasswordBytes)
	}
	return hashPassword(password)
}

// Upsert gives the operation by which `create-user` makes or replaces an account, as
// Kinto's does: nothing but the password stays of its data, all of its permissions,
// and its user may write it. The error is r's.
func Upsert(r fsm.Reader, name, hash string) (fsm.Op, error) {
	path := root.Child(name)
	old, err := r.Get(path)
	if err != nil {
		return fsm.Op{}, err
	}
	acl := map[string][]string{}
	if old.Exists() {
		acl = old.ACL.Map()
	}
	if user := policyName + ":" + name; !slices.Contains(acl["write"], user) {
		acl["write"] = append(slices.Clip(acl["write"]), user)
	}
	data := canon.Set(canon.Value("{}"), passwordField, canon.AppendString(nil, hash))
	return fsm.Op{Type: fsm.OpPut, Path: path, Data: data, ACL: fsm.NewACL(acl)}, nil
}
