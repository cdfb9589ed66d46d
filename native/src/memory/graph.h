/* Memory that the driver keeps for the memory nodes of graphs. */
#ifndef HAMI_MEMORY_GRAPH_H
#define HAMI_MEMORY_GRAPH_H

#include <stdbool.h>

/* Reads again what the graphs of this process hold, and settles it; `trim`: gives back first what none of them uses. */
void hami_graphs_refresh(bool trim);

#endif
