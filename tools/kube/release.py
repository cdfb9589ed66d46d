#!/usr/bin/env python3
"""Add another Kubernetes release to the lab: `tools/kube/release.py v1.35.0` writes tools/kube/kubernetes-1.35.

The servers' source is that of `tools/kube/kubernetes`; go.mod is made anew, since
each release names its own staging modules. HAMI_KUBE_RELEASE=1.35 then chooses it.
Without an argument it says which releases are here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE = HERE / "kubernetes"


def main() -> int:
    if len(sys.argv) < 2:
        for folder in sorted(HERE.glob("kubernetes*")):
            found = re.search(r"k8s\.io/kubernetes (v\S+)", (folder / "go.mod").read_text())
            print(folder.name, found.group(1) if found else "?")
        return 0
    asked = re.fullmatch(r"v1\.(\d+)\.(\d+)", sys.argv[1])
    if not asked:
        print(f"{sys.argv[1]} is no release of Kubernetes; an example: v1.35.0", file=sys.stderr)
        return 2
    minor, patch = asked.groups()
    folder = HERE / f"kubernetes-1.{minor}"
    folder.mkdir(exist_ok=True)
    shutil.copy(BASE / "main.go", folder)
    (folder / "go.mod").write_text(module(f"1.{minor}.{patch}", f"v0.{minor}.{patch}"))
    go("mod", "tidy", folder=folder)
    print(f"{folder.name} is ready: HAMI_KUBE_RELEASE=1.{minor} python -m hami.lab build")
    return 0


def module(version: str, staging: str) -> str:
    """A go.mod that replaces every staging module by its published version."""
    names = staging_modules(version)
    replaced = "\n".join(f"\t{name} => {name} {staging}" for name in names)
    required = f"\tk8s.io/component-base {staging}\n\tk8s.io/kubectl {staging}\n\tk8s.io/kubernetes v{version}"
    return f"module hami.io/lab/kubernetes\n\ngo 1.24\n\nrequire (\n{required}\n)\n\nreplace (\n{replaced}\n)\n"


def staging_modules(version: str) -> list[str]:
    answer = json.loads(go("mod", "download", "-json", f"k8s.io/kubernetes@v{version}", folder=HERE))
    return re.findall(r"(k8s\.io/\S+) => \./staging/", Path(answer["GoMod"]).read_text())


def go(*arguments: str, folder: Path) -> str:
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        ["go", *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"go {' '.join(arguments)} failed in {folder}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
