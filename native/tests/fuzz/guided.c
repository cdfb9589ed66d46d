/*
 * Runs a fuzz target guided by what it reaches, where there is no libFuzzer: the target's file is compiled with gcc's
 * -fsanitize-coverage=trace-pc,trace-cmp, and an input that reaches something new is kept and edited further.
 *
 * Targets are libFuzzer's (LLVMFuzzerTestOneInput), so that with clang `-fsanitize=fuzzer` takes the place of this file.
 * The same seed gives the same run.  guided ROUNDS SEED FILE...    FILE: inputs to begin with
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { LONGEST = 4096, KEPT = 4096, FEATURES = 1 << 13, WORDS = 256 };

typedef struct {
    uint8_t bytes[LONGEST];
    size_t size;
} input;

static input *corpus[KEPT];
static int kept;
static uint8_t now[FEATURES], ever[FEATURES]; /* how often each step from one place to another was taken; and in which magnitude ever */
static uintptr_t last;
static uint64_t words[WORDS]; /* values that the target compared with */
static unsigned int word_count;
static uint64_t state = 88172645463325252u;

static uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- what the compiler calls ---- */

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    const uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uint8_t *count = &now[(pc ^ last << 1) % FEATURES];
    *count = *count == 255 ? 255 : (uint8_t)(*count + 1);
    last = pc;
}

static void compared(uint64_t value)
{
    if (value > 1)
        words[word_count++ % WORDS] = value;
}

#define TRACE(name, type)            \
    void name(type a, type b);       \
    void name(type a, type b)        \
    {                                \
        compared((uint64_t)a);       \
        compared((uint64_t)b);       \
    }
TRACE(__sanitizer_cov_trace_cmp1, uint8_t)
TRACE(__sanitizer_cov_trace_cmp2, uint16_t)
TRACE(__sanitizer_cov_trace_cmp4, uint32_t)
TRACE(__sanitizer_cov_trace_cmp8, uint64_t)
TRACE(__sanitizer_cov_trace_const_cmp1, uint8_t)
TRACE(__sanitizer_cov_trace_const_cmp2, uint16_t)
TRACE(__sanitizer_cov_trace_const_cmp4, uint32_t)
TRACE(__sanitizer_cov_trace_const_cmp8, uint64_t)

void __sanitizer_cov_trace_switch(uint64_t value, void *table);
void __sanitizer_cov_trace_switch(uint64_t value, void *table)
{
    const uint64_t *cases = table; /* how many, their width, then they */
    for (uint64_t i = 0; i < cases[0]; i++)
        compared(cases[2 + i]);
    compared(value);
}

/* ---- inputs ---- */

static int magnitude(uint8_t count)
{
    return count == 0 ? 0 : count < 3 ? count : count < 8 ? 3 : count < 32 ? 4 : count < 128 ? 5 : 6;
}

/* True when it reached something that none before did. */
static int run(const input *in)
{
    int fresh = 0;
    memset(now, 0, sizeof now);
    last = 0;
    LLVMFuzzerTestOneInput(in->bytes, in->size);
    for (int i = 0; i < FEATURES; i++) {
        const uint8_t bit = (uint8_t)(1 << magnitude(now[i]));
        fresh |= now[i] != 0 && (ever[i] & bit) == 0;
        ever[i] |= now[i] != 0 ? bit : 0;
    }
    return fresh;
}

static void keep(const input *in)
{
    if (kept < KEPT && (corpus[kept] = malloc(sizeof *in)) != NULL)
        *corpus[kept++] = *in;
}

static void insert(input *in, size_t at, const void *bytes, size_t size)
{
    if (in->size + size > LONGEST)
        return;
    memmove(in->bytes + at + size, in->bytes + at, in->size - at);
    memcpy(in->bytes + at, bytes, size);
    in->size += size;
}

static void edit(input *in)
{
    const input *other = corpus[dice() % (unsigned int)kept];
    const size_t at = in->size == 0 ? 0 : (size_t)(dice() % in->size), left = in->size - at;
    const uint64_t word = words[dice() % WORDS];
    const size_t width = (size_t)1 << dice() % 4;
    char text[24];
    switch (dice() % 8) {
    case 0: /* a byte */
        if (left > 0)
            in->bytes[at] = (uint8_t)dice();
        break;
    case 1: /* a bit */
        if (left > 0)
            in->bytes[at] ^= (uint8_t)(1 << dice() % 8);
        break;
    case 2: /* a piece less */
        if (left > 0) {
            const size_t size = 1 + (size_t)(dice() % (left < 40 ? left : 40));
            memmove(in->bytes + at, in->bytes + at + size, left - size);
            in->size -= size;
        }
        break;
    case 3: /* a piece of another */
        if (other->size > 0) {
            const size_t from = (size_t)(dice() % other->size), size = 1 + (size_t)(dice() % (other->size - from));
            insert(in, at, other->bytes + from, size < 200 ? size : 200);
        }
        break;
    case 4: /* a value that was compared with, as bytes */
        if (left >= width)
            memcpy(in->bytes + at, &word, width);
        break;
    case 5: /* and as digits */
        snprintf(text, sizeof text, "%llu", (unsigned long long)word);
        insert(in, at, text, strlen(text));
        break;
    case 6: /* a byte more */
        insert(in, at, &"0123456789 \n\0-kmg"[dice() % 17], 1);
        break;
    default: /* cut */
        in->size = at;
    }
}

static void read_seed(const char *path)
{
    static input in;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    in.size = fread(in.bytes, 1, LONGEST, file);
    fclose(file);
    run(&in);
    keep(&in);
}

int main(int count, char **words_given)
{
    static input in;
    if (count < 4)
        return 2;
    state ^= strtoull(words_given[2], NULL, 10) * 0x9e3779b97f4a7c15u;
    for (int i = 3; i < count; i++)
        read_seed(words_given[i]);
    const int seeds = kept;
    for (long round = atol(words_given[1]); round > 0; round--) {
        in = *corpus[dice() % (unsigned int)kept];
        for (uint64_t edits = 1 + dice() % 5; edits > 0; edits--)
            edit(&in);
        if (run(&in))
            keep(&in);
    }
    int reached = 0;
    for (int i = 0; i < FEATURES; i++)
        reached += ever[i] != 0;
    printf("{\"seeds\": %d, \"kept\": %d, \"reached\": %d}\n", seeds, kept, reached);
    return 0;
}
