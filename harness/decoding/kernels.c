/* The kernels in vectors of 8 numbers: for AVX2 and, in two or more registers, for any other processor. */
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define TARGET __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define TARGET
#endif
#define LANES 8
#include "kernels.h"

/* Copies row r to entry entries[r]; strides and size are in bytes. */
int store(const char *from, int64_t from_stride, char *into, int64_t into_stride, const int64_t *entries,
          int64_t rows, int64_t size) {
    for (int64_t r = 0; r < rows; r++) memcpy(into + entries[r] * into_stride, from + r * from_stride, size);
    return 0;
}
