#!/usr/bin/env python3
"""Makes the simulated driver's stubs: every name of the table, answering "not supported" unless the simulation has it.

fakestubs.py TABLE VERSIONS OUTPUT    OUTPUT: the C file
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__)
        return 2
    table, versions, output = map(Path, arguments)
    lines = table.read_text().splitlines()
    names = sorted(line.split(" ")[0] for line in lines if line.startswith("cu"))
    text = ["/* made by native/tools/fakestubs.py; do not edit */", '#include "fake.h"', ""]
    # A body of its own each, so that the linker gives each its own address, as the driver does.
    text += [
        f'__attribute__((weak, visibility("default"))) int {name}(void) {{ return fake_stub("{name}"); }}'
        for name in names
    ]
    text += ["", "const fake_export fake_exports[] = {"]
    text += [f'    {{"{name}", (void *){name}}},' for name in names]
    text += [
        "};",
        f"const unsigned int fake_export_count = {len(names)};",
        "",
        "const fake_version fake_versions[] = {",
    ]
    for line in versions.read_text().splitlines():
        if not line.startswith("#"):
            base, version, name = line.split()
            text.append(f'    {{"{base}", {version}, "{name}"}},')
    text += ['    {"", 0, ""},', "};", ""]
    made = "\n".join(text)
    if not output.exists() or output.read_text() != made:
        output.write_text(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
