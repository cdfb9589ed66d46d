/*
 * Packets of the broker: the same bytes as Python's, and nothing else is taken. `wire VECTORS`, `wire fuzz ROUNDS SEED VECTORS`,
 * `wire taken PACKETS`
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "limits/wire.h"

enum { MOST = 16 };

typedef struct {
    char name[32];
    unsigned char bytes[256];
    size_t size;
} vector;

static vector vectors[MOST];
static int count;

static void read_vectors(const char *path)
{
    char line[1024], hex[800];
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        vector *v = &vectors[count];
        if (line[0] == '#' || sscanf(line, "%31s %799s", v->name, hex) != 2)
            continue;
        for (v->size = 0; hex[2 * v->size] != '\0'; v->size++) {
            unsigned int byte;
            CHECK(sscanf(hex + 2 * v->size, "%2x", &byte) == 1);
            v->bytes[v->size] = (unsigned char)byte;
        }
        CHECK(++count < MOST);
    }
    fclose(file);
}

static void same(const char *name, const void *made, size_t size)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(vectors[i].name, name) == 0) {
            CHECK(vectors[i].size == size && memcmp(vectors[i].bytes, made, size) == 0);
            return;
        }
    }
    printf("no vector %s\n", name);
    exit(1);
}

#define HEADER(kind, type) {HAMI_WIRE_VERSION, kind, sizeof(type)}

/* What the library sends, and what it reads, field by field. */
static void golden(void)
{
    const hami_wire_hello hello = {.header = HEADER(HAMI_HELLO, hami_wire_hello), .pid = 7, .pid_namespace = 4026531836,
                                   .start_ticks = 123456789, .program = "python3"};
    same("hello", &hello, sizeof hello);
    const hami_wire_usage usage = {.header = HEADER(HAMI_USAGE, hami_wire_usage), .card = 1,
                                   .held = {1ll << 32, 2 << 20, 0, 512, 3, 503316480, 1}, .busy_ns = 1500000000,
                                   .launched_ns = 987654321012, .waited_ns = 250000000, .refused = 3};
    same("usage", &usage, sizeof usage);
    const hami_wire_welcome welcome = {.header = HEADER(HAMI_WELCOME, hami_wire_welcome), .host_pid = 31415, .cards = 2,
                                       .session = 1ull << 40};
    same("welcome", &welcome, sizeof welcome);
    const hami_wire_limit limit = {.header = HEADER(HAMI_LIMIT, hami_wire_limit), .card = 1,
                                   .flags = HAMI_LIMIT_LAST | HAMI_LIMIT_MIXED, .generation = 5, .limit = 8000ll << 20,
                                   .core_percent = 30, .core_policy = 1, .priority = 0, .member = 255, .tenant = 63,
                                   .uuid = "GPU-5f1c2c3d-0000-4000-8000-000000000001"};
    same("limit", &limit, sizeof limit);
    const hami_wire_limit none = {.header = HEADER(HAMI_LIMIT, hami_wire_limit), .generation = 1, .limit = INT64_MAX,
                                  .core_percent = 100, .core_policy = 2, .priority = 1, .member = -1, .uuid = "MIG-1"};
    same("limit_none", &none, sizeof none);
    const hami_wire_seen seen = {.header = HEADER(HAMI_SEEN, hami_wire_seen), .others = 4, .own_bytes = -1};
    same("seen", &seen, sizeof seen);
    const hami_wire_refused refused = {.header = HEADER(HAMI_REFUSED, hami_wire_refused), .reason = 1,
                                       .text = "this container has 256 processes already"};
    same("refused", &refused, sizeof refused);
    for (int i = 0; i < count; i++) {
        hami_packet packet;
        memset(&packet, 0xee, sizeof packet);
        memcpy(&packet, vectors[i].bytes, vectors[i].size);
        CHECK(hami_wire_good(&packet, vectors[i].size) == (packet.header.kind >= 16));
        for (size_t size = 0; size <= sizeof packet; size++)
            CHECK(size == vectors[i].size || !hami_wire_good(&packet, size));
    }
}

static uint64_t state = 88172645463325252u;
static uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void fuzz(long rounds)
{
    long taken = 0;
    for (long round = 0; round < rounds; round++) {
        const vector *v = &vectors[dice() % (unsigned int)count];
        hami_packet packet;
        memset(&packet, 0, sizeof packet);
        memcpy(&packet, v->bytes, v->size);
        for (uint64_t edits = dice() % 5; edits > 0; edits--)
            packet.bytes[dice() % v->size] = (unsigned char)(dice() % 3 == 0 ? 0 : dice());
        if (!hami_wire_good(&packet, dice() % 8 == 0 ? (size_t)(dice() % sizeof packet) : v->size))
            continue;
        taken++;
        if (packet.header.kind == HAMI_LIMIT)
            CHECK(packet.limit.card < 16 && packet.limit.core_percent >= 1 && packet.limit.core_percent <= 100 &&
                  packet.limit.limit >= 1 && packet.limit.member < 256 && packet.limit.tenant < 64 &&
                  memchr(packet.limit.uuid, 0, sizeof packet.limit.uuid) != NULL);
        if (packet.header.kind == HAMI_REFUSED)
            CHECK(memchr(packet.refused.text, 0, sizeof packet.refused.text) != NULL);
    }
    printf("%ld rounds, %ld taken\n", rounds, taken);
}

/* A digit for each line of hexadecimal: whether the packet would be taken. */
static void each_taken(const char *path)
{
    char line[1026];
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned char bytes[512];
        size_t size = 0;
        for (unsigned int byte; size < sizeof bytes && sscanf(line + 2 * size, "%2x", &byte) == 1; size++)
            bytes[size] = (unsigned char)byte;
        hami_packet packet;
        memset(&packet, 0xee, sizeof packet);
        memcpy(&packet, bytes, size < sizeof packet ? size : sizeof packet);
        printf("%d\n", hami_wire_good(&packet, size));
    }
    fclose(file);
}

int main(int words, char **word)
{
    if (words == 2) {
        read_vectors(word[1]);
        golden();
        return 0;
    }
    if (words == 5 && strcmp(word[1], "fuzz") == 0) {
        read_vectors(word[4]);
        state ^= strtoull(word[3], NULL, 10) * 0x9e3779b97f4a7c15u;
        fuzz(atol(word[2]));
        return 0;
    }
    if (words == 3 && strcmp(word[1], "taken") == 0) {
        each_taken(word[2]);
        return 0;
    }
    return 2;
}
