"""Where the compiled parts are: the library for containers, and the fakes for tests and demonstrations.

They are installed beside the Python files, in ``hami/lib``. This module finds
them and says how to build them; it must not know what they do.
"""

from importlib.resources import files
from pathlib import Path

from hami.model.errors import Unavailable

LIMITER = "libvgpu.so"
"""Preloaded into containers that have a slice."""
SIM_NVML = "sim/libnvidia-ml.so.1"
"""A simulated NVML, driven by `hami.sim.cards`."""
SIM_CUDA = "sim/libcuda.so.1"
"""A simulated CUDA driver on the same cards; what it holds shows in the simulated NVML."""
PROBE = "hami-probe"
"""The program that `hami limits check` measures with."""
STANDIN = "standin/libvgpu.so"
"""Limits nothing; only proves that it was loaded."""


class NotBuilt(Unavailable):
    """A compiled part is missing. Its text says how to build it."""


def library(name: str) -> Path:
    """Absolute path of a compiled part by its name below ``hami/lib``.

    Raises NotBuilt, when it was not compiled or was left out of the package.
    """
    place = files("hami").joinpath("lib").joinpath(*name.split("/"))
    if not place.is_file():
        raise NotBuilt(
            f"{name} is not built. In a checkout, `make setup` builds it (it needs a C compiler); "
            f"an installed package should have it at {place}"
        )
    return Path(str(place)).absolute()
