"""Local memory of kernels where functions come and go, and where there are several contexts."""

import pytest

from .conftest import Container, launches
from .test_ways_round import tried

MODULES = """
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda)
def load():
    module = c_void_p()
    assert cuda.cuModuleLoadData(byref(module), b"code") == 0
    return module
def function(module, name):
    found = c_void_p()
    assert cuda.cuModuleGetFunction(byref(found), module, name) == 0
    return found
def launch(found):
    return cuda.cuLaunchKernel(found, 1, 1, 1, 32, 1, 1, 0, None, None, None)
"""
TOO_LARGE = 'b"local_65536"'
REUSED = f"""
first = load()
before = function(first, b"local_2048")
launched = launch(before) if sys.argv[1] == "launched" else 0
assert cuda.cuModuleUnload(first) == 0
after = function(load(), {TOO_LARGE})
assert after.value == before.value
print(launched, launch(after))
"""


@pytest.mark.parametrize("how", ["launched", "never"])
@pytest.mark.parametrize("cores", ["0", "50"])
def test_a_function_at_the_address_of_one_that_was_unloaded_is_held_to_what_it_needs_itself(
    container: Container, how: str, cores: str
) -> None:
    limits = {"CUDA_DEVICE_SM_LIMIT": cores, "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, MODULES + REUSED, how, **limits) == "0 2"


MANY = f"""
place, many = load(), load()
launch(function(place, b"small"))
for number in range(512):
    function(many, b"never_%d" % number)
assert cuda.cuModuleUnload(many) == cuda.cuModuleUnload(place) == 0
print(launch(function(load(), {TOO_LARGE})))
"""
"""The last function is where the first was, which nobody remembers: it was launched."""


def test_functions_that_were_unloaded_leave_the_room_to_others(container: Container) -> None:
    """So many are remembered that the driver was not to be asked about."""
    assert tried(container, MODULES + MANY, FAKE_CUDA_LAZY="1") == "2"


LIBRARY = """
cuda = ctypes.CDLL("libcuda.so.1")
contexts, library, kernel = start(cuda, 2 if sys.argv[1] == "before" else 1), c_void_p(), c_void_p()
def launch(card):
    assert cuda.cuCtxSetCurrent(contexts[card]) == 0
    return cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, None, None, None)
assert cuda.cuLibraryLoadData(byref(library), b"code", None, None, 0, None, None, 0) == 0
assert cuda.cuLibraryGetKernel(byref(kernel), library, b"local_8192") == 0
told = [launch(0), launch(0)]
if len(contexts) == 1:
    contexts.append(c_void_p())
    assert cuda.cuDevicePrimaryCtxRetain(byref(contexts[1]), 1) == 0
print(*told, launch(1), launch(0))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cores", ["0", "50"])
def test_a_kernel_of_a_library_is_held_to_the_limit_of_each_card_that_it_is_launched_on(
    container: Container, when: str, cores: str
) -> None:
    """1848 MiB fit beside a context in 4 GiB and not in 2; the second context is made before a launch or after."""
    limits = {"CUDA_DEVICE_MEMORY_LIMIT_1": "2048m", "CUDA_DEVICE_SM_LIMIT": cores}
    assert tried(container, LIBRARY, when, GPU_CORE_UTILIZATION_POLICY="force", **limits) == "0 0 2 0"


REPLACED = f"""
stream, graph, exec = c_void_p(), c_void_p(), c_void_p()
module = load()
small, large = function(module, b"small"), function(module, {TOO_LARGE})
assert cuda.cuStreamCreate(byref(stream), 1) == 0
assert cuda.cuStreamBeginCapture_v2(stream, 2) == 0
assert cuda.cuLaunchKernel(small, 1, 1, 1, 32, 1, 1, 0, stream, None, None) == 0
assert cuda.cuStreamEndCapture(stream, byref(graph)) == 0
assert cuda.cuGraphInstantiateWithFlags(byref(exec), graph, c_uint64(0)) == 0
def replace(found):
    params = struct.pack("<Q7I4xQQQQ", found.value, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0, 0)
    if sys.argv[1] == "node":
        return cuda.cuGraphExecNodeSetParams(exec, None, bytes(16) + params)
    return cuda.cuGraphExecKernelNodeSetParams_v2(exec, None, params)
print(replace(large), cuda.cuGraphLaunch(exec, stream), replace(small), cuda.cuGraphLaunch(exec, stream))
"""


BUILT = f"""
module, stream = load(), c_void_p()
small, large = function(module, b"small"), function(module, {TOO_LARGE})
def graph(found, inside=False):
    made, params = c_void_p(), struct.pack("<Q7I4xQQQQ", found.value, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0, 0)
    assert cuda.cuGraphCreate(byref(made), 0) == 0
    assert cuda.cuGraphAddKernelNode_v2(byref(c_void_p()), made, None, c_size_t(0), params) == 0
    if inside:
        outer = c_void_p()
        assert cuda.cuGraphCreate(byref(outer), 0) == 0
        assert cuda.cuGraphAddChildGraphNode(byref(c_void_p()), outer, None, c_size_t(0), made) == 0
        return outer
    return made
def instantiate(made):
    run = c_void_p()
    return cuda.cuGraphInstantiateWithFlags(byref(run), made, c_uint64(0)), run
run = instantiate(graph(small))[1]
ways = {{"instantiated": lambda found: instantiate(graph(found))[0],
        "inside": lambda found: instantiate(graph(found, True))[0],
        "update": lambda found: cuda.cuGraphExecUpdate_v2(run, graph(found), None),
        "update of old": lambda found: cuda.cuGraphExecUpdate(run, graph(found), None, None),
        "update inside": lambda found: cuda.cuGraphExecUpdate_v2(run, graph(found, True), None),
        "child": lambda found: cuda.cuGraphExecChildGraphNodeSetParams(run, None, graph(found))}}
way = ways[sys.argv[1]]
print(way(large), cuda.cuGraphLaunch(run, stream), way(small), cuda.cuGraphLaunch(run, stream))
"""


@pytest.mark.parametrize("how", ["instantiated", "inside", "update", "update of old", "update inside", "child"])
def test_a_function_of_a_graph_that_was_built_and_not_captured_is_held_to_the_limit(
    container: Container, how: str
) -> None:
    assert tried(container, MODULES + BUILT, how) == "2 0 0 0"


@pytest.mark.parametrize("how", ["kernel", "node"])
def test_a_function_that_takes_anothers_place_in_an_executable_graph_is_held_to_the_limit(
    container: Container, how: str
) -> None:
    assert tried(container, MODULES + REPLACED, how) == "2 0 0 0"


CONDITION = f"""
module = load()
small, large = function(module, b"small"), function(module, {TOO_LARGE})
def kernel(found):
    return struct.pack("<Q7I4xQQQQ", found.value, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0, 0)
def made():
    graph = c_void_p()
    assert cuda.cuGraphCreate(byref(graph), 0) == 0
    return graph
def body():
    asked = ctypes.create_string_buffer(struct.pack("<i12xQiIQQ", 13, 1, 0, 1, 0, 0), 256)
    assert cuda.cuGraphAddNode_v2(byref(c_void_p()), made(), None, None, c_size_t(0), asked) == 0
    graphs = struct.unpack_from("<Q", asked, 32)[0]
    return c_void_p(ctypes.cast(graphs, ctypes.POINTER(c_void_p))[0])
def by_node(graph, found, name="cuGraphAddKernelNode_v2"):
    return cuda[name](byref(c_void_p()), graph, None, c_size_t(0), kernel(found))
def by_any(graph, found):
    return cuda.cuGraphAddNode(byref(c_void_p()), graph, None, c_size_t(0), bytes(16) + kernel(found))
def by_any_with_edges(graph, found, name="cuGraphAddNode_v2"):
    return cuda[name](byref(c_void_p()), graph, None, None, c_size_t(0), bytes(16) + kernel(found))
def by_any_v3(graph, found):
    return by_any_with_edges(graph, found, "cuGraphAddNode_v3")
def by_child(graph, found):
    child = made()
    assert by_node(child, found) == 0
    return cuda.cuGraphAddChildGraphNode(byref(c_void_p()), graph, None, c_size_t(0), child)
def by_change(graph, found):
    node = c_void_p()
    assert cuda.cuGraphAddKernelNode_v2(byref(node), graph, None, c_size_t(0), kernel(small)) == 0
    return cuda.cuGraphKernelNodeSetParams_v2(node, kernel(found))
ways = {{"node": by_node, "old": lambda graph, found: by_node(graph, found, "cuGraphAddKernelNode"), "any": by_any,
        "edges": by_any_with_edges, "v3": by_any_v3, "child": by_child, "change": by_change}}
print(ways[sys.argv[1]](body(), large), ways[sys.argv[1]](body(), small), by_node(made(), large))
"""


@pytest.mark.parametrize("how", ["node", "old", "any", "edges", "v3", "child", "change"])
def test_a_function_of_what_a_conditional_node_runs_is_held_to_the_limit(container: Container, how: str) -> None:
    """Nobody can look into that when the graph is made; into others one can, and there it is looked at then."""
    assert tried(container, MODULES + CONDITION, how) == "2 0 0"


@pytest.mark.realtime
@pytest.mark.parametrize("cores", ["0", "95"])
def test_functions_that_wait_keep_the_launches_of_others_on_the_short_way(container: Container, cores: str) -> None:
    """Off it a launch took 33 ns more without a limit, 86 under one. Each of the dozen waits until its first launch."""
    limits = {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "CUDA_DEVICE_SM_LIMIT": cores, "GPU_CORE_UTILIZATION_POLICY": "force"}
    made, long_way = launches(container, 12, **limits, FAKE_CUDA_LAZY="1")
    # A busy machine measures up to a third of them; where they wait each time it is all.
    assert 12 <= long_way < made // 2
