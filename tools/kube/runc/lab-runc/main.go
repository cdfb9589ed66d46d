// Command lab-runc runs the runc beside it without the seccomp profile.
//
// The lab's runc is linked statically and without libseccomp, so that no
// package of a distribution is needed; kubelet asks for a profile for every
// sandbox, which such a runc refuses. Pods of a lab are our own.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	self, err := os.Executable()
	if err == nil {
		err = dropSeccomp(bundle(os.Args[1:]))
	}
	if err == nil {
		runc := filepath.Join(filepath.Dir(self), "runc")
		err = syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "lab-runc:", err)
	os.Exit(1)
}

// bundle returns the folder that --bundle names, or "" for a call that starts nothing.
func bundle(arguments []string) string {
	for index, argument := range arguments {
		name, value, inline := strings.Cut(argument, "=")
		if name != "--bundle" && name != "-b" {
			continue
		}
		if inline {
			return value
		}
		if index+1 < len(arguments) {
			return arguments[index+1]
		}
	}
	return ""
}

func dropSeccomp(folder string) error {
	if folder == "" {
		return nil
	}
	path := filepath.Join(folder, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]json.RawMessage
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var linux map[string]json.RawMessage
	if err := json.Unmarshal(spec["linux"], &linux); err != nil {
		return fmt.Errorf("%s: linux: %w", path, err)
	}
	if _, has := linux["seccomp"]; !has {
		return nil
	}
	delete(linux, "seccomp")
	if spec["linux"], err = json.Marshal(linux); err != nil {
		return err
	}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
