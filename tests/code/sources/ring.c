/*
 * A ring buffer of bytes.
 * Copyright the authors.
 */

#include <stdlib.h>
#include <string.h>
#include "ring.h"

#define RING_MIN 16
#define ring_mask(ring) \
    ((ring)->size - 1)

struct ring {
    unsigned char *data;
    size_t size;
    size_t head, tail;
    void (*on_full)(struct ring *ring, const unsigned char *rejected, size_t count, void *context);
    void *context;
};

typedef enum { RING_OK, RING_FULL, RING_EMPTY } ring_status;

/* Sizes are powers of two, so that a mask can stand for a division. */
static size_t round_up(size_t size)
{
    size_t power = RING_MIN;

    while (power < size) {
        if (power > ((size_t)-1) / 2)
            return 0;
        power *= 2;
    }
    return power;
}

/* Make a ring of at least `size` bytes; NULL if there is no memory for it. */
struct ring *ring_new(size_t size)
{
    struct ring *ring = calloc(1, sizeof *ring);

    if (ring == NULL)
        return NULL;
    ring->size = round_up(size);
    ring->data = malloc(ring->size);
    if (ring->data == NULL) {
        free(ring);
        return NULL;
    }
    return ring;
}

#ifdef RING_STATISTICS
static unsigned long copies;

unsigned long ring_copies(void)
{
    unsigned long before = copies;
    /* Reading the counter starts it again, so that each report covers its own time only. */
    copies = 0;
    return before;
}
#endif

ring_status ring_put(struct ring *ring, const void *bytes, size_t count)
{
    size_t room = ring->size - (ring->head - ring->tail);
    size_t start = ring->head & ring_mask(ring);
    size_t first = count < ring->size - start ? count : ring->size - start;

    if (count > room) {
        if (ring->on_full)
            ring->on_full(ring, bytes, count, ring->context);
        return RING_FULL;
    }
    memcpy(ring->data + start, bytes, first);
    memcpy(ring->data, (const char *)bytes + first, count - first);
    ring->head += count;
    return RING_OK;
}
