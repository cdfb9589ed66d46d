/*
 * Hooks of what puts other functions into an executable graph.
 *
 * A graph's functions are launched past the hooks of launches, so what they need is looked at where they come into it: in graph.c when it is
 * made, here when one takes another's place. What memory nodes need cannot be changed so: the driver refuses that.
 */
#include "memory/graph.h"
#include "memory/local.h"

/* Of the driver's structs what both versions begin with; the second goes on. */
typedef struct {
    CUfunction function;
    unsigned int grid[3], block[3], shared;
    void **params, **extra;
} kernel_params;

typedef struct {
    kernel_params first;
    CUkernel kernel; /* in place of the function, of a library */
    CUcontext context;
} kernel_params_v2;

static_assert(sizeof(kernel_params) == 56 && offsetof(kernel_params_v2, kernel) == 56, "as the driver has them");

/* Of any node. */
typedef struct {
    int type, reserved[3];
    kernel_params_v2 kernel; /* where it is one */
} node_params;

static bool fits(const void *params)
{
    return params == NULL || hami_local_fits(((const kernel_params *)params)->function);
}

static bool fits_v2(const void *params)
{
    return fits(params) && (params == NULL || hami_local_fits(((const kernel_params_v2 *)params)->kernel));
}

static bool node_fits(const void *params)
{
    const node_params *node = params;
    return node == NULL || node->type != CU_GRAPH_NODE_TYPE_KERNEL || fits_v2(&node->kernel);
}

#define REPLACE(name, look, parameters, ...)                       \
    CUresult name parameters                                       \
    {                                                              \
        return (look) ? BEHIND(name, __VA_ARGS__) : CUDA_ERROR_OUT_OF_MEMORY; \
    }
REPLACE(cuGraphExecKernelNodeSetParams, fits(params), (CUgraphExec exec, CUgraphNode node, const void *params), exec, node, params)
REPLACE(cuGraphExecKernelNodeSetParams_v2, fits_v2(params), (CUgraphExec exec, CUgraphNode node, const void *params), exec, node,
        params)
REPLACE(cuGraphExecNodeSetParams, node_fits(params), (CUgraphExec exec, CUgraphNode node, void *params), exec, node, params)
REPLACE(cuGraphExecChildGraphNodeSetParams, hami_graph_fits(child), (CUgraphExec exec, CUgraphNode node, CUgraph child), exec, node,
        child)
REPLACE(cuGraphExecUpdate, hami_graph_fits(graph), (CUgraphExec exec, CUgraph graph, CUgraphNode *error_node, int *result), exec,
        graph, error_node, result)
REPLACE(cuGraphExecUpdate_v2, hami_graph_fits(graph), (CUgraphExec exec, CUgraph graph, void *result), exec, graph, result)
