/* Graphs, and streams that record them. See fake.h. */
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "queue.h"

struct node *fake_add_node(struct CUgraph_st *g, int type, int64_t bytes)
{
    struct node *n = calloc(1, sizeof *n);
    n->type = type;
    n->bytes = bytes;
    n->next = g->list;
    g->list = n;
    g->nodes++;
    return n;
}

static void add_memory(struct CUgraph_st *g, int card, int64_t bytes)
{
    fake_add_node(g, CU_GRAPH_NODE_TYPE_MEM_ALLOC, bytes)->card = card;
    g->memory[card] += bytes;
}

bool fake_is_capturing(CUstream handle)
{
    return fake_stream_of(handle)->capture != NULL;
}

CUdeviceptr fake_capture_alloc(CUstream handle, int64_t bytes)
{
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *g = fake_stream_of(handle)->capture;
    const int card = fake_card_of(handle);
    add_memory(g, card, bytes);
    const CUdeviceptr address = fake_graph_address(card, bytes);
    pthread_mutex_unlock(&fake_lock);
    return address;
}

/* What a graph gives back it only needs while it runs. */
void fake_capture_free(CUstream handle, CUdeviceptr address)
{
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *g = fake_stream_of(handle)->capture;
    const struct alloc *entry = fake_live_alloc(address, A_GRAPHMEM);
    if (entry != NULL) {
        g->memory[entry->card] -= entry->bytes;
        g->passing += entry->bytes;
    }
    pthread_mutex_unlock(&fake_lock);
}

enum { RUNNING = 64 };

static struct {
    CUstream stream;
    int64_t bytes; /* 0: free */
} running[RUNNING];

int64_t fake_graph_busy(void)
{
    int64_t sum = 0;
    for (int i = 0; i < RUNNING; i++) {
        if (running[i].bytes != 0 && fake_stream_idle(running[i].stream))
            running[i].bytes = 0;
        sum += running[i].bytes;
    }
    return sum;
}

/* Graphs of one stream follow each other and share their memory; those of streams that are at work have their own. Under the lock. */
static bool has_passing(CUstream handle, int64_t bytes)
{
    int64_t sum = 0;
    int mine = -1;
    for (int i = 0; i < RUNNING; i++) {
        if (running[i].bytes != 0 && running[i].stream != handle && fake_stream_idle(running[i].stream))
            running[i].bytes = 0;
        if (running[i].bytes == 0 ? mine < 0 : running[i].stream == handle)
            mine = i;
    }
    if (mine < 0)
        return false;
    if (running[mine].bytes == 0 || running[mine].bytes < bytes)
        running[mine].bytes = bytes;
    running[mine].stream = handle;
    for (int i = 0; i < RUNNING; i++)
        sum += running[i].bytes;
    return fake_graph_room(0, sum);
}

API CUresult cuGraphCreate(CUgraph *out, unsigned int flags)
{
    (void)flags;
    *out = calloc(1, sizeof **out);
    return CUDA_SUCCESS;
}

static __thread char here; /* its address is this thread's */

API CUresult cuStreamBeginCaptureToGraph(CUstream handle, CUgraph to, const CUgraphNode *nodes, const void *edges, size_t count, int mode)
{
    (void)nodes, (void)edges, (void)count;
    pthread_mutex_lock(&fake_lock);
    stream *s = fake_stream_of(handle);
    if (s->capture != NULL)
        return fake_leave(FAKE_NOT_SO);
    to->mode = mode;
    to->thread = &here;
    s->capture = to;
    return fake_leave(CUDA_SUCCESS);
}

API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode)
{
    return cuStreamBeginCaptureToGraph(handle, calloc(1, sizeof(struct CUgraph_st)), NULL, NULL, 0, mode);
}

API CUresult cuStreamBeginCapture_v2_ptsz(CUstream handle, int mode)
{
    return cuStreamBeginCapture_v2(fake_own(handle), mode);
}

API CUresult cuStreamEndCapture(CUstream handle, CUgraph *out)
{
    stream *s = fake_stream_of(handle);
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *made = s->capture;
    if (made == NULL)
        return fake_leave(FAKE_NOT_SO);
    if (made->mode != CU_STREAM_CAPTURE_MODE_RELAXED && made->thread != &here)
        return fake_leave(FAKE_WRONG_THREAD);
    s->capture = NULL;
    *out = made->spoilt ? NULL : made;
    return fake_leave(made->spoilt ? FAKE_SPOILT : CUDA_SUCCESS);
}

API CUresult cuStreamEndCapture_ptsz(CUstream handle, CUgraph *out)
{
    return cuStreamEndCapture(fake_own(handle), out);
}

API CUresult cuStreamIsCapturing(CUstream handle, int *status)
{
    *status = fake_is_capturing(handle);
    return CUDA_SUCCESS;
}

API CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count,
                                    CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    (void)before, (void)count;
    pthread_mutex_lock(&fake_lock);
    add_memory(g, params->pool.location.id, (int64_t)params->bytes);
    *out = (CUgraphNode)g->list;
    params->address = fake_graph_address(params->pool.location.id, (int64_t)params->bytes);
    return fake_leave(CUDA_SUCCESS);
}

/* Its memory nodes are the parent's from then on. */
API CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count, CUgraph child)
{
    (void)before, (void)count;
    struct node *n = fake_add_node(g, CU_GRAPH_NODE_TYPE_GRAPH, 0);
    n->child = child;
    for (int card = 0; card < SIM_LIVE_CARDS; card++)
        g->memory[card] += child->memory[card];
    *out = (CUgraphNode)n;
    return CUDA_SUCCESS;
}

API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *out)
{
    *out = ((struct node *)node)->child;
    return CUDA_SUCCESS;
}

API CUresult cuGraphGetNodes(CUgraph g, CUgraphNode *nodes, size_t *count)
{
    size_t found = 0;
    for (struct node *n = g->list; n != NULL; n = n->next, found++) {
        if (nodes != NULL && found < *count)
            nodes[found] = (CUgraphNode)n;
    }
    *count = found;
    return CUDA_SUCCESS;
}

API CUresult cuGraphNodeGetType(CUgraphNode node, int *type)
{
    *type = ((struct node *)node)->type;
    return CUDA_SUCCESS;
}

API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *out)
{
    memset(out, 0, sizeof *out);
    out->bytes = (size_t)((struct node *)node)->bytes;
    out->pool.location = (CUmemLocation){CU_MEM_LOCATION_TYPE_DEVICE, ((struct node *)node)->card};
    return CUDA_SUCCESS;
}

/* Of what it is given, the function alone, which is first. */
API CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count, const void *params)
{
    (void)before, (void)count;
    struct node *n = fake_add_node(g, CU_GRAPH_NODE_TYPE_KERNEL, 0);
    memcpy(&n->function, params, sizeof n->function);
    *out = (CUgraphNode)n;
    return CUDA_SUCCESS;
}

/* What runs inside a conditional node has graphs of its own, which are given out here. */
API CUresult cuGraphAddNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count, void *params)
{
    struct {
        int type, reserved[3];
        uint64_t handle;
        int kind;
        unsigned int size;
        CUgraph *graphs;
    } given;
    memcpy(&given, params, sizeof given);
    if (given.type == CU_GRAPH_NODE_TYPE_KERNEL)
        return cuGraphAddKernelNode_v2(out, g, before, count, (const char *)params + 16);
    if (given.type != CU_GRAPH_NODE_TYPE_CONDITIONAL)
        return CUDA_ERROR_NOT_SUPPORTED;
    given.graphs = calloc(given.size, sizeof(CUgraph));
    for (unsigned int i = 0; i < given.size; i++)
        cuGraphCreate(&given.graphs[i], 0);
    memcpy(params, &given, sizeof given);
    *out = (CUgraphNode)fake_add_node(g, given.type, 0);
    return CUDA_SUCCESS;
}

API CUresult cuGraphAddNode_v2(CUgraphNode *out, CUgraph g, const CUgraphNode *before, const void *edges, size_t count, void *params)
{
    (void)edges;
    return cuGraphAddNode(out, g, before, count, params);
}

API CUresult cuGraphAddNode_v3(CUgraphNode *out, CUgraph g, const CUgraphNode *before, const void *edges, size_t count, void *params)
{
    return cuGraphAddNode_v2(out, g, before, edges, count, params);
}

API CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t count, const void *params)
{
    return cuGraphAddKernelNode_v2(out, g, before, count, params);
}

API CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const void *params)
{
    memcpy(&((struct node *)node)->function, params, sizeof(void *));
    return CUDA_SUCCESS;
}

enum { KERNEL_PARAMS_BYTES = 72 };

API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, void *out)
{
    memset(out, 0, KERNEL_PARAMS_BYTES);
    memcpy(out, &((struct node *)node)->function, sizeof(void *));
    return CUDA_SUCCESS;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph g, unsigned long long flags)
{
    (void)flags;
    struct CUgraph_st *copy = malloc(sizeof *copy);
    *copy = *g;
    *out = (CUgraphExec)copy;
    return CUDA_SUCCESS;
}

API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph g, CUgraphNode *error, char *log, size_t size)
{
    (void)error, (void)log, (void)size;
    return cuGraphInstantiateWithFlags(out, g, 0);
}

/* Of any node: `params` begin with the function. */
API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const void *params)
{
    (void)node;
    memcpy(&((struct CUgraph_st *)exec)->replaced, params, sizeof(void *));
    return CUDA_SUCCESS;
}

API CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, void *params)
{
    return cuGraphExecKernelNodeSetParams_v2(exec, node, (const char *)params + 16);
}

/* The nodes are the other graph's from then on. */
API CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph g, void *result)
{
    (void)result;
    ((struct CUgraph_st *)exec)->list = g->list;
    return CUDA_SUCCESS;
}

API CUresult cuGraphExecUpdate(CUgraphExec exec, CUgraph g, CUgraphNode *error, int *result)
{
    (void)error;
    return cuGraphExecUpdate_v2(exec, g, result);
}

API CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
    (void)node;
    return cuGraphExecUpdate_v2(exec, child, NULL);
}

API CUresult cuGraphUpload(CUgraphExec exec, CUstream handle)
{
    (void)handle;
    pthread_mutex_lock(&fake_lock);
    struct CUgraph_st *g = (struct CUgraph_st *)exec;
    for (int card = 0; card < fake_card_count; card++) {
        if (!fake_graph_memory(card, g->memory[card]))
            return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
        g->memory[card] = 0;
    }
    return fake_leave(CUDA_SUCCESS);
}

static bool have_local(const struct CUgraph_st *g)
{
    pthread_mutex_lock(&fake_lock);
    bool have = g->replaced == NULL || fake_local(g->replaced);
    for (const struct node *n = g->list; have && n != NULL; n = n->next)
        have = n->function == NULL || fake_local(n->function);
    pthread_mutex_unlock(&fake_lock);
    return have;
}

API CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle)
{
    const struct CUgraph_st *g = (const struct CUgraph_st *)exec;
    CUresult result = cuGraphUpload(exec, handle);
    if (result == CUDA_SUCCESS && !have_local(g))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS && g->passing > 0) {
        pthread_mutex_lock(&fake_lock);
        result = has_passing(handle, g->passing) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
        pthread_mutex_unlock(&fake_lock);
    }
    return result != CUDA_SUCCESS ? result : fake_run(handle, g->duration_ns, g->parts, RUNS);
}

API CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream handle)
{
    return cuGraphLaunch(exec, fake_own(handle));
}

API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    if (fake_fails("cuGraphExecDestroy"))
        return CUDA_ERROR_INVALID_VALUE;
    free(exec);
    return CUDA_SUCCESS;
}

API CUresult cuGraphDestroy(CUgraph g)
{
    (void)g;
    return CUDA_SUCCESS;
}
