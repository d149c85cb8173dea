/* The kernels in vectors of 16 numbers, for processors with AVX-512. */
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define TARGET __attribute__((target("arch=x86-64-v4")))
#define LANES 16
#include "kernels.h"

/* How many numbers a vector of the fastest kernels for this processor has. */
int vector_lanes(void) { return __builtin_cpu_supports("x86-64-v4") ? 16 : 8; }
#else
int vector_lanes(void) { return 8; }
#endif
