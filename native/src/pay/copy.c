/* Hooks of sets and copies on the card: one price an operation and size, eight sizes an octave. */
#include "memory/local.h"
#include "pay/pay.h"

enum { OP_SET = 1, OP_COPY, OP_COPY_2D, OP_COPY_3D, OP_COPY_ARRAY, OP_COPY_BATCH, OP_SET_2D, OP_COPY_PEER, OP_COPY_PEER_3D, OP_COPY_BATCH_3D };

static uint64_t size_class(uint64_t bytes)
{
    if (bytes < 16)
        return bytes + 1;
    const int octave = 63 - __builtin_clzll(bytes);
    return (uint64_t)octave << 8 | (bytes >> (octave - 3) & 7) | 1u << 16;
}

static uint64_t area(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

#define OP(op, bytes) .what = (uint64_t)(op) << 56, .amount = size_class(bytes), .anywhere = true

static int ordinal(CUdeviceptr address)
{
    int card = -1;
    return USE(cuPointerGetAttribute, &card, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address) == CUDA_SUCCESS ? card : -1;
}

/* The card that both are on; NULL: of several none. */
static hami_card *card_of_both(CUdeviceptr to, CUdeviceptr from)
{
    if (hami_state.card_count == 1)
        return &hami_state.cards[0];
    const int card = ordinal(to);
    return card >= 0 && card == ordinal(from) ? hami_card_of(card) : NULL;
}

/* Whose a copy is from one address to another; NULL: its stream says. */
#define COPY(op, bytes) OP(op, bytes), .card = card_of_both(to, from)

#define SETS(width, type)                                                                                               \
    CUresult cuMemsetD##width##_v2(CUdeviceptr to, type value, size_t count)                                            \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##_v2, to, value, count), OP(OP_SET, area(count, sizeof(type))), .waits = true);    \
    }                                                                                                                   \
    CUresult cuMemsetD##width##_v2_ptds(CUdeviceptr to, type value, size_t count)                                       \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##_v2_ptds, to, value, count), OP(OP_SET, area(count, sizeof(type))),               \
             .per_thread = true, .waits = true);                                                                        \
    }                                                                                                                   \
    CUresult cuMemsetD##width##Async(CUdeviceptr to, type value, size_t count, CUstream stream)                         \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##Async, to, value, count, stream), OP(OP_SET, area(count, sizeof(type))),          \
             .stream = stream);                                                                                         \
    }                                                                                                                   \
    CUresult cuMemsetD##width##Async_ptsz(CUdeviceptr to, type value, size_t count, CUstream stream)                    \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD##width##Async_ptsz, to, value, count, stream), OP(OP_SET, area(count, sizeof(type))),     \
             .stream = stream, .per_thread = true);                                                                     \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##_v2(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows)             \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##_v2, to, pitch, value, columns, rows),                                          \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .waits = true);                                    \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##_v2_ptds(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows)        \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##_v2_ptds, to, pitch, value, columns, rows),                                     \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .per_thread = true, .waits = true);                \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##Async(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows,           \
                                       CUstream stream)                                                                 \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##Async, to, pitch, value, columns, rows, stream),                                \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .stream = stream);                                 \
    }                                                                                                                   \
    CUresult cuMemsetD2D##width##Async_ptsz(CUdeviceptr to, size_t pitch, type value, size_t columns, size_t rows,      \
                                            CUstream stream)                                                            \
    {                                                                                                                   \
        PAID(BEHIND(cuMemsetD2D##width##Async_ptsz, to, pitch, value, columns, rows, stream),                           \
             OP(OP_SET_2D, area(area(columns, sizeof(type)), rows)), .stream = stream, .per_thread = true);             \
    }
SETS(8, unsigned char)
SETS(16, unsigned short)
SETS(32, unsigned int)

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID(BEHIND(cuMemcpyDtoD_v2, to, from, bytes), COPY(OP_COPY, bytes), .waits = true);
}

CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID(BEHIND(cuMemcpyDtoD_v2_ptds, to, from, bytes), COPY(OP_COPY, bytes), .per_thread = true, .waits = true);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID(BEHIND(cuMemcpyDtoDAsync_v2, to, from, bytes, stream), COPY(OP_COPY, bytes), .stream = stream);
}

CUresult cuMemcpyDtoDAsync_v2_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID(BEHIND(cuMemcpyDtoDAsync_v2_ptsz, to, from, bytes, stream), COPY(OP_COPY, bytes), .stream = stream, .per_thread = true);
}

static bool on_card(CUdeviceptr address)
{
    unsigned int type = 0;
    return USE(cuPointerGetAttribute, &type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) == CUDA_SUCCESS &&
           type == CU_MEMORYTYPE_DEVICE;
}

/* Copies with host memory on one side run on copy engines and are not charged; here only the addresses tell. */
#define PAID_IF(condition, call, ...)       \
    do {                                    \
        if (!THROTTLING || !(condition))    \
            return (call);                  \
        PAID(call, __VA_ARGS__);            \
    } while (0)

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpy, to, from, bytes), COPY(OP_COPY, bytes), .waits = true);
}

CUresult cuMemcpy_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpy_ptds, to, from, bytes), COPY(OP_COPY, bytes), .per_thread = true,
            .waits = true);
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpyAsync, to, from, bytes, stream), COPY(OP_COPY, bytes), .stream = stream);
}

CUresult cuMemcpyAsync_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    PAID_IF(on_card(to) && on_card(from), BEHIND(cuMemcpyAsync_ptsz, to, from, bytes, stream), COPY(OP_COPY, bytes),
            .stream = stream, .per_thread = true);
}

static bool stays_2d(const CUDA_MEMCPY2D *c)
{
    return c != NULL && c->from_type != CU_MEMORYTYPE_HOST && c->to_type != CU_MEMORYTYPE_HOST;
}

static bool stays_3d(const CUDA_MEMCPY3D *c)
{
    return c != NULL && c->from_type != CU_MEMORYTYPE_HOST && c->to_type != CU_MEMORYTYPE_HOST;
}

#define BYTES_2D area(copy->width_bytes, copy->height)
#define BYTES_3D area(area(copy->width_bytes, copy->height), copy->depth)

#define COPY_2D(name)                                                                                  \
    CUresult name(const CUDA_MEMCPY2D *copy)                                                           \
    {                                                                                                  \
        PAID_IF(stays_2d(copy), BEHIND(name, copy), OP(OP_COPY_2D, BYTES_2D), .waits = true);          \
    }                                                                                                  \
    CUresult name##_ptds(const CUDA_MEMCPY2D *copy)                                                    \
    {                                                                                                  \
        PAID_IF(stays_2d(copy), BEHIND(name##_ptds, copy), OP(OP_COPY_2D, BYTES_2D), .per_thread = true, .waits = true); \
    }
COPY_2D(cuMemcpy2D_v2)
COPY_2D(cuMemcpy2DUnaligned_v2)

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    PAID_IF(stays_2d(copy), BEHIND(cuMemcpy2DAsync_v2, copy, stream), OP(OP_COPY_2D, BYTES_2D), .stream = stream);
}

CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    PAID_IF(stays_2d(copy), BEHIND(cuMemcpy2DAsync_v2_ptsz, copy, stream), OP(OP_COPY_2D, BYTES_2D), .stream = stream,
            .per_thread = true);
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3D_v2, copy), OP(OP_COPY_3D, BYTES_3D), .waits = true);
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *copy)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3D_v2_ptds, copy), OP(OP_COPY_3D, BYTES_3D), .per_thread = true, .waits = true);
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3DAsync_v2, copy, stream), OP(OP_COPY_3D, BYTES_3D), .stream = stream);
}

CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    PAID_IF(stays_3d(copy), BEHIND(cuMemcpy3DAsync_v2_ptsz, copy, stream), OP(OP_COPY_3D, BYTES_3D), .stream = stream,
            .per_thread = true);
}

#define COPY_ARRAY(name, parameters, ...)                                                                  \
    CUresult name parameters                                                                               \
    {                                                                                                      \
        PAID(BEHIND(name, __VA_ARGS__), OP(OP_COPY_ARRAY, bytes), .waits = true);                          \
    }                                                                                                      \
    CUresult name##_ptds parameters                                                                        \
    {                                                                                                      \
        PAID(BEHIND(name##_ptds, __VA_ARGS__), OP(OP_COPY_ARRAY, bytes), .per_thread = true, .waits = true); \
    }
COPY_ARRAY(cuMemcpyAtoD_v2, (CUdeviceptr to, CUarray array, size_t offset, size_t bytes), to, array, offset, bytes)
COPY_ARRAY(cuMemcpyDtoA_v2, (CUarray array, size_t offset, CUdeviceptr from, size_t bytes), array, offset, from, bytes)
COPY_ARRAY(cuMemcpyAtoA_v2, (CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes), to, to_offset, from,
           from_offset, bytes)

/* Bytes of a batch that stay on the card; 0: none. */
static uint64_t batch_bytes(const CUdeviceptr *to, const CUdeviceptr *from, const size_t *bytes, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; to != NULL && from != NULL && bytes != NULL && i < count; i++)
        sum += on_card(to[i]) && on_card(from[i]) ? bytes[i] : 0;
    return sum;
}

#define COPY_BATCH(name, is_per_thread, parameters, ...)                                                    \
    CUresult name parameters                                                                                \
    {                                                                                                       \
        const uint64_t sum = THROTTLING ? batch_bytes(to, from, bytes, count) : 0;                          \
        PAID_IF(sum > 0, BEHIND(name, __VA_ARGS__), OP(OP_COPY_BATCH, sum), .stream = stream,               \
                .per_thread = is_per_thread);                                                               \
    }
#define BATCH (CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, void *attrs, size_t *indices, \
               size_t attr_count, size_t *failed, CUstream stream)
#define BATCH_V2 (CUdeviceptr *to, CUdeviceptr *from, size_t *bytes, size_t count, void *attrs, size_t *indices, \
                  size_t attr_count, CUstream stream)
COPY_BATCH(cuMemcpyBatchAsync, false, BATCH, to, from, bytes, count, attrs, indices, attr_count, failed, stream)
COPY_BATCH(cuMemcpyBatchAsync_ptsz, true, BATCH, to, from, bytes, count, attrs, indices, attr_count, failed, stream)
COPY_BATCH(cuMemcpyBatchAsync_v2, false, BATCH_V2, to, from, bytes, count, attrs, indices, attr_count, stream)
COPY_BATCH(cuMemcpyBatchAsync_v2_ptsz, true, BATCH_V2, to, from, bytes, count, attrs, indices, attr_count, stream)

/* ---- one operation, with hints: CUDA 13.2 ---- */

#define COPY_HINTED(name, is_per_thread)                                                                          \
    CUresult name(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *attrs, CUstream stream)                   \
    {                                                                                                             \
        PAID_IF(on_card(to) && on_card(from), BEHIND(name, to, from, bytes, attrs, stream), COPY(OP_COPY, bytes), \
                .stream = stream, .per_thread = is_per_thread);                                                   \
    }
COPY_HINTED(cuMemcpyWithAttributesAsync, false)
COPY_HINTED(cuMemcpyWithAttributesAsync_ptsz, true)

/* ---- solids in batches ---- */

static bool operand_on_card(const CUmemcpy3DOperand *operand)
{
    return operand->type == CU_MEMCPY_OPERAND_TYPE_ARRAY ||
           (operand->type == CU_MEMCPY_OPERAND_TYPE_POINTER && on_card(operand->at.pointer.address));
}

static uint64_t solid_bytes(const CUDA_MEMCPY3D_BATCH_OP *ops, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; THROTTLING && ops != NULL && i < count; i++) {
        if (operand_on_card(&ops[i].from) && operand_on_card(&ops[i].to))
            sum += area(area(ops[i].width, ops[i].height == 0 ? 1 : ops[i].height), ops[i].depth == 0 ? 1 : ops[i].depth);
    }
    return sum;
}

#define COPY_SOLIDS(name, is_per_thread, how_many, parameters, ...)                                          \
    CUresult name parameters                                                                                 \
    {                                                                                                        \
        const uint64_t sum = solid_bytes(ops, how_many);                                                     \
        PAID_IF(sum > 0, BEHIND(name, __VA_ARGS__), OP(OP_COPY_BATCH_3D, sum), .stream = stream,             \
                .per_thread = is_per_thread);                                                                \
    }
#define SOLIDS (size_t count, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed, unsigned long long flags, CUstream stream)
#define SOLIDS_V2 (size_t count, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags, CUstream stream)
#define SOLID (CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags, CUstream stream)
COPY_SOLIDS(cuMemcpy3DBatchAsync, false, count, SOLIDS, count, ops, failed, flags, stream)
COPY_SOLIDS(cuMemcpy3DBatchAsync_ptsz, true, count, SOLIDS, count, ops, failed, flags, stream)
COPY_SOLIDS(cuMemcpy3DBatchAsync_v2, false, count, SOLIDS_V2, count, ops, flags, stream)
COPY_SOLIDS(cuMemcpy3DBatchAsync_v2_ptsz, true, count, SOLIDS_V2, count, ops, flags, stream)
COPY_SOLIDS(cuMemcpy3DWithAttributesAsync, false, 1, SOLID, ops, flags, stream)
COPY_SOLIDS(cuMemcpy3DWithAttributesAsync_ptsz, true, 1, SOLID, ops, flags, stream)

/* ---- between contexts, which may be of one card: between two cards copy engines do it ---- */

static bool stays(const CUDA_MEMCPY3D_PEER *c)
{
    return stays_3d(c) && (c->reserved0 == c->reserved1 || card_of_both(c->to, c->from) != NULL);
}

#define SOLID_PEER OP(OP_COPY_PEER_3D, BYTES_3D), .card = hami_local_card_of(copy->reserved1)

#define COPY_PEER(name, is_per_thread)                                                                          \
    CUresult name(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes) \
    {                                                                                                           \
        PAID_IF(card_of_both(to, from) != NULL, BEHIND(name, to, to_context, from, from_context, bytes),        \
                COPY(OP_COPY_PEER, bytes), .per_thread = is_per_thread, .waits = true);                         \
    }
#define COPY_PEER_ASYNC(name, is_per_thread)                                                                     \
    CUresult name(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes,  \
                  CUstream stream)                                                                               \
    {                                                                                                            \
        PAID_IF(card_of_both(to, from) != NULL, BEHIND(name, to, to_context, from, from_context, bytes, stream), \
                COPY(OP_COPY_PEER, bytes), .stream = stream, .per_thread = is_per_thread);                       \
    }
#define COPY_PEER_3D(name, is_per_thread)                                                                 \
    CUresult name(const CUDA_MEMCPY3D_PEER *copy)                                                         \
    {                                                                                                     \
        PAID_IF(stays(copy), BEHIND(name, copy), SOLID_PEER, .per_thread = is_per_thread, .waits = true); \
    }
#define COPY_PEER_3D_ASYNC(name, is_per_thread)                                        \
    CUresult name(const CUDA_MEMCPY3D_PEER *copy, CUstream stream)                     \
    {                                                                                  \
        PAID_IF(stays(copy), BEHIND(name, copy, stream), SOLID_PEER, .stream = stream, \
                .per_thread = is_per_thread);                                          \
    }
COPY_PEER(cuMemcpyPeer, false)
COPY_PEER(cuMemcpyPeer_ptds, true)
COPY_PEER_ASYNC(cuMemcpyPeerAsync, false)
COPY_PEER_ASYNC(cuMemcpyPeerAsync_ptsz, true)
COPY_PEER_3D(cuMemcpy3DPeer, false)
COPY_PEER_3D(cuMemcpy3DPeer_ptds, true)
COPY_PEER_3D_ASYNC(cuMemcpy3DPeerAsync, false)
COPY_PEER_3D_ASYNC(cuMemcpy3DPeerAsync_ptsz, true)
