/*
 * What can be asked. See probe.h for what this program is.
 *
 *   probe info                             card, driver, how many cards, whether lookups are answered by libvgpu
 *   probe nvml                             the card's memory as NVML shows it, CUDA not started
 *   probe init                             how long cuInit took
 *   probe mem ROUTE [CHUNK_MIB]            takes until refused, then frees one and goes on
 *   probe hold MIB SECONDS                 takes so much, says so, keeps it
 *   probe module KIND MIB SECONDS          loads a module of so much, `text` or `cubin`, keeps it, unloads it
 *   probe lend KIND MIB AFTER SECONDS      makes memory and tells by which token others can map it; then: AFTER
 *                                          is `keep`, `free`, or `other`: frees another as large that it lent as well (fd)
 *   probe borrow TOKEN SECONDS THEN        maps it, says what is held, gives it back, says what is held then
 *                                          of both, where seconds are below 0: until a line on stdin ends the step; `held` asks what is held
 *   probe watch SECONDS                    the card's total memory, whenever it is another
 *   probe forks SECONDS                    forks a child that does nothing, says its pid, waits
 *   probe closes SECONDS                   closes all descriptors, opens files of its own, says what was written to them
 *   probe run WORK SECONDS NS [HOST_NS]    runs WORK, kernels of NS; launches by window, of 0.1 s or PROBE_WINDOW_MS
 *   probe returns NS TIMES WORK_MS REST_MS  works for so long, so many times, with rests between: what was through by 10 ms of each
 *   probe threads COUNT SECONDS NS         so many threads that launch kernels of NS, each for 0.1 s, then another in its place
 *   probe cards SECONDS NS [unseen]        one launch on the first card, three on the second; `unseen`: changed past all hooks
 *   probe streams THREADS EACH SECONDS NS BLOCKS [PHASE_MS]
 *                                          so many threads with EACH streams (0: their own default streams), kernels of NS; PHASE_MS: all, then one alone
 *   probe strangers COUNT SECONDS NS       so many functions in turn, kernels of NS
 *   probe storm THREADS ROUNDS [SEED]      so many threads that take, give back, launch and ask, all at once
 *   probe kills COUNT                      so many processes killed anywhere, and how long a neighbour waited at most
 *   probe defects                          frees of nothing, references to contexts, a second card (simulated driver)
 *   probe full NS                          what a launch of NS takes in a full queue, with a gate before it: not held back by the host
 *   probe pairs NS                         what a pair of events shows of a kernel: alone, with others behind it, waited for
 *   probe share NS SECONDS [HOST_NS]       kernels of NS as `run` launches them; before and after that what they take in a full queue, and with nothing to hold them back
 *   probe queued NS                        what a kernel of NS takes in a full queue, from graphs, which no limit cuts up
 *   probe launches COUNT [KERNELS]         host time of a null launch through a lookup and without, in turn; of so many kernels in turn
 *   probe allocs COUNT                     host time of cuMemAlloc + cuMemFree of 2 MiB, likewise
 *   probe symbols FILE                     every name of FILE by dlsym and by cuGetProcAddress with versions and flags
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

static void do_info(int count, char **words) { (void)count, (void)words, tell_card(); }
static void do_nvml(int count, char **words) { (void)count, (void)words, tell_nvml(); }
static void do_init(int count, char **words) { (void)count, (void)words, time_init(); }
static void do_mem(int count, char **words) { memory(words[0], (size_t)(count > 1 ? atol(words[1]) : 256) * MIB); }
static void do_hold(int count, char **words) { (void)count, hold((size_t)atol(words[0]), atof(words[1])); }
static void do_module(int count, char **words) { (void)count, module(words[0], (size_t)atol(words[1]), atof(words[2])); }
static void do_lend(int count, char **words) { (void)count, lend(words[0], (size_t)atol(words[1]), words[2], atof(words[3])); }
static void do_borrow(int count, char **words) { (void)count, borrow(words[0], atof(words[1]), atof(words[2])); }
static void do_watch(int count, char **words) { (void)count, watch(atof(words[0])); }
static void do_forks(int count, char **words) { (void)count, forks(atoi(words[0])); }
static void do_closes(int count, char **words) { (void)count, closes(atoi(words[0])); }
static void do_run(int count, char **words) { run(words[0], atof(words[1]), atoll(words[2]), count > 3 ? atoll(words[3]) : 0); }
static void do_returns(int count, char **words) { (void)count, returns(atoll(words[0]), atoi(words[1]), atoll(words[2]), atoll(words[3])); }
static void do_threads(int count, char **words) { (void)count, threads(atoi(words[0]), atof(words[1]), atoll(words[2])); }
static void do_cards(int count, char **words) { cards(atof(words[0]), atoll(words[1]), count > 2); }
static void do_strangers(int count, char **words) { (void)count, strangers(atoi(words[0]), atof(words[1]), atoll(words[2])); }
static void do_streams(int count, char **words)
{
    streams(atoi(words[0]), atoi(words[1]), atof(words[2]), atoll(words[3]), (unsigned int)atol(words[4]), count > 5 ? 1000000 * atoll(words[5]) : 0);
}
static void do_storm(int count, char **words) { storm(atoi(words[0]), atol(words[1]), count > 2 ? strtoull(words[2], NULL, 10) : 1); }
static void do_kills(int count, char **words) { (void)count, kills(atoi(words[0])); }
static void do_defects(int count, char **words) { (void)count, (void)words, defects(); }
static void do_full(int count, char **words) { (void)count, full(atoll(words[0])); }
static void do_pairs(int count, char **words) { (void)count, pairs(atoll(words[0])); }
static void do_share(int count, char **words) { share(atoll(words[0]), atof(words[1]), count > 2 ? atoll(words[2]) : 0); }
static void do_queued(int count, char **words) { (void)count, queued(atoll(words[0])); }
static void do_launches(int count, char **words) { launches(atol(words[0]), count > 1 ? atoi(words[1]) : 1); }
static void do_allocs(int count, char **words) { (void)count, allocs(atoi(words[0])); }
static void do_symbols(int count, char **words) { (void)count, symbols(words[0]); }

static const struct {
    const char *name;
    int least; /* words after the name */
    void (*act)(int count, char **words);
} acts[] = {
    {"streams", 5, do_streams}, {"strangers", 3, do_strangers},
    {"info", 0, do_info},       {"init", 0, do_init},     {"mem", 1, do_mem},           {"hold", 2, do_hold},
    {"watch", 1, do_watch},     {"forks", 1, do_forks},   {"closes", 1, do_closes},     {"run", 3, do_run},
    {"threads", 3, do_threads}, {"full", 1, do_full},     {"pairs", 1, do_pairs},       {"queued", 1, do_queued},
    {"launches", 1, do_launches}, {"allocs", 1, do_allocs}, {"symbols", 1, do_symbols}, {"nvml", 0, do_nvml},
    {"module", 3, do_module},   {"lend", 4, do_lend},     {"borrow", 3, do_borrow},
    {"storm", 2, do_storm},     {"kills", 1, do_kills},   {"defects", 0, do_defects},   {"cards", 2, do_cards},
    {"share", 2, do_share},     {"returns", 4, do_returns},
};

int main(int count, char **words)
{
    for (size_t i = 0; count > 1 && i < sizeof acts / sizeof acts[0]; i++) {
        if (strcmp(words[1], acts[i].name) == 0 && count - 2 >= acts[i].least) {
            load(false);
            acts[i].act(count - 2, words + 2);
            return 0;
        }
    }
    fprintf(stderr, "see the head of main.c\n");
    return 2;
}
