"""Ways round the library that a program may try with documented calls: each is held, or refused.

Programs are Python with ctypes, which asks the C library's dlopen and dlsym as every other program does.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Container

LIMIT_MIB, CONTEXT_MIB = 4096, 480
HELD_MIB = LIMIT_MIB - CONTEXT_MIB  # in pieces of 256
START = """
import ctypes, struct, sys
from ctypes import byref, c_int, c_size_t, c_uint64, c_ulonglong, c_void_p
MIB = 1 << 20
def start(cuda, cards=1):
    contexts = []
    assert cuda.cuInit(0) == 0
    for index in range(cards):
        context = c_void_p()
        if cuda.cuDevicePrimaryCtxRetain(byref(context), index) == 0:
            contexts.append(context)
    assert cuda.cuCtxSetCurrent(contexts[0]) == 0
    return contexts
def take(call, most=60):
    taken = 0
    while taken < most and call() == 0:
        taken += 1
    return taken * 256
def linear(cuda):
    return take(lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(256 * MIB)))
"""


def tried(container: Container, code: str, *words: object, **env: str) -> str:
    """What the program printed; by default its limit is 4 GiB a card."""
    limits = {"CUDA_DEVICE_MEMORY_LIMIT": f"{LIMIT_MIB}m"} | env
    command = [sys.executable, "-c", START + code, *map(str, words)]
    done = subprocess.run(
        command, env=container.environment(**limits), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- another file, another copy, another name space ----

BY_NAME = """
cuda = ctypes.CDLL(sys.argv[1])
start(cuda)
print(linear(cuda))
"""
BESIDE = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
other = ctypes.CDLL(sys.argv[1])
try:
    print(linear(other))
except AttributeError as fault:
    print("denied by libvgpu" in str(fault))
"""


@pytest.mark.parametrize("kind", ["link", "copy", "copy of another name"])
def test_a_driver_by_any_other_name_is_held_the_same(container: Container, tmp_path: Path, kind: str) -> None:
    driver = container.tools.folder / "sim" / "libcuda.so.1"
    other = tmp_path / ("libcuda.so.1" if kind == "copy" else "plain.so")
    if kind == "link":
        other.symlink_to(driver)
    else:
        shutil.copy(driver, other)
    assert int(tried(container, BY_NAME, other)) <= HELD_MIB
    beside = tried(container, BESIDE, other)
    assert beside == "True" if kind != "link" else int(beside) <= HELD_MIB
    assert int(tried(container, BY_NAME, other, LD_PRELOAD="")) > LIMIT_MIB


SPACES = """
base = ctypes.CDLL(None)
base.dlmopen.restype = base.dlsym.restype = c_void_p
base.dlsym.argtypes = [c_void_p, ctypes.c_char_p]
handle = base.dlmopen(ctypes.c_long(-1), sys.argv[1].encode(), 2)
if handle is None:
    print("no name space")
else:
    opens = ctypes.CFUNCTYPE(c_void_p)(base.dlsym(handle, b"opens"))
    print(base.dlsym(opens(), b"cuMemAlloc_v2"))
"""
OPENS = '#include <dlfcn.h>\nvoid *opens(void) { return dlopen("libcuda.so.1", RTLD_NOW); }\n'


def test_a_driver_in_a_name_space_of_its_own_is_not_given(container: Container, tmp_path: Path) -> None:
    """Neither by another name, nor found there once a library of that space has opened it."""
    copy, helper = tmp_path / "plain.so", tmp_path / "helper.so"
    shutil.copy(container.tools.folder / "sim" / "libcuda.so.1", copy)
    (tmp_path / "helper.c").write_text(OPENS)
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "helper.c", "-o", helper, "-ldl"], check=True)
    assert tried(container, SPACES, copy) == "no name space"
    assert tried(container, SPACES, helper) == "None"
    assert int(tried(container, SPACES, helper, LD_PRELOAD="")) != 0
