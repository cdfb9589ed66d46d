/* Memory that the driver keeps for the memory nodes of graphs. */
#ifndef HAMI_MEMORY_GRAPH_H
#define HAMI_MEMORY_GRAPH_H

#include <stdbool.h>

#include "hami/cuda_abi.h"

/* Reads again what the graphs of this process hold, and settles it; `trim`: gives back first what none of them uses. */
void hami_graphs_refresh(bool trim);

/* The local memory of a graph's functions is in the ledger, if need be from now on. False: over the limit, or nobody can say. */
bool hami_graph_fits(CUgraph graph);

/* Something begins to be captured: afterwards no stream is being asked here. */
void hami_graph_pause(void);

/* A stream, or a context with all of its own, is no longer there to be asked. */
void hami_graph_stream_gone(CUstream stream);
void hami_graph_context_gone(void);

#endif
