/*
 * Hooks of what puts functions into graphs that nobody looks into later.
 *
 * A graph's functions are launched past the hooks of launches, so what they need is looked at where they come into it: in graph.c when an executable
 * one is made of it, here when one takes another's place. What memory nodes need cannot be changed so: the driver refuses that. And here, too, when
 * one is put into what a conditional node runs: of those graphs the driver tells only once, when it makes the node.
 */
#include "memory/graph.h"
#include "memory/local.h"
#include "memory/map.h"

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

typedef struct {
    uint64_t handle;
    int kind;
    unsigned int count;
    CUgraph *graphs; /* the driver's, once there is the node */
} conditional_params;

/* Of any node. */
typedef struct {
    int type, reserved[3];
    union {
        kernel_params_v2 kernel;
        CUgraph child;
        conditional_params conditional;
    };
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

/* ---- one takes another's place ---- */

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

/* In a graph it is looked at as well when that is made executable; but where a conditional node runs it, not. */
REPLACE(cuGraphKernelNodeSetParams, fits(params), (CUgraphNode node, const void *params), node, params)
REPLACE(cuGraphKernelNodeSetParams_v2, fits_v2(params), (CUgraphNode node, const void *params), node, params)
REPLACE(cuGraphNodeSetParams, node_fits(params), (CUgraphNode node, void *params), node, params)
REPLACE(cuGraphNodeSetParams_v2, node_fits(params), (CUgraphNode node, void *params), node, params)

/* ---- into what a conditional node runs ---- */

static hami_map conditional = HAMI_MAP_INIT; /* graph that one runs; it goes with the node, which nobody tells */

static bool is_conditional(CUgraph graph)
{
    hami_entry entry;
    return atomic_load(&hami_active) && hami_map_get(&conditional, (uint64_t)(uintptr_t)graph, false, &entry);
}

static bool any_fits(CUgraph graph, const node_params *node)
{
    if (node == NULL || !is_conditional(graph))
        return true;
    return node->type == CU_GRAPH_NODE_TYPE_GRAPH ? hami_graph_fits(node->child) : node_fits(node);
}

static CUresult added(CUresult result, const node_params *node)
{
    if (result != CUDA_SUCCESS || node == NULL || node->type != CU_GRAPH_NODE_TYPE_CONDITIONAL || !atomic_load(&hami_active))
        return result;
    for (unsigned int i = 0; node->conditional.graphs != NULL && i < node->conditional.count; i++)
        hami_map_put(&conditional, (hami_entry){.key = (uint64_t)(uintptr_t)node->conditional.graphs[i]});
    return result;
}

#define ADD(name, look, parameters, ...)                       \
    CUresult name parameters                                   \
    {                                                          \
        if (is_conditional(graph) && !(look))                  \
            return CUDA_ERROR_OUT_OF_MEMORY;                   \
        return BEHIND(name, __VA_ARGS__);                      \
    }
ADD(cuGraphAddKernelNode, fits(params), (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, size_t count, const void *params), out,
    graph, before, count, params)
ADD(cuGraphAddKernelNode_v2, fits_v2(params), (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, size_t count, const void *params),
    out, graph, before, count, params)
ADD(cuGraphAddChildGraphNode, hami_graph_fits(child), (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, size_t count, CUgraph child),
    out, graph, before, count, child)

#define ADD_ANY(name, parameters, ...)                         \
    CUresult name parameters                                   \
    {                                                          \
        if (!any_fits(graph, params))                          \
            return CUDA_ERROR_OUT_OF_MEMORY;                   \
        return added(BEHIND(name, __VA_ARGS__), params);       \
    }
ADD_ANY(cuGraphAddNode, (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, size_t count, void *params), out, graph, before, count,
        params)
ADD_ANY(cuGraphAddNode_v2, (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, const void *edges, size_t count, void *params), out,
        graph, before, edges, count, params)
ADD_ANY(cuGraphAddNode_v3, (CUgraphNode * out, CUgraph graph, const CUgraphNode *before, const void *edges, size_t count, void *params), out,
        graph, before, edges, count, params)
