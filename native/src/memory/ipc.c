/*
 * Hooks of IPC handles: memory of cuMemAlloc that other processes map.
 *
 * Its maker offers it in the ledger under a key made of the handle, and pays; who opens the handle finds it there and takes
 * a loan (loans.h). Handles of other containers are found nowhere: what they cost NVML shows, once their makers have freed it.
 */
#include "memory/ipc.h"

#include "memory/loans.h"
#include "memory/map.h"
#include "prim/door.h"

static hami_map offers = HAMI_MAP_INIT;   /* address -> its key, as tag */
static hami_map borrowed = HAMI_MAP_INIT; /* address -> row, as tag; bytes: how often it was opened */
static _Atomic int offer_count;
static hami_door opening; /* one address may be opened twice */

uint64_t hami_loan_key(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ at[i]) * 1099511628211u;
    return hash == 0 ? 1 : hash;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr address)
{
    CUdeviceptr base = 0;
    size_t bytes = 0;
    const CUresult result = BEHIND(cuIpcGetMemHandle, out, address);
    hami_card *card = result == CUDA_SUCCESS ? hami_card_now() : NULL;
    if (card == NULL || USE(cuMemGetAddressRange_v2, &base, &bytes, address) != CUDA_SUCCESS)
        return result;
    const uint64_t key = hami_loan_key(out, sizeof *out);
    hami_entry known;
    if (!hami_map_get(&offers, base, false, &known))
        atomic_fetch_add(&offer_count, 1);
    hami_map_put(&offers, (hami_entry){.key = base, .tag = key});
    hami_loan_offer(hami_state.ledger, hami_state.slot, card->ledger_index, key, hami_linear_bytes(bytes));
    return result;
}

uint64_t hami_offer_leaves(CUdeviceptr address)
{
    hami_entry offer;
    if (atomic_load_explicit(&offer_count, memory_order_relaxed) == 0 || !hami_map_get(&offers, address, true, &offer))
        return 0;
    atomic_fetch_sub(&offer_count, 1);
    return offer.tag;
}

void hami_offer_stays(CUdeviceptr address, uint64_t key)
{
    if (key == 0)
        return;
    atomic_fetch_add(&offer_count, 1);
    hami_map_put(&offers, (hami_entry){.key = address, .tag = key});
}

bool hami_offer_end(uint64_t key, hami_card *card, hami_kind kind, int64_t bytes)
{
    if (key != 0)
        hami_loan_end(hami_state.ledger, hami_state.slot, card->ledger_index, key, kind, bytes);
    return key != 0;
}

/* What is opened again has one address, and is one loan. False: it is of nobody in this container. */
static bool opened(CUdeviceptr address, const CUipcMemHandle *handle)
{
    hami_entry entry;
    hami_loan offer;
    bool known = true;
    const bool entered = hami_door_enter(&opening);
    if (hami_map_get(&borrowed, address, false, &entry)) {
        entry.bytes++;
        hami_map_put(&borrowed, entry);
    } else if (hami_loan_find(hami_state.ledger, hami_loan_key(handle, sizeof *handle), &offer)) {
        const int row = hami_loan_take(hami_state.ledger, hami_state.slot, offer.owner - 1, offer.card, offer.key, offer.bytes);
        if (row >= 0)
            hami_map_put(&borrowed, (hami_entry){.key = address, .bytes = 1, .tag = (uint64_t)row});
    } else {
        known = false;
    }
    if (entered)
        hami_door_leave(&opening);
    return known;
}

#define OPEN(name)                                                                  \
    CUresult name(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)      \
    {                                                                               \
        const CUresult result = BEHIND(name, out, handle, flags);                   \
        if (result != CUDA_SUCCESS || !atomic_load(&hami_active) ||                 \
            opened(*out, &handle) || !hami_full_for_others(hami_card_now()))        \
            return result;                                                          \
        BEHIND(cuIpcCloseMemHandle, *out);                                          \
        return CUDA_ERROR_OUT_OF_MEMORY;                                            \
    }
OPEN(cuIpcOpenMemHandle)
OPEN(cuIpcOpenMemHandle_v2)

CUresult cuIpcCloseMemHandle(CUdeviceptr address)
{
    hami_entry entry;
    if (!atomic_load(&hami_active))
        return BEHIND(cuIpcCloseMemHandle, address);
    const bool entered = hami_door_enter(&opening); /* nobody is to get the address before we have forgotten it */
    const CUresult result = BEHIND(cuIpcCloseMemHandle, address);
    if (result == CUDA_SUCCESS && hami_map_get(&borrowed, address, true, &entry)) {
        if (--entry.bytes > 0)
            hami_map_put(&borrowed, entry);
        else
            hami_loan_return(hami_state.ledger, hami_state.slot, (int)entry.tag);
    }
    if (entered)
        hami_door_leave(&opening);
    return result;
}
