#!/usr/bin/env python3
"""Builds libvgpu.so for any glibc from 2.17 on, for x86_64 or aarch64, on either, with the clang that ziglang brings.

release.py x86_64|aarch64 OUTPUT
"""

import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent.parent
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion"]


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("x86_64", "aarch64"):
        print(__doc__)
        return 2
    target, output = arguments[0], Path(arguments[1])
    with tempfile.TemporaryDirectory() as folder:
        generated = Path(folder)
        table = NATIVE / "src/intercept/table.txt"
        subprocess.run([sys.executable, NATIVE / "tools/intercept.py", "make", table, generated], check=True)
        sources = [*sorted((NATIVE / "src").rglob("*.c")), generated / "hooks.c"]
        include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}", f"-I{generated}"]
        code = ["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-fno-sanitize=all", *WARNINGS]
        link = [f"-Wl,--version-script={generated / 'exports.map'}", "-Wl,-Bsymbolic", "-Wl,-z,relro", "-Wl,-z,now"]
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-linux-gnu.2.17"]
        command = [*compiler, *code, *include, "-shared", *sources, "-o", output, "-s", *link, "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
