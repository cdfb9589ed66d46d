/* What can be told of an image of device code before it is loaded. Pure: reads memory, asks nobody. */
#ifndef HAMI_IMAGE_H
#define HAMI_IMAGE_H

#include <stdint.h>

/* Bytes of the card that a plain cubin takes at least: its code, constants and global data. 0: no cubin, so not known. */
int64_t hami_image_bytes(const void *image);

#endif
