/* The kernels in vectors of 8 numbers, for any processor, and which ones to call. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONED
#define TARGET __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define TARGET
#endif
#define LANES 8
#include "kernels.h"

/* How many numbers a vector of the fastest kernels for this processor has. */
int lanes(void) {
#ifdef CLONED
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 16;
#endif
    return LANES;
}

/* Copies row r to entry entries[r]; strides and size are in bytes. */
int store(const char *from, int64_t from_stride, char *into, int64_t into_stride, const int64_t *entries,
          int64_t rows, int64_t size) {
    for (int64_t r = 0; r < rows; r++) memcpy(into + entries[r] * into_stride, from + r * from_stride, size);
    return 0;
}
