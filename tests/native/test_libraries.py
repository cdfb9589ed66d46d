"""Libraries of kernels, which the driver loads when their module is first asked for (simulated driver)."""

from .conftest import Container
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
