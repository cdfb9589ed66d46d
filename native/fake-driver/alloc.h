/* What has been taken, by address or handle. Under fake_lock. */
#ifndef HAMI_FAKE_ALLOC_H
#define HAMI_FAKE_ALLOC_H

#include "fake.h"

#define MIB ((int64_t)1 << 20)

enum { A_LINEAR = 1, A_HOST, A_MANAGED, A_POOLED, A_VMM, A_MAP, A_ARRAY, A_MIPMAP, A_EXTERNAL, A_GRAPHMEM };

struct alloc {
    uint64_t key; /* address or handle; 0: free */
    int64_t bytes;
    int card;
    int kind;
    int holders;
    struct alloc *backing; /* of a mapping, or of a handle that was imported */
    CUmemoryPool pool;
};

void fake_unhold(struct alloc *entry); /* of physical memory: the last one gives it back */

struct alloc *fake_add(struct alloc entry);
struct alloc *fake_live_alloc(uint64_t key, int kind); /* NULL: no such thing */
struct alloc *fake_mapping(CUdeviceptr address);       /* that it lies in */
void fake_drop(struct alloc *entry);

/* A pool's and a graph's memory given back one by one: pool.c. */
void fake_pool_give(struct alloc *entry);
void fake_graph_give(const struct alloc *entry);

/* Linear memory of which a descriptor for other devices is open here: it is given back when that is closed. */
bool fake_kept(const struct alloc *entry);
void fake_give_linear(int card, int64_t bytes);

/* Memory of another process is no longer used here. Under fake_lock. False: there is none with that address or handle. */
bool fake_return(uint64_t key);

API CUresult cuMemFree_v2(CUdeviceptr address);

#define ENTER                                  \
    fake_context *context = fake_current();    \
    if (!fake_ready())                         \
        return CUDA_ERROR_NOT_INITIALIZED;     \
    if (context == NULL)                       \
        return CUDA_ERROR_INVALID_CONTEXT;     \
    pthread_mutex_lock(&fake_lock)

#endif
