#!/usr/bin/env python3
"""Makes the interposition code from src/intercept/table.txt and private.txt beside it, and checks that a driver exports
nothing unclassified.

intercept.py make TABLE FOLDER      writes hooks.h, hooks.c, exports.map into FOLDER
intercept.py check TABLE NAMES...   NAMES: files with one exported name a line; fails on a name without class
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

CLASSES = ("charge", "discharge", "limit", "virtualise", "gate", "neutral", "deny")
HOOKED = ("charge", "discharge", "limit", "virtualise", "gate")
PRIVATE = ("neutral", "deny")
OURS = ("dlsym", "dlvsym", "dlopen", "dlmopen")
BANNER = "made by native/tools/intercept.py from table.txt and private.txt of src/intercept; do not edit"


class Entry(NamedTuple):
    name: str
    kind: str
    text: str

    @property
    def driver(self) -> str:
        return "nvml" if self.name.startswith("nvml") else "cuda"


def read(path: Path) -> list[Entry]:
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        name, kind, text = [*line.split(" ", 2), "", ""][:3]
        if kind not in CLASSES:
            raise SystemExit(f"{path}:{number}: {name} has no class; one of {', '.join(CLASSES)}")
        if not re.fullmatch(r"(cu|nvml)\w+", name):
            raise SystemExit(f"{path}:{number}: {name} is no name of a driver")
        if kind in HOOKED and not re.fullmatch(r"\(.+\)", text):
            raise SystemExit(f"{path}:{number}: {name} is hooked and has no signature")
        entries.append(Entry(name, kind, text))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise SystemExit(f"{path}: twice: {sorted({n for n in names if names.count(n) > 1})}")
    return sorted(entries)


class Private(NamedTuple):
    id: UUID
    kind: str


def read_private(path: Path) -> list[Private]:
    found: dict[UUID, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) (\w+) (\S.*)", line)
        if match is None or match[2] not in PRIVATE:
            raise SystemExit(f"{path}:{number}: not 'UUID {'|'.join(PRIVATE)} what it is and who asks for it'")
        if UUID(match[1]) in found:
            raise SystemExit(f"{path}:{number}: {match[1]} is there twice")
        found[UUID(match[1])] = match[2]
    return [Private(*pair) for pair in found.items()]


def header(entries: list[Entry]) -> str:
    hooked = [entry for entry in entries if entry.kind in HOOKED]
    lines = [f"/* {BANNER} */", "#ifndef HAMI_HOOKS_H", "#define HAMI_HOOKS_H", "", '#include "hami/cuda_abi.h"', ""]
    lines += ["#pragma GCC visibility push(default)"]
    lines += [f"CUresult {entry.name}{entry.text};" for entry in hooked]
    lines += ["#pragma GCC visibility pop"]
    lines += [
        "",
        "/* The driver's own functions behind the hooks; NULL where this driver has none. */",
        "typedef struct {",
    ]
    lines += [f"    CUresult (*{entry.name}){entry.text};" for entry in hooked]
    lines += ["} hami_behind_t;", "", "extern hami_behind_t hami_behind;", "", "#endif", ""]
    return "\n".join(lines)


def source(entries: list[Entry], tables: list[Private]) -> str:
    denied = [entry for entry in entries if entry.kind == "deny"]
    lines = [f"/* {BANNER} */", "#include <stddef.h>", "", '#include "intercept/intercept.h"', '#include "hooks.h"', ""]
    lines += ["hami_behind_t hami_behind;", ""]
    for entry in denied:
        lines.append(f'__attribute__((visibility("default"))) CUresult {entry.name}(void);')
        lines.append(f'CUresult {entry.name}(void) {{ return hami_denied("{entry.name}"); }}')
    lines += ["", "const hami_name hami_names[] = {"]
    for entry in entries:
        hook = "NULL" if entry.kind == "neutral" else f"(void *){entry.name}"
        slot = f"offsetof(hami_behind_t, {entry.name})" if entry.kind in HOOKED else "HAMI_NO_SLOT"
        lines.append(f'    {{"{entry.name}", HAMI_{entry.kind.upper()}, {hook}, {slot}}},')
    lines += ["};", f"const unsigned int hami_name_count = {len(entries)};", ""]
    lines += ["const hami_private hami_privates[] = {"]
    for table in tables:
        octets = ", ".join(f"0x{byte:02x}" for byte in table.id.bytes)
        lines.append(f"    {{{{{{{octets}}}}}, HAMI_{table.kind.upper()}}},")
    lines += ["};", f"const unsigned int hami_private_count = {len(tables)};", ""]
    return "\n".join(lines)


def exports(entries: list[Entry]) -> str:
    names = [*OURS, *(entry.name for entry in entries if entry.kind != "neutral")]
    return "{\n  global:\n" + "".join(f"    {name};\n" for name in names) + "  local: *;\n};\n"


def make(table: Path, folder: Path) -> None:
    entries = read(table)
    folder.mkdir(parents=True, exist_ok=True)
    code = source(entries, read_private(table.with_name("private.txt")))
    for name, made in (("hooks.h", header(entries)), ("hooks.c", code), ("exports.map", exports(entries))):
        path = folder / name
        if not path.exists() or path.read_text() != made:  # keeps the build from redoing what has not changed
            path.write_text(made)


def check(table: Path, lists: list[Path]) -> int:
    known = {entry.name for entry in read(table)}
    seen = {name for path in lists for name in path.read_text().split() if re.match(r"cu[A-Zd]|nvml[A-Z]", name)}
    missing = sorted(seen - known)
    for name in missing:
        print(f"{name}: exported and without class in {table}")
    print(f"{len(seen)} names exported, {len(seen & known)} classified, {len(missing)} not")
    return 1 if missing else 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["make", table, folder]:
            make(Path(table), Path(folder))
            return 0
        case ["check", table, *lists] if lists:
            return check(Path(table), [Path(each) for each in lists])
    print(__doc__)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
