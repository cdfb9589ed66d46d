"""Libraries of kernels, which the driver loads when their module is first asked for (simulated driver)."""

import pytest

from .conftest import Container
from .test_failed_ends import ENDS
from .test_ways_round import tried

LIBRARIES = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def load(mib):
    library = c_void_p()
    return cuda.cuLibraryLoadData(byref(library), b"data %d" % (mib - 2), None, None, 0, None, None, 0), library
"""
MANY = """
libraries = []
def one():
    told, library = load(256)
    if told == 0:
        libraries.append(library)
    return told
taken = take(one)
for each in libraries:
    assert cuda.cuLibraryUnload(each) == 0
print(taken, take(one))
"""


def test_libraries_end_at_the_limit_and_are_had_again_once_they_are_unloaded(container: Container) -> None:
    """A context beside them."""
    assert tried(container, LIBRARIES + MANY) == "3584 3584"


def test_what_loads_late_is_loaded_at_once_where_little_is_left_so_that_it_can_be_refused(container: Container) -> None:
    """What is loaded while much is left takes nothing yet: 12 of them, until a quarter of the limit is left."""
    taken, again = map(int, tried(container, LIBRARIES + ONE_BY_ONE + MANY, FAKE_CUDA_LAZY="1").split())
    assert taken == again == 3584


ONE_BY_ONE = """
late = load
def load(mib):
    told, library = late(mib)
    if told == 0 and used() < 3 * 1024:
        assert cuda.cuLibraryGetModule(byref(c_void_p()), library) == 0
    return told, library
"""
LARGE = """
told, library = load(3800)
module = c_void_p()
print(told, used(), cuda.cuLibraryGetModule(byref(module), library), linear(cuda), end=" ")
print(cuda.cuLibraryUnload(library), linear(cuda))
"""


def test_while_a_library_that_overdraws_is_there_nothing_more_is_had(container: Container) -> None:
    """It cannot be undone where its module is asked for: that is refused, and so is all else until it is unloaded."""
    assert tried(container, LIBRARIES + LARGE, FAKE_CUDA_LAZY="1") == "0 480 2 0 0 3584"


CUBINS = """
image = cubin_of(512)
libraries = []
def one():
    library = c_void_p()
    told = cuda.cuLibraryLoadData(byref(library), image, None, None, 0, None, None, 0)
    if told == 0:
        libraries.append(library)
    return told
taken = take(one) * 2
others = take(lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(SIZE)))
failed = 0
if sys.argv[2] == "refused":
    os.environ["FAKE_CUDA_FAILS"] = "cuLibraryUnload"
    failed = sum(cuda.cuLibraryUnload(each) != 0 for each in libraries)
    os.environ["FAKE_CUDA_FAILS"] = "nothing"
left = take(one)
for each in libraries:
    assert cuda.cuLibraryUnload(each) == 0
print(taken, others, failed, left, used(), take(one) * 2)
"""


@pytest.mark.parametrize("end", ["at once", "refused"])
def test_what_a_librarys_image_says_that_it_takes_is_charged_before_it_is_loaded_which_may_be_late(
    container: Container, blind: dict[str, str], end: str
) -> None:
    """Nothing of it is on the card yet: its first kernel takes all, and then nobody can say no."""
    told = tried(container, ENDS + CUBINS, "cubin", end, FAKE_CUDA_LAZY="1", **blind)
    assert told == f"4096 0 {8 if end == 'refused' else 0} 0 0 4096"


UNUSED = """
def module(mib):
    made = c_void_p()
    assert cuda.cuModuleLoadData(byref(made), b"data %d" % (mib - 2)) == 0
module(400)
before, library = used(), c_void_p()
assert cuda.cuLibraryLoadData(byref(library), cubin_of(300), None, None, 0, None, None, 0) == 0
loaded = used() - before
module(4)
print(loaded, used() - before, cuda.cuLibraryUnload(library))
"""


def test_what_a_library_that_nobody_has_used_yet_is_charged_is_not_taken_off_what_only_nvml_shows(
    container: Container,
) -> None:
    """NVML showed as much less than the ledger had: 300 MiB beside it could be taken twice."""
    loaded, later, told = map(int, tried(container, ENDS + UNUSED, "cubin", FAKE_CUDA_LAZY="1").split())
    assert told == 0
    assert loaded >= 300
    assert later >= 304
