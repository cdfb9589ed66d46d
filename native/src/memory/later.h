/*
 * Linear memory that a program frees in a stream's order: charged until the stream has come there.
 *
 * cuMemFreeAsync is for what a pool gave, and takes what cuMemAlloc gave as well. That is back on the card when the stream has come to the free, which
 * may be never: a stream may wait for a word.
 */
#ifndef HAMI_LATER_H
#define HAMI_LATER_H

#include "memory/held.h"

/* Frees through `call`, which calls the stream `stream`; `in`: what it is called where default streams are not each thread's own. */
CUresult hami_free_later(CUdeviceptr address, CUstream stream, CUresult (*call)(CUdeviceptr, CUstream), CUstream in);

/* Ends the charges of what the streams have come to. */
void hami_later_refresh(void);

/* Something begins to be captured: afterwards no event is being asked for here. */
void hami_later_pause(void);

/* A context is called otherwise from now on; it has gone, with what was to be freed in it. */
void hami_later_rename(CUcontext from, CUcontext to);
void hami_later_gone(CUcontext context);

#endif
