/*
 * Gates: a stream waits on a word in host memory, so that launches can be queued behind it and begin all at once, with nothing of the host's delays
 * between them. One is closed at a time in a process.
 */
#ifndef HAMI_GATE_H
#define HAMI_GATE_H

#include <stdbool.h>
#include <stdint.h>

/* The stream that waits on `word` is let go when `ticket` is there: by hami_gate_open, or by the watch thread when that takes too long. */
void hami_gate_close(uint32_t *word, uint32_t ticket, int64_t patience_ns);

/* False: it was opened by force. */
bool hami_gate_open(uint32_t *word, uint32_t ticket);

/* Opens a gate that has been closed for too long; for the watch thread. True while a gate is closed. */
bool hami_gate_watch(void);

#endif
