/* Matrix products of 8-bit integers, from bfloat16 to bfloat16, for x86 processors with AVX2, on one thread.
 *
 * Weights are whole numbers from -127 to 127 times a scale for each output. Each row of activations is
 * quantised likewise as it comes. Four products are added to each 32-bit sum at a time: in one instruction by
 * VNNI, whose activations are moved up by 128, because it multiplies unsigned by signed numbers (what that
 * adds to a sum is known beforehand); in four by AVX2. The sums are exact, so all units give the same numbers.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define PANEL 64  /* outputs whose weights lie together: [outputs / PANEL][inputs / 4][PANEL][4] */
#define BLOCK 384 /* rows that are quantised, then multiplied */
#define MOST 127  /* the largest whole number */
/* Added to a small number, it rounds that to a whole one, in the lowest bits of the sum. */
#define ROUNDING 12582912.0f

INLINE float number(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float per_step(float most) { return most > 0 ? MOST / most : 0; }

/* Weights [outs, ins] into panels full of zeros; -128 times the sum of each output's whole numbers, and scales. */
int arrange_int8(const float *weight, int64_t outs, int64_t ins, int8_t *panels, int32_t *sums, float *scales) {
    int64_t groups = (ins + 3) / 4;
    int8_t *whole = calloc(groups, 4);
    if (!whole) return 1;
    for (int64_t n = 0; n < outs; n++) {
        const float *row = weight + n * ins;
        int32_t most = 0, sum = 0; /* bits of positive numbers are in the order of the numbers */
        for (int64_t k = 0; k < ins; k++) {
            int32_t bits = bits_of(row[k]) & 0x7fffffff;
            most = bits > most ? bits : most;
        }
        float steps = per_step(number(most));
        for (int64_t k = 0; k < ins; k++) whole[k] = (int8_t)bits_of(row[k] * steps + ROUNDING);
        for (int64_t k = 0; k < ins; k++) sum += whole[k];
        int8_t *into = panels + (n / PANEL * groups * PANEL + n % PANEL) * 4;
        for (int64_t g = 0; g < groups; g++) memcpy(into + g * PANEL * 4, whole + g * 4, 4);
        sums[n] = -128 * sum;
        scales[n] = number(most) / MOST;
    }
    free(whole);
    return 0;
}

/* A row of bfloat16 as whole numbers, `more` more each; returns its scale. */
INLINE float quantise(const uint16_t *row, int64_t ins, float more, uint8_t *whole) {
    uint16_t most = 0;
    for (int64_t k = 0; k < ins; k++) {
        uint16_t bits = row[k] & 0x7fff;
        most = bits > most ? bits : most;
    }
    float steps = per_step(number((uint32_t)most << 16));
    for (int64_t k = 0; k < ins; k++)
        whole[k] = (uint8_t)bits_of(number((uint32_t)row[k] << 16) * steps + (ROUNDING + more));
    return number((uint32_t)most << 16) / MOST;
}

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#include <cpuid.h>
#include <immintrin.h>

/* Loops over a tile have to be unrolled, or it is kept in memory instead of in registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define FOUR_TIMES
#else
#define UNROLL _Pragma("GCC unroll 8")
#define FOUR_TIMES _Pragma("GCC unroll 4")
#endif

/* An unsigned and a signed number of 8 bits: four products of each lane, added to its sum. */
#define LANES 16
#define TALL 6
#define WIDE 4
#define MORE 128
#define NAMED(name) name##_512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define DOT(sums, x, w) (NAMED(ints))_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(x), (__m512i)(w))
#include "int8_product.h"

#define LANES 8
#define TALL 6
#define WIDE 2
#define MORE 128
#define NAMED(name) name##_256
#define TARGET __attribute__((target("avx2,fma,avxvnni")))
#define DOT(sums, x, w) (NAMED(ints))_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(x), (__m256i)(w))
#include "int8_product.h"

/* The same of two signed ones, none of them -128: |x| times w with the sign of x; two such products fit 16 bits. */
#define LANES 8
#define TALL 4
#define WIDE 2
#define MORE 0
#define NAMED(name) name##_avx2
#define TARGET __attribute__((target("avx2,fma")))
TARGET INLINE __m256i dot_avx2(__m256i sums, __m256i x, __m256i w) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#define DOT(sums, x, w) (NAMED(ints))dot_avx2((__m256i)(sums), (__m256i)(x), (__m256i)(w))
#include "int8_product.h"

/* What this processor multiplies whole numbers with, the fastest unit of int8.py's UNITS; 0 without any. */
int int8_unit(void) {
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return 3;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    unsigned a = 0, b, c, d; /* not every compiler can ask for AVX-VNNI by its name */
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1 << 4 ? 2 : 1;
}
#else
#define multiply_512(...) 1 /* never called */
#define multiply_256(...) 1
#define multiply_avx2(...) 1

int int8_unit(void) { return 0; }
#endif

/* out [rows, outs] = x [rows, ins] times weights, as `arrange_int8` left them, plus bias, at least 0 if `relu`.
 * `sums`, `scales` and `bias` go on to the end of the last panel. Returns 0, or 1 without memory. */
int multiply_int8(const uint16_t *x, int64_t rows, int64_t ins, const int8_t *panels, const int32_t *sums,
                  const float *scales, const float *bias, int64_t outs, int64_t relu, int64_t unit, uint16_t *out) {
    if (unit == 3) return multiply_512(x, rows, ins, panels, sums, scales, bias, outs, relu, out);
    if (unit == 2) return multiply_256(x, rows, ins, panels, sums, scales, bias, outs, relu, out);
    return multiply_avx2(x, rows, ins, panels, sums, scales, bias, outs, relu, out);
}
