// Package outbound is how plugins call receivers over HTTP: a client that holds no
// more than it was asked for, the signatures of Standard Webhooks, and a guard that
// refuses addresses which are not public at the moment of the connection.
package outbound
