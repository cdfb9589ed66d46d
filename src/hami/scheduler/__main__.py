"""`python -m hami.scheduler --name=value ...`: the same as `hami scheduler`, without the command line's comfort."""

import sys

import msgspec

from hami.scheduler.app import run
from hami.scheduler.settings import Settings

if __name__ == "__main__":
    given: dict[str, object] = {}
    for word in sys.argv[1:]:
        name, _, text = word.removeprefix("--").partition("=")
        given[name.replace("-", "_")] = text.split(",") if name == "extender-clients" else text
    run(msgspec.convert(given, Settings, strict=False))
