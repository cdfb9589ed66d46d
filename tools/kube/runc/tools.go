//go:build tools

// Package tools pins runc for the lab.
package tools

import _ "github.com/opencontainers/runc"
