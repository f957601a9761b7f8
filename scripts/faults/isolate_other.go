//go:build !linux

package main

import "errors"

// isolate does nothing where there are no namespaces.
func isolate() (code int, done bool) { return 0, false }

func deviceNumber(string) (string, error) { return "", errors.ErrUnsupported }
