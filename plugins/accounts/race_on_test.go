//go:build race

package accounts

const raced = true
