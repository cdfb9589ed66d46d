/*
 * Hooks of graphs with memory nodes.
 *
 * What counts is what the driver has reserved for all graphs of a card. What a graph's nodes ask for is reserved where the
 * driver may take it: when the graph is made or uploaded, and when it runs, unless that certainly takes no more. Graphs that run
 * one after the other share memory, and have each its own once they run at the same time.
 */
#include "memory/graph.h"

#include <stdlib.h>
#include <string.h>

#include "memory/local.h"
#include "memory/map.h"
#include "pay/capture.h"
#include "process/state.h"

enum { STREAMS = 32 };
enum { DEPTH = 256 /* of graphs inside graphs: deeper ones are refused, since nobody has looked into them */ };

/* Bytes on each card. */
typedef struct {
    int64_t on[HAMI_MAX_CARDS];
    bool any;
} needs;

/* What an executable graph's memory nodes need, and the epoch in which that was there last. */
typedef struct {
    needs bytes;
    _Atomic uint64_t epoch;
} memory;

static hami_map execs = HAMI_MAP_INIT; /* executable graph -> memory, as its tag */
static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int64_t charged[HAMI_MAX_CARDS]; /* bytes; changed under `settling`, as all that looks at runs */
static _Atomic uint64_t epoch = 1;              /* goes up when memory may have been given back */

static void settle(int card)
{
    uint64_t reserved = 0;
    pthread_mutex_lock(&settling);
    if (USE(cuDeviceGetGraphMemAttribute, hami_state.cards[card].device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) ==
        CUDA_SUCCESS) {
        hami_move(&hami_state.cards[card], HAMI_GRAPH, charged[card], (int64_t)reserved);
        charged[card] = (int64_t)reserved;
    }
    pthread_mutex_unlock(&settling);
}

void hami_graphs_refresh(bool trim)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        if (charged[i] == 0)
            continue;
        if (trim) {
            BEHIND(cuDeviceGraphMemTrim, hami_state.cards[i].device);
            atomic_fetch_add(&epoch, 1);
        }
        settle(i);
    }
}

/* ---- what a graph asks for ---- */

static bool add_graph(needs *sum, CUgraph graph, int depth);

static void add_bytes(needs *sum, const CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    const bool device = params->pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    const hami_card *card = device ? hami_card_of(params->pool.location.id) : hami_card_now();
    if (card == NULL)
        return;
    int64_t *on = &sum->on[card - hami_state.cards];
    if (__builtin_add_overflow(*on, hami_linear_bytes(params->bytes < 1 << 21 ? 1 << 21 : params->bytes), on))
        *on = INT64_MAX;
    sum->any = true;
}

/* A node's function is launched past the hooks of launches. False: its local memory is over the limit. */
static bool kernel_fits(CUgraphNode node)
{
    struct {
        CUfunction function;
        uint64_t shape[6];
        CUkernel kernel;
        CUcontext context;
        uint64_t spare[8];
    } params = {0};
    if (atomic_load(&hami_hot.waiting) == 0 || USE(cuGraphKernelNodeGetParams_v2, node, &params) != CUDA_SUCCESS)
        return true;
    return hami_local_fits(params.function) && hami_local_fits(params.kernel);
}

static bool add_node(needs *sum, CUgraphNode node, int depth)
{
    int type = -1;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {0};
    CUgraph child = NULL;
    if (USE(cuGraphNodeGetType, node, &type) != CUDA_SUCCESS)
        return true;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && USE(cuGraphMemAllocNodeGetParams, node, &params) == CUDA_SUCCESS)
        add_bytes(sum, &params);
    if (type == CU_GRAPH_NODE_TYPE_KERNEL)
        return kernel_fits(node);
    if (type == CU_GRAPH_NODE_TYPE_GRAPH && USE(cuGraphChildGraphNodeGetGraph, node, &child) == CUDA_SUCCESS)
        return add_graph(sum, child, depth + 1);
    return true;
}

/* Bytes that the memory nodes ask for, child graphs included. False: nobody can say, or it cannot be had. */
static bool add_graph(needs *sum, CUgraph graph, int depth)
{
    size_t count = 0;
    if (depth > DEPTH)
        return false;
    if (USE(cuGraphGetNodes, graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return true;
    CUgraphNode *nodes = malloc(count * sizeof(CUgraphNode));
    bool known = nodes != NULL && USE(cuGraphGetNodes, graph, nodes, &count) == CUDA_SUCCESS;
    for (size_t i = 0; known && i < count; i++)
        known = add_node(sum, nodes[i], depth);
    free(nodes);
    return known;
}

bool hami_graph_fits(CUgraph graph)
{
    needs unused = {0};
    return !atomic_load(&hami_active) || atomic_load(&hami_hot.waiting) == 0 || add_graph(&unused, graph, 0);
}

/* ---- reserving it ---- */

/* Of one card. What was reserved: 0 when the card's graph memory has room for it already (what one graph has freed serves the
   next), below 0 when it is refused. */
static int64_t begin_on(hami_card *card, int64_t bytes)
{
    uint64_t reserved = 0, used = 0;
    if (hami_take(card, HAMI_GRAPH, bytes))
        return bytes;
    if (USE(cuDeviceGetGraphMemAttribute, card->device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &reserved) != CUDA_SUCCESS ||
        USE(cuDeviceGetGraphMemAttribute, card->device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &used) != CUDA_SUCCESS)
        return -1;
    return reserved >= used && (int64_t)(reserved - used) >= bytes ? 0 : -1;
}

static void give_back(hami_card *card, int64_t bytes)
{
    hami_give(card, HAMI_GRAPH, bytes);
    hami_asked(card);
}

/* Replaces what was reserved by what the driver has taken. */
static void end(const needs *reserved)
{
    for (int i = 0; i < hami_state.card_count; i++) {
        if (reserved->any)
            settle(i);
        if (reserved->on[i] > 0)
            give_back(&hami_state.cards[i], reserved->on[i]);
    }
}

/* False: refused on one of the cards. */
static bool begin(const needs *asked, needs *reserved)
{
    *reserved = (needs){.any = true};
    for (int i = 0; i < hami_state.card_count; i++) {
        const int64_t got = asked->on[i] == 0 ? 0 : begin_on(&hami_state.cards[i], asked->on[i]);
        if (got < 0) {
            end(reserved);
            return false;
        }
        reserved->on[i] = got;
    }
    return true;
}

/* ---- hooks ---- */

static CUresult instantiated(CUresult result, CUgraphExec *out, const needs *asked)
{
    memory *kept = result == CUDA_SUCCESS && out != NULL ? calloc(1, sizeof *kept) : NULL;
    if (kept != NULL) {
        kept->bytes = *asked;
        hami_map_put(&execs, (hami_entry){.key = (uint64_t)(uintptr_t)*out, .tag = (uint64_t)(uintptr_t)kept});
    }
    return result;
}

#define INSTANTIATE(name, parameters, ...)                                      \
    CUresult name parameters                                                    \
    {                                                                           \
        needs asked = {0}, reserved;                                            \
        if (atomic_load(&hami_active) && !add_graph(&asked, graph, 0))          \
            return CUDA_ERROR_OUT_OF_MEMORY;                                    \
        if (!asked.any)                                                         \
            return BEHIND(name, __VA_ARGS__);                                   \
        if (!begin(&asked, &reserved))                                          \
            return CUDA_ERROR_OUT_OF_MEMORY;                                    \
        const CUresult result = instantiated(BEHIND(name, __VA_ARGS__), out, &asked); \
        end(&reserved);                                                         \
        return result;                                                          \
    }
INSTANTIATE(cuGraphInstantiate, (CUgraphExec * out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes), out,
            graph, error_node, log, log_bytes)
INSTANTIATE(cuGraphInstantiate_v2, (CUgraphExec * out, CUgraph graph, CUgraphNode *error_node, char *log, size_t log_bytes),
            out, graph, error_node, log, log_bytes)
INSTANTIATE(cuGraphInstantiateWithFlags, (CUgraphExec * out, CUgraph graph, unsigned long long flags), out, graph, flags)
INSTANTIATE(cuGraphInstantiateWithParams, (CUgraphExec * out, CUgraph graph, void *params), out, graph, params)
INSTANTIATE(cuGraphInstantiateWithParams_ptsz, (CUgraphExec * out, CUgraph graph, void *params), out, graph, params)

/* All runs since memory may have been given back. Under `settling`, as all that looks at it. */
static struct {
    uint64_t epoch;
    const memory *last;
    CUstream streams[STREAMS]; /* in which they were, those that are still there */
    int count; /* STREAMS: there may have been more */
    needs all; /* of all graphs that have run */
} runs;

/*
 * Nothing of an earlier run can be at work but what this one follows. To ask a stream that is being captured, or the legacy one while another
 * is, would spoil that capture, so then nobody is asked.
 */
static bool follows(CUstream stream)
{
    bool alone = runs.count > 0 && runs.count < STREAMS && !hami_capturing();
    for (int i = 0; alone && i < runs.count; i++)
        alone = runs.streams[i] == stream || USE(cuStreamQuery, runs.streams[i]) == CUDA_SUCCESS;
    return alone;
}

static bool knows(CUstream stream)
{
    for (int i = 0; i < runs.count; i++) {
        if (runs.streams[i] == stream)
            return true;
    }
    return false;
}

/* Whether a run takes no more than there is, if it has its memory to itself. */
static bool takes_no_more(const memory *of, CUstream stream, uint64_t now)
{
    if (runs.epoch != now || atomic_load(&of->epoch) != now)
        return false;
    bool all_have_theirs = true;
    for (int i = 0; i < hami_state.card_count; i++)
        all_have_theirs &= runs.all.on[i] <= charged[i];
    return all_have_theirs || runs.last == of || follows(stream);
}

static void note_run(memory *of, CUstream stream, uint64_t now)
{
    if (now < runs.epoch)
        return; /* memory was given back while it ran: it begins anew at its next run */
    if (runs.epoch != now)
        memset(&runs, 0, sizeof runs);
    runs.epoch = now;
    if (!knows(stream) && runs.count < STREAMS)
        runs.streams[runs.count++] = stream;
    runs.last = of;
    for (int i = 0; atomic_load(&of->epoch) != now && i < hami_state.card_count; i++)
        runs.all.on[i] += of->bytes.on[i];
    atomic_store(&of->epoch, now);
}

void hami_graph_pause(void)
{
    if (!atomic_load(&hami_active))
        return; /* as hami_graph_stream_gone */
    pthread_mutex_lock(&settling);
    pthread_mutex_unlock(&settling);
}

void hami_graph_stream_gone(CUstream stream)
{
    if (!atomic_load(&hami_active))
        return; /* in a forked child: another thread may have had the lock */
    pthread_mutex_lock(&settling);
    for (int i = 0; i < runs.count && runs.count < STREAMS; i++) {
        if (runs.streams[i] == stream)
            runs.streams[i] = runs.streams[--runs.count];
    }
    pthread_mutex_unlock(&settling);
}

void hami_graph_context_gone(void)
{
    pthread_mutex_lock(&settling);
    runs.count = STREAMS;
    pthread_mutex_unlock(&settling);
}

CUresult hami_graph_run(CUgraphExec exec, CUstream stream, CUresult (*run)(CUgraphExec, CUstream))
{
    hami_entry entry;
    needs reserved = {0};
    if (!atomic_load(&hami_active) || !hami_map_get(&execs, (uint64_t)(uintptr_t)exec, false, &entry))
        return run(exec, stream);
    memory *of = (memory *)(uintptr_t)entry.tag;
    const uint64_t now = atomic_load(&epoch);
    pthread_mutex_lock(&settling);
    const bool free_of_charge = takes_no_more(of, stream, now);
    if (free_of_charge)
        note_run(of, stream, now);
    pthread_mutex_unlock(&settling);
    if (free_of_charge)
        return run(exec, stream);
    if (!begin(&of->bytes, &reserved))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = run(exec, stream);
    end(&reserved);
    pthread_mutex_lock(&settling);
    if (result == CUDA_SUCCESS)
        note_run(of, stream, now);
    pthread_mutex_unlock(&settling);
    return result;
}

static CUresult upload(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphUpload, exec, stream);
}

static CUresult upload_ptsz(CUgraphExec exec, CUstream stream)
{
    return BEHIND(cuGraphUpload_ptsz, exec, stream);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    return hami_graph_run(exec, stream, upload);
}

CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
    return hami_graph_run(exec, stream, upload_ptsz);
}

static void forget(const memory *of)
{
    pthread_mutex_lock(&settling);
    for (int i = 0; atomic_load(&of->epoch) == runs.epoch && i < hami_state.card_count; i++)
        runs.all.on[i] -= of->bytes.on[i];
    if (runs.last == of)
        runs.last = NULL;
    pthread_mutex_unlock(&settling);
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    hami_entry entry;
    if (!atomic_load(&hami_active))
        return BEHIND(cuGraphExecDestroy, exec);
    const bool ours = hami_map_get(&execs, (uint64_t)(uintptr_t)exec, true, &entry);
    const CUresult result = BEHIND(cuGraphExecDestroy, exec);
    if (ours && result != CUDA_SUCCESS)
        hami_map_put(&execs, entry);
    if (!ours || result != CUDA_SUCCESS)
        return result;
    memory *of = (memory *)(uintptr_t)entry.tag;
    forget(of);
    end(&(needs){.any = true});
    free(of);
    return result;
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    const CUresult result = BEHIND(cuDeviceGraphMemTrim, device);
    hami_card *card = atomic_load(&hami_active) ? hami_card_of(device) : NULL;
    if (card != NULL) {
        atomic_fetch_add(&epoch, 1);
        settle((int)(card - hami_state.cards));
    }
    return result;
}
