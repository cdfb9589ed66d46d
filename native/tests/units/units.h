/*
 * The library's parts by themselves: parsers, map, ledger, budget, prices. Run under ASan, UBSan and TSan by
 * tests/native/test_vgpu_units.py; time here is a number, so that minutes of GPU time pass in milliseconds.
 */
#ifndef HAMI_UNITS_H
#define HAMI_UNITS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "../check.h"

uint64_t dice(void); /* the same each run; main.c */

void parse(void);                                              /* parse.c */
void fuzz(long rounds);                                        /* parse.c */
void map(void);                                                /* map.c */
void budget(void);                                             /* budget.c */
void cost(void);                                               /* cost.c */
void overlap(void);                                            /* overlap.c */
void sleeps(void);                                             /* sleeps.c */
void storm(const char *path, int processes, int threads, long rounds); /* ledger.c */
void slots(const char *path);                                  /* ledger.c */
void loans(const char *path);                                  /* ledger.c */
void claims(const char *path);                                 /* ledger.c */
void kills(const char *path, int count);                       /* ledger.c */
void halted(const char *path);                                 /* halted.c */
void wakes(const char *path);                                  /* wakes.c */
void alone(const char *path);                                  /* alone.c */
void jumps(const char *path);                                  /* jumps.c */

#endif
