package command

import "quinto/api/resource"

// kind finds a kind of this node's table by its singular name, as Kinto's commands
// call resources.
func (n *Node) kind(name string) (*resource.Kind, bool) {
	kinds, err := n.kinds()
	if err != nil { // a node with such a table does not start
		return nil, false
	}
	for _, k := range kinds {
		if k.Name == name {
			return k, true
		}
	}
	return nil, false
}
