"""Speed, measured: each module is a program, ``python -m benchmarks.<name> [--json]``.

Each prints a table with its target beside the figure; `--json` prints the
figures alone, under names that stay. Nothing here is a test: a slow machine
must not fail a build.
"""
