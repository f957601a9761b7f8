// Package live takes committed changes to clients that stay connected: as
// Server-Sent Events or through a WebSocket, on every node.
//
// # How it works
//
// One goroutine of the node, the reader, follows the event log of the node's own
// state and hands each change to the streams whose scope covers it: a stream is
// found by the list, the object, or the server that it is about, so that one on
// another collection costs a writer nothing. What a change looks like is made
// once for all streams of one form.
//
// A stream that has nothing to send is a connection and some words of memory: one
// goroutine, the poller, waits for all clients that may say something or go. (Under
// TLS, and where there is no epoll, each stream has a goroutine that waits.) What
// streams of one user or of one scope have in common they share. When there is
// something to send, a goroutine writes until the queue is empty, and ends. A client that does not
// read makes its queue long, and is dropped with the reason; nobody else waits for it.
//
// # Exactness
//
// The id of an event is its revision, and a mark of the cluster's history. A
// stream that begins after revision r first reads the log from r by itself, and
// joins the others at the revision where the reader stands, under the reader's
// lock: nothing is left out there and nothing comes twice. Where the log does not
// reach back to r, or r is of another history, the client is told to start over.
//
// # Permissions
//
// A stream shows what a GET of its URL shows. Whatever can change that (permissions
// of an object above, a group, an account, a deletion) makes the reader decide the
// GET again before it goes on: the stream then ends, or is told to start over.
// Credentials that expire by themselves are asked about every ReauthenticateEvery.
package live
