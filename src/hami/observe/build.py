"""Which build this is: the same words in `hami version`, in logs and in `hami_build_info`."""

import os
import platform
import sysconfig

from msgspec import Struct

from hami import __version__


class Build(Struct, frozen=True):
    """`revision` and `build_date` are set by who builds an image (HAMI_REVISION, HAMI_BUILD_DATE)."""

    version: str
    revision: str
    build_date: str
    python_version: str
    compiler: str
    platform: str


def build() -> Build:
    return Build(
        version=__version__,
        revision=os.environ.get("HAMI_REVISION", "unknown"),
        build_date=os.environ.get("HAMI_BUILD_DATE", "unknown"),
        python_version=platform.python_version(),
        compiler=platform.python_compiler(),
        platform=sysconfig.get_platform(),
    )
