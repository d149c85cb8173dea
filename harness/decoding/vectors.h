/* Vectors of LANES floats, from and to arrays of float32 and (`half`) bfloat16; see kernels.h. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words32 __attribute__((vector_size(4 * LANES)));
typedef uint16_t words16 __attribute__((vector_size(2 * LANES)));

INLINE float get(const void *array, int64_t i, int half) {
    if (!half) return ((const float *)array)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)array)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE void put(void *array, int64_t i, float value, int half) {
    if (!half) {
        ((float *)array)[i] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    ((uint16_t *)array)[i] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* to nearest, ties to even */
}

INLINE floats get_lanes(const void *array, int64_t i, int half) {
    floats lanes;
    if (half) {
        words16 read;
        memcpy(&read, (const uint16_t *)array + i, sizeof read);
        words32 bits = __builtin_convertvector(read, words32) << 16;
        memcpy(&lanes, &bits, sizeof lanes);
    } else {
        memcpy(&lanes, (const float *)array + i, sizeof lanes);
    }
    return lanes;
}

/* 2 * LANES numbers from array[i] on. Those of bfloat16 come apart as they lie in 32-bit words, even ones
 * and odd ones, which costs a shift and a mask; `put_pair` joins them again. */
INLINE void get_pair(const void *array, int64_t i, floats pair[2], int half) {
    if (half) {
        words32 bits;
        memcpy(&bits, (const uint16_t *)array + i, sizeof bits);
        pair[0] = (floats)(bits << 16);
        pair[1] = (floats)(bits & 0xffff0000u);
    } else {
        for (int k = 0; k < 2; k++) pair[k] = get_lanes(array, i + k * LANES, 0);
    }
}

INLINE void prefetch(const void *array, int64_t i, int64_t count, int half) {
    int64_t size = half ? 2 : 4;
    for (int64_t b = 0; b < count * size; b += 64) __builtin_prefetch((const char *)array + i * size + b, 0, 2);
}

INLINE void put_pair(void *array, int64_t i, const floats pair[2], int half) {
    if (half) {
        words32 even = (words32)pair[0], odd = (words32)pair[1];
        even = (even + 0x7fffu + ((even >> 16) & 1)) >> 16;
        odd = (odd + 0x7fffu + ((odd >> 16) & 1)) & 0xffff0000u;
        even |= odd;
        memcpy((uint16_t *)array + i, &even, sizeof even);
    } else {
        for (int k = 0; k < 2; k++) memcpy((float *)array + i + k * LANES, &pair[k], sizeof pair[k]);
    }
}

INLINE floats larger(floats a, floats b) {
    ints chosen = a > b;
    return (floats)((chosen & (ints)a) | (~chosen & (ints)b));
}

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif

/* Neighbours, pairs, quarters or halves of the lanes of two vectors added up, those of `a` first;
 * FOLD_FOUR leaves LANES / 4 partial sums of each of four vectors, FOLD_ALL the sums of LANES / 4 such. */
#if LANES == 16
#define FOLD_8(a, b)                                                              \
    (SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +      \
     SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define FOLD_4(a, b)                                                              \
    (SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +    \
     SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
#define FOLD_2(a, b)                                                              \
    (SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +    \
     SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31))
#define FOLD_1(a, b)                                                              \
    (SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +   \
     SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31))
#define FOLD_FOUR(x) FOLD_4(FOLD_8(x[0], x[1]), FOLD_8(x[2], x[3]))
#define FOLD_ALL(x) FOLD_1(FOLD_2(x[0], x[1]), FOLD_2(x[2], x[3]))
#else
#define FOLD_4(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define FOLD_2(a, b) (SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13) + SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15))
#define FOLD_1(a, b) (SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14) + SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15))
#define FOLD_FOUR(x) FOLD_2(FOLD_4(x[0], x[1]), FOLD_4(x[2], x[3]))
#define FOLD_ALL(x) FOLD_1(x[0], x[1])
#endif

INLINE float sum_lanes(floats x) {
#if LANES == 16
    x = FOLD_8(x, x);
#endif
    x = FOLD_4(x, x);
    x = FOLD_2(x, x);
    return x[0] + x[1];
}
