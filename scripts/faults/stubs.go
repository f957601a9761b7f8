package main

import "context"

func (o *options) runFailover(context.Context) error { return nil }
