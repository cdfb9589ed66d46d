"""Ways round the library that a program may try with documented calls: each is held, or refused.

Programs are Python with ctypes, which asks the C library's dlopen and dlsym as every other program does.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hami.sim.cards import Bench, parse

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
def used():
    left, total = c_size_t(), c_size_t()
    assert cuda.cuMemGetInfo_v2(byref(left), byref(total)) == 0
    return (total.value - left.value) // MIB
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


WAY = Path(__file__).resolve().parents[1] / "gpu" / "way.py"
"""Tries single ways on a card, too."""


def way(container: Container, *words: object, **env: str) -> dict[str, object]:
    command = [sys.executable, str(WAY), *map(str, words)]
    done = subprocess.run(
        command, env=container.environment(**env), capture_output=True, text=True, check=True, timeout=60
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


# ---- another file, another copy, another name space, none any more ----

ASKS = """
import os
signature = ctypes.CFUNCTYPE(c_void_p, c_void_p, ctypes.c_char_p)
ours, libc, here = ctypes.CDLL(None), ctypes.CDLL("libc.so.6"), (c_void_p(-1), c_void_p(0))
ours.dlsym.restype = ours.dlvsym.restype = c_void_p
def asked(name):
    version = {"x86_64": b"GLIBC_2.2.5", "aarch64": b"GLIBC_2.17"}[os.uname().machine]
    yield ours.dlsym(c_void_p(libc._handle), name)
    yield ours.dlsym(c_void_p(ctypes.CDLL("libcuda.so.1")._handle), name)
    yield ours.dlvsym(c_void_p(libc._handle), name, version)
    for handle in here:
        yield ours.dlsym(handle, name)
        yield ours.dlvsym(handle, name, version)
"""
BY_LOADER = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
for dlsym in map(signature, asked(b"dlsym")):
    allocate = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t)(dlsym(cuda._handle, b"cuMemAlloc_v2"))
    print(take(lambda: allocate(ctypes.addressof(c_uint64()), 256 * MIB)), end=" ")
"""
ALL = """
for name in ("dlsym", "dlvsym", "dlopen", "dlmopen"):
    own = ctypes.cast(ours[name], c_void_p).value
    print({address == own for address in asked(name.encode()) if address}, end=" ")
print(ours.dlsym(c_void_p(libc._handle), b"dladdr") == ctypes.cast(libc.dladdr, c_void_p).value)
"""


def test_who_asks_the_c_library_for_its_lookup_gets_one_that_holds_him(container: Container) -> None:
    """By a handle, by a version, by RTLD_NEXT: as programs do that stand before dlsym themselves."""
    assert tried(container, ASKS + BY_LOADER).split() == ["3584", *"000000"]
    assert tried(container, ASKS + ALL) == "{True} {True} {True} {True} True"


OPENED = """
#define _GNU_SOURCE
#include <dlfcn.h>
int cuInit(unsigned int);
void *next_of(const char *name) { return cuInit(0) == 0 ? dlsym(RTLD_NEXT, name) : 0; }
void *default_of(const char *name) { return dlsym(RTLD_DEFAULT, name); }
"""
AFTER = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
opened = ctypes.CDLL(sys.argv[1])
for of in (opened.next_of, opened.default_of):
    of.restype = c_void_p
    allocate = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t)(of(b"cuMemAlloc_v2"))
    print(take(lambda: allocate(ctypes.addressof(c_uint64()), 256 * MIB)), end=" ")
print(opened.next_of(b"cuNoSuchThing"))
"""


def test_a_library_that_is_opened_after_the_driver_and_looks_further_than_itself_is_held(
    container: Container, tmp_path: Path
) -> None:
    """It is linked to the driver, which so comes after it for RTLD_NEXT, and before it in the loader's list."""
    (tmp_path / "opened.c").write_text(OPENED)
    link = ["-o", tmp_path / "libopened.so", f"-L{container.tools.folder / 'sim'}", "-l:libcuda.so.1"]
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "opened.c", *link], check=True)
    assert tried(container, AFTER, tmp_path / "libopened.so") == "3584 0 None"


CLOSES = """
import _ctypes, time
cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
start(cuda)
allocate = cuda.cuMemAlloc_v2
for library in [cuda, nvml] * int(sys.argv[1]):
    _ctypes.dlclose(library._handle)
time.sleep(1.6)
print(linear(ctypes.CDLL("libcuda.so.1")), allocate(byref(c_uint64()), c_size_t(256 * MIB)))
"""


@pytest.mark.parametrize("times", [1, 3])
def test_a_driver_that_a_program_closes_stays_and_is_held(container: Container, times: int) -> None:
    """However often it does. The library looks at both each second, and what a program has of them goes on."""
    assert tried(container, CLOSES, times) == "3584 2"


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
base.dlerror.restype = ctypes.c_char_p
handle = base.dlmopen(ctypes.c_long(-1), sys.argv[1].encode(), 2)
if handle is None:
    print("no name space", b"denied by libvgpu" in base.dlerror())
else:
    opens = ctypes.CFUNCTYPE(c_void_p)(base.dlsym(handle, b"opens"))
    print(base.dlsym(opens(), b"cuMemAlloc_v2"))
"""
OPENS = '#include <dlfcn.h>\nvoid *opens(void) { return dlopen("libcuda.so.1", RTLD_NOW); }\n'


def test_a_driver_in_a_name_space_of_its_own_is_not_given(container: Container, tmp_path: Path) -> None:
    """Neither by another name, nor by a library of that space that opens it there, with a dlsym of that space's own."""
    copy, helper = tmp_path / "plain.so", tmp_path / "helper.so"
    shutil.copy(container.tools.folder / "sim" / "libcuda.so.1", copy)
    (tmp_path / "helper.c").write_text(OPENS)
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "helper.c", "-o", helper, "-ldl"], check=True)
    for file in (copy, helper):
        assert tried(container, SPACES, file) == "no name space True"
    assert int(tried(container, SPACES, helper, LD_PRELOAD="")) != 0


def test_where_there_are_no_limits_a_program_has_its_name_spaces(container: Container) -> None:
    code = SPACES.replace('b"opens"', 'b"cos"').replace("opens()", "handle").replace('b"cuMemAlloc_v2"', 'b"sin"')
    assert tried(container, code, "libm.so.6") == "no name space True"
    assert int(tried(container, code, "libm.so.6", CUDA_DEVICE_MEMORY_LIMIT="")) != 0


# ---- a start that was refused, and a start that is interrupted ----

GOES_ON = """
cuda = ctypes.CDLL("libcuda.so.1")
told = cuda.cuInit(0)
context, handle = c_void_p(), c_uint64()
place = struct.pack("iiiiP8x", 1, 0, 1, 0, 0)
print(told, cuda.cuDevicePrimaryCtxRetain(byref(context), 0), cuda.cuCtxCreate_v2(byref(context), 0, 0),
      cuda.cuGLCtxCreate_v2(byref(context), 0, 0), cuda.cuVDPAUCtxCreate_v2(byref(context), 0, 0, 0, None),
      cuda.cuMemCreate(byref(handle), c_size_t(256 * MIB), place, c_ulonglong(0)))
"""


def test_who_goes_on_after_a_start_that_was_refused_gets_nothing(container: Container, tmp_path: Path) -> None:
    """The driver has started by then: what is refused here is that the ledger has no room for a seventeenth card."""
    for pair in range(9):
        cards = ", ".join(f"{{model: A100-40, uuid: GPU-{pair:08}-0000-0000-0000-{each:012}}}" for each in (1, 2))
        container.bench = Bench(tmp_path / f"cards{pair}", parse(f"cards: [{cards}]"))
        said = tried(container, GOES_ON)
        assert said == ("0 0 0 0 0 0" if pair < 8 else "802 802 802 802 802 802")
    assert tried(container, GOES_ON, LD_PRELOAD="") == "0 0 0 0 0 0"


INTERRUPTED = """
import threading
cuda = ctypes.CDLL("libcuda.so.1")
context, seen = c_void_p(), []
def others():
    while cuda.cuDeviceGetCount(byref(c_int())) != 0:
        pass
    seen.append(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
thread = threading.Thread(target=others)
thread.start()
told = cuda.cuInit(0)
thread.join()
cuda.cuCtxSetCurrent(context)
print(told, seen == [802], linear(cuda))
"""


SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
int pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes)
{
    int (*real)(pthread_mutex_t *, const pthread_mutexattr_t *);
    void *found = dlsym(RTLD_NEXT, "pthread_mutex_init");
    memcpy(&real, &found, sizeof real);
    usleep(20000);
    return real(lock, attributes);
}
"""
"""Makes the time long in which the driver has started and the library has not: it makes a lock for each card."""


def test_a_thread_that_is_faster_than_cuinit_gets_no_context_past_the_limits(
    container: Container, tmp_path: Path
) -> None:
    (tmp_path / "slow.c").write_text(SLOW)
    slow = tmp_path / "slow.so"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "slow.c", "-o", slow, "-ldl"], check=True)
    told, fair, taken = tried(container, INTERRUPTED, LD_PRELOAD=f"{container.tools.library} {slow}").split()
    assert (told, fair, int(taken)) == ("0", "True", 0)


# ---- copies on the card by other names ----


@pytest.mark.realtime
@pytest.mark.parametrize("how", ["peer", "peer3d", "batch3d", "hinted", "hinted3d"])
def test_a_copy_on_the_card_is_charged_whatever_it_is_called(container: Container, how: str) -> None:
    """Between contexts of one card, in batches, with hints: 256 MiB take 268 us of the simulated card."""
    limit = {"CUDA_DEVICE_SM_LIMIT": "25", "GPU_CORE_UTILIZATION_POLICY": "force"}
    a_second = way(container, "copies", how, 1.5, **limit)["a_second"]
    assert isinstance(a_second, float)
    assert 1 < a_second * 268e-6 * 100 < 29
