/* What stands in for a C library. Memory is handed out upwards and never taken back: every decision gets a fresh instance
   of the module. That also makes it safe to return texts that are constants. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint8_t __heap_base;
static uintptr_t next;

void abort(void) { __builtin_trap(); }

void free(void *piece) { (void)piece; }

void *malloc(size_t size) {
  if (next == 0) next = (uintptr_t)&__heap_base;
  uintptr_t start = (next + 15) & ~(uintptr_t)15;
  uintptr_t end = start + size;
  uintptr_t have = __builtin_wasm_memory_size(0) * 65536;
  if (end < start) abort();
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 65535) / 65536) == SIZE_MAX) abort();
  next = end;
  return (void *)start;
}

/* The old size is not known: what lies behind the old piece is copied along, never read beyond the new one. */
void *realloc(void *piece, size_t size) {
  uint8_t *made = malloc(size);
  uint8_t *old = piece;
  if (old != NULL) {
    for (size_t i = 0; i < size && old + i < made; i++) made[i] = old[i];
  }
  return made;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  uint8_t *out = to;
  const uint8_t *in = from;
  for (size_t i = 0; i < size; i++) out[i] = in[i];
  return to;
}

void *memset(void *to, int byte, size_t size) {
  uint8_t *out = to;
  for (size_t i = 0; i < size; i++) out[i] = (uint8_t)byte;
  return to;
}

int memcmp(const void *one, const void *other, size_t size) {
  const uint8_t *a = one, *b = other;
  for (size_t i = 0; i < size; i++) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return length;
}
