/* What the bindings need of a C library; see shim.c. */
#ifndef SHIM_STDLIB_H
#define SHIM_STDLIB_H
#include <stddef.h>
void *malloc(size_t size);
void *realloc(void *piece, size_t size);
void free(void *piece);
_Noreturn void abort(void);
#endif
