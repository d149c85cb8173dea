/* The product in vectors of LANES numbers: a tile of TALL rows and WIDE vectors of outputs stays in registers.
 * Included by int8.c for each kind of processor. */
#define floats NAMED(floats)
#define ints NAMED(ints)
#define words NAMED(words)
#define tile NAMED(tile)

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t words __attribute__((vector_size(2 * LANES)));

/* `high` rows of x times WIDE vectors of outputs; writes `left` outputs of these at most. */
TARGET INLINE void tile(const uint8_t *x, int64_t groups, const float *scales_x, int64_t high, const int8_t *weights,
                        const int32_t *sums, const float *scales, const float *bias, int64_t relu, uint16_t *out,
                        int64_t stride, int64_t left) {
    ints total[TALL][WIDE];
    UNROLL for (int v = 0; v < WIDE; v++)
        UNROLL for (int r = 0; r < high; r++) {
            if (MORE)
                memcpy(&total[r][v], sums + v * LANES, sizeof(ints));
            else
                total[r][v] = (ints){0};
        }
    FOUR_TIMES for (int64_t g = 0; g < groups; g++) {
        ints weight[WIDE];
        UNROLL for (int v = 0; v < WIDE; v++)
            memcpy(&weight[v], weights + (g * PANEL + v * LANES) * 4, sizeof(ints));
        UNROLL for (int r = 0; r < high; r++) {
            int32_t four;
            memcpy(&four, x + (r * groups + g) * 4, sizeof four);
            ints spread = four - (ints){0};
            UNROLL for (int v = 0; v < WIDE; v++) total[r][v] = DOT(total[r][v], spread, weight[v]);
        }
    }
    UNROLL for (int v = 0; v < WIDE; v++) {
        if (v * LANES >= left) return;
        floats scale, shift;
        memcpy(&scale, scales + v * LANES, sizeof scale);
        memcpy(&shift, bias + v * LANES, sizeof shift);
        UNROLL for (int r = 0; r < high; r++) {
            floats found = __builtin_convertvector(total[r][v], floats) * (scale * scales_x[r]) + shift;
            ints bits = (ints)found;
            if (relu) bits &= ~(bits >> 31); /* a set sign leaves nothing */
            bits += 0x7fff + ((bits >> 16) & 1); /* to nearest, ties to even */
            words rounded = __builtin_convertvector(bits >> 16, words);
            uint16_t *to = out + r * stride + v * LANES;
            if (v * LANES + LANES <= left) {
                memcpy(to, &rounded, sizeof rounded);
            } else {
                for (int64_t l = 0; l < left - v * LANES; l++) to[l] = rounded[l];
            }
        }
    }
}

TARGET static int NAMED(multiply)(const uint16_t *x, int64_t rows, int64_t ins, const int8_t *panels,
                                  const int32_t *sums, const float *scales, const float *bias, int64_t outs,
                                  int64_t relu, uint16_t *out) {
    int64_t groups = (ins + 3) / 4, most = rows < BLOCK ? rows : BLOCK;
    uint8_t *whole = calloc(most * groups, 4);
    float scales_x[BLOCK];
    if (!whole) return 1;
    for (int64_t from = 0; from < rows; from += BLOCK) {
        int64_t count = rows - from < BLOCK ? rows - from : BLOCK;
        for (int64_t r = 0; r < count; r++)
            scales_x[r] = quantise(x + (from + r) * ins, ins, MORE, whole + r * groups * 4);
        for (int64_t n = 0; n < outs; n += WIDE * LANES) {
            const int8_t *weights = panels + (n / PANEL * groups * PANEL + n % PANEL) * 4;
            for (int64_t r = 0; r < count; r += TALL) {
                uint16_t *to = out + (from + r) * outs + n;
#define TILE(HIGH)                                                                                                   \
    tile(whole + r * groups * 4, groups, scales_x + r, HIGH, weights, sums + n, scales + n, bias + n, relu, to, outs, \
         outs - n)
                switch (count - r) {
                    case 1: TILE(1); break;
                    case 2: TILE(2); break;
                    case 3: TILE(3); break;
                    case 4: TILE(4); break;
#if TALL > 4
                    case 5: TILE(5); break;
#endif
                    default: TILE(TALL);
                }
#undef TILE
            }
        }
    }
    free(whole);
    return 0;
}

#undef floats
#undef ints
#undef words
#undef tile
#undef LANES
#undef TALL
#undef WIDE
#undef MORE
#undef NAMED
#undef TARGET
#undef DOT
