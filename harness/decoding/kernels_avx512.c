/* The kernels in vectors of 16 numbers, for processors with AVX-512 (see `lanes` in kernels.c). */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define TARGET __attribute__((target("arch=x86-64-v4")))
#define LANES 16
#include "kernels.h"
#else
typedef int without_avx512;
#endif
