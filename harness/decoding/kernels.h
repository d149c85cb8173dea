/* What decoding does besides matrix products, for float32 and bfloat16 on one thread.
 *
 * PyTorch's operators want rectangles: rows of equal length, padded, copied together when a sentence
 * leaves the batch or a beam is dropped. These read each row's keys and values where they stand.
 * `half` says whether the arrays of weights and activations hold bfloat16 (1) or float32 (0); sums are
 * float32 in both. Everything is inlined into each exported function with `half` known, so that the
 * compiler vectorises either. They are compiled for vectors of 16 numbers and of 8 (LANES): what is wider than a
 * register of the processor (TARGET) GCC takes apart in memory.
 */
#include "vectors.h"

#define BLOCK 64
#define STRIP 2 /* pairs of vectors of a head that are summed at a time, in registers */

/* e^x to about one unit in the last place: 2^n times a polynomial on |r| <= ln 2 / 2 (Cephes). */
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (int32_t)((uint32_t)(int32_t)n << 23);
    memcpy(&p, &bits, sizeof p);
    return p;
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

INLINE float largest(const void *row, int64_t from, int64_t to, int half) {
    float most = -INFINITY, lanes[LANES];
    int64_t i = from;
    if (to - from >= LANES) {
        floats best = get_lanes(row, i, half);
        for (i += LANES; i + LANES <= to; i += LANES) best = larger(get_lanes(row, i, half), best);
        memcpy(lanes, &best, sizeof lanes);
        for (int l = 0; l < LANES; l++) most = lanes[l] > most ? lanes[l] : most;
    }
    for (; i < to; i++) most = get(row, i, half) > most ? get(row, i, half) : most;
    return most;
}

/* Products of one vector with LANES others, which begin at places[...] + at; those from `count` on mean nothing.
 * `a` holds its numbers in the order of `get_pair`, those that fill no pair last. */
INLINE floats dot(const float *a, const void *b, const int64_t *places, int64_t count, int64_t at, int64_t width,
                  int half) {
    floats fours[LANES / 4] = {{0}}; /* a quarter of the lanes for each of four vectors */
    int64_t even = width / (2 * LANES) * (2 * LANES);
    for (int k = 0; k < LANES / 4 && 4 * k < count; k++) {
        floats lanes[4] = {{0}};
        for (int64_t d = 0; d < even; d += 2 * LANES) {
            floats own[2], other[2];
            get_pair(a, d, own, 0);
            for (int l = 0; l < 4; l++) {
                get_pair(b, places[4 * k + l] + at + d, other, half);
                lanes[l] += own[0] * other[0];
                lanes[l] += own[1] * other[1];
            }
        }
        fours[k] = FOLD_FOUR(lanes);
    }
    floats sums = FOLD_ALL(fours);
    for (int64_t d = even; d < width; d++)
        for (int k = 0; k < LANES; k++) sums[k] += a[d] * get(b, places[k] + at + d, half);
    return sums;
}

/* Scaled dot-product attention of single queries (Vaswani et al., 2017, eq. 1).
 * Row r looks at entries first[r] ... first[r] + lengths[r] - 1 of keys and values, or, with a table,
 * at entries table[r * table_stride + j]. Strides are in numbers. Returns 0, or 1 without memory. */
INLINE int attend(const void *query, int64_t query_stride, const void *keys, const void *values, int64_t stride,
                  const int64_t *first, const int64_t *table, int64_t table_stride, const int64_t *lengths,
                  int64_t rows, int64_t heads, int64_t width, float scale, void *out, int half) {
    int64_t longest = 0, even = width / (2 * LANES) * (2 * LANES);
    for (int64_t r = 0; r < rows; r++) longest = lengths[r] > longest ? lengths[r] : longest;
    longest = (longest + LANES - 1) / LANES * LANES;
    int64_t *places = malloc(longest * sizeof(int64_t) + (longest + width) * heads * sizeof(float));
    if (!places) return 1;
    float *shares = (float *)(places + longest), *wanted = shares + heads * longest;
    for (int64_t r = 0; r < rows; r++) {
        int64_t count = lengths[r];
        for (int64_t j = 0; j < count; j++)
            places[j] = (table ? table[r * table_stride + j] : first[r] + j) * stride;
        int64_t padded = (count + LANES - 1) / LANES * LANES; /* with the first entry, at no share */
        for (int64_t j = count; j < padded; j++) places[j] = places[0];
        for (int64_t h = 0; h < heads; h++) {
            int64_t from = r * query_stride + h * width;
            for (int64_t d = 0; d < even; d += 2 * LANES) {
                floats pair[2];
                get_pair(query, from + d, pair, half);
                for (int k = 0; k < 2; k++) pair[k] *= scale;
                put_pair(wanted, h * width + d, pair, 0);
            }
            for (int64_t d = even; d < width; d++) wanted[h * width + d] = scale * get(query, from + d, half);
        }
        /* entries are read whole, all heads of some before the next ones; meanwhile those of the next row are
         * fetched, unless it looks at the same ones */
        int64_t next = r + 1 < rows && (table || first[r + 1] != first[r]) ? lengths[r + 1] : 0;
        for (int64_t j = 0; j < count || j < next; j += LANES)
            for (int64_t h = 0; h < heads; h++) {
                if (j < count) {
                    floats found = dot(wanted + h * width, keys, places + j, count - j, h * width, width, half);
                    memcpy(shares + h * longest + j, &found, sizeof found);
                }
                for (int64_t i = j + h * LANES / heads; i < j + (h + 1) * LANES / heads && i < next; i++) {
                    int64_t place = (table ? table[(r + 1) * table_stride + i] : first[r + 1] + i) * stride;
                    prefetch(keys, place, heads * width, half);
                    prefetch(values, place, heads * width, half);
                }
            }
        for (int64_t h = 0; h < heads; h++) {
            float *own = shares + h * longest, total = 0;
            for (int64_t j = count; j < padded; j++) own[j] = -INFINITY;
            float most = largest(own, 0, padded, 0);
            for (int64_t j = 0; j < padded; j += LANES)
                for (int l = 0; l < LANES; l++) own[j + l] = exponential(own[j + l] - most);
            for (int64_t j = 0; j < count; j++) total += own[j];
            for (int64_t j = 0; j < count; j++) own[j] /= total;
        }
        for (int64_t h = 0; h < heads; h++) {
            const float *own = shares + h * longest;
            int64_t at = h * width, to = (r * heads + h) * width, d = 0;
            for (; d + STRIP * 2 * LANES <= width; d += STRIP * 2 * LANES) {
                floats sum[STRIP][2] = {{{0}}}, pair[2];
                for (int64_t j = 0; j < count; j++)
                    for (int v = 0; v < STRIP; v++) {
                        get_pair(values, places[j] + at + d + v * 2 * LANES, pair, half);
                        for (int k = 0; k < 2; k++) sum[v][k] += own[j] * pair[k];
                    }
                for (int v = 0; v < STRIP; v++) put_pair(out, to + d + v * 2 * LANES, sum[v], half);
            }
            for (; d + 2 * LANES <= width; d += 2 * LANES) {
                floats sum[2] = {{0}}, pair[2];
                for (int64_t j = 0; j < count; j++) {
                    get_pair(values, places[j] + at + d, pair, half);
                    for (int k = 0; k < 2; k++) sum[k] += own[j] * pair[k];
                }
                put_pair(out, to + d, sum, half);
            }
            for (; d < width; d++) {
                float sum = 0;
                for (int64_t j = 0; j < count; j++) sum += own[j] * get(values, places[j] + at + d, half);
                put(out, to + d, sum, half);
            }
        }
    }
    free(places);
    return 0;
}

/* Largest numbers of each block of a row; `pad`, and `eos` at a first word, are read as minus infinity. */
INLINE float block_best(const void *row, int64_t block, int64_t words, const int64_t *out_of, int taken, int half) {
    int64_t from = block * BLOCK, to = from + BLOCK < words ? from + BLOCK : words;
    float kept[BLOCK];
    int clean = 1;
    for (int t = 0; t < taken; t++) clean &= out_of[t] < from || out_of[t] >= to;
    if (clean) return largest(row, from, to, half);
    for (int64_t i = from; i < to; i++) kept[i - from] = get(row, i, half);
    for (int t = 0; t < taken; t++)
        if (out_of[t] >= from && out_of[t] < to) kept[out_of[t] - from] = -INFINITY;
    return largest(kept, 0, to - from, 0);
}

/* The `count` most probable words of each row of logits, best first, equal ones in the order of the
 * dictionary, with their log-probabilities (scores may be null). `state[r]`: 0, 1 = first word (no end
 * of sentence), 2 = last word (nothing else). Returns 0, or 1 without memory. */
INLINE int best(const void *logits, int64_t rows, int64_t words, const int64_t *state, int64_t pad, int64_t eos,
                int64_t count, int64_t *found, float *scores, int half) {
    int64_t blocks = (words + BLOCK - 1) / BLOCK;
    float *tops = malloc(blocks * sizeof(float));
    int64_t *out_of = malloc((count + 2) * sizeof(int64_t));
    if (!tops || !out_of) {
        free(tops);
        free(out_of);
        return 1;
    }
    int64_t size = half ? 2 : 4;
    for (int64_t r = 0; r < rows; r++) {
        const void *row = (const char *)logits + r * words * size;
        int taken = 0;
        float most = -INFINITY, log_total = 0;
        for (int64_t b = 0; b < blocks; b++) {
            tops[b] = block_best(row, b, words, out_of, 0, half);
            most = tops[b] > most ? tops[b] : most;
        }
        if (scores) {
            float total = 0;
            for (int64_t i = 0; i < words; i++) total += exponential(get(row, i, half) - most);
            log_total = most + logf(total);
        }
        if (state[r] == 2) {
            for (int64_t n = 0; n < count; n++) {
                found[r * count + n] = eos;
                if (scores) scores[r * count + n] = n ? -INFINITY : get(row, eos, half) - log_total;
            }
            continue;
        }
        out_of[taken++] = pad;
        if (state[r] == 1) out_of[taken++] = eos;
        for (int t = 0; t < taken; t++)
            tops[out_of[t] / BLOCK] = block_best(row, out_of[t] / BLOCK, words, out_of, taken, half);
        for (int64_t n = 0; n < count; n++) {
            int64_t block = 0;
            for (int64_t b = 1; b < blocks; b++) block = tops[b] > tops[block] ? b : block;
            int64_t i = block * BLOCK, last = i + BLOCK < words ? i + BLOCK - 1 : words - 1;
            for (; i < last; i++) {
                int free_ = 1;
                for (int t = 0; t < taken; t++) free_ &= out_of[t] != i;
                if (free_ && get(row, i, half) == tops[block]) break;
            }
            found[r * count + n] = i;
            if (scores) scores[r * count + n] = tops[block] - log_total;
            if (n + 1 < count) {
                out_of[taken++] = i;
                tops[block] = block_best(row, block, words, out_of, taken, half);
            }
        }
    }
    free(tops);
    free(out_of);
    return 0;
}

/* One step of an LSTM (Hochreiter and Schmidhuber, 1997) from its joined gates [rows, 4 * width], in the
 * order input, forget, cell, output. `cell`, float32 [rows, width], is updated in place. */
INLINE int lstm(const void *gates, float *cell, void *hidden, int64_t rows, int64_t width, int half) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t d = 0; d < width; d++) {
            int64_t at = r * 4 * width + d;
            float into = sigmoid(get(gates, at, half)), forget = sigmoid(get(gates, at + width, half));
            float new = 2.0f * sigmoid(2.0f * get(gates, at + 2 * width, half)) - 1.0f;
            float out = sigmoid(get(gates, at + 3 * width, half));
            float content = forget * cell[r * width + d] + into * new;
            cell[r * width + d] = content;
            put(hidden, r * width + d, out * (2.0f * sigmoid(2.0f * content) - 1.0f), half);
        }
    return 0;
}

/* Layer normalisation (Ba et al., 2016) of rows of x, or of x + y where there is a y. Returns 0, or 1 without
 * memory. */
INLINE int norm(const void *x, const void *y, const void *weight, const void *bias, int64_t rows, int64_t width,
                float eps, void *out, int half) {
    int64_t even = width / (2 * LANES) * (2 * LANES);
    float *kept = malloc(width * sizeof(float));
    if (!kept) return 1;
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = r * width;
        floats sums = {0}, squares = {0}, pair[2], other[2];
        float total = 0, rest = 0;
        for (int64_t d = 0; d < even; d += 2 * LANES) {
            get_pair(x, at + d, pair, half);
            if (y) {
                get_pair(y, at + d, other, half);
                for (int k = 0; k < 2; k++) pair[k] += other[k];
            }
            sums += pair[0] + pair[1];
            put_pair(kept, d, pair, 0);
        }
        for (int64_t d = even; d < width; d++) {
            kept[d] = get(x, at + d, half) + (y ? get(y, at + d, half) : 0);
            total += kept[d];
        }
        float mean = (total + sum_lanes(sums)) / width;
        for (int64_t d = 0; d < even; d += 2 * LANES) {
            get_pair(kept, d, pair, 0);
            for (int k = 0; k < 2; k++) squares += (pair[k] - mean) * (pair[k] - mean);
        }
        for (int64_t d = even; d < width; d++) rest += (kept[d] - mean) * (kept[d] - mean);
        float rate = 1.0f / sqrtf((rest + sum_lanes(squares)) / width + eps);
        for (int64_t d = 0; d < even; d += 2 * LANES) {
            floats scale[2], shift[2];
            get_pair(kept, d, pair, 0);
            get_pair(weight, d, scale, half);
            get_pair(bias, d, shift, half);
            for (int k = 0; k < 2; k++) pair[k] = (pair[k] - mean) * rate * scale[k] + shift[k];
            put_pair(out, at + d, pair, half);
        }
        for (int64_t d = even; d < width; d++)
            put(out, at + d, (kept[d] - mean) * rate * get(weight, d, half) + get(bias, d, half), half);
    }
    free(kept);
    return 0;
}

#define PASTE(name, suffix, lanes) name##_##suffix##_##lanes
#define NAMED(name, suffix, lanes) PASTE(name, suffix, lanes)
#define EXPORT(SUFFIX, HALF)                                                                                        \
    TARGET int NAMED(attend, SUFFIX, LANES)(const void *query, int64_t query_stride, const void *keys,              \
                                            const void *values, int64_t stride, const int64_t *first,               \
                                            const int64_t *table, int64_t table_stride, const int64_t *lengths,     \
                                            int64_t rows, int64_t heads, int64_t width, float scale, void *out) {   \
        return attend(query, query_stride, keys, values, stride, first, table, table_stride, lengths, rows, heads,  \
                      width, scale, out, HALF);                                                                     \
    }                                                                                                               \
    TARGET int NAMED(best, SUFFIX, LANES)(const void *logits, int64_t rows, int64_t words, const int64_t *state,    \
                                          int64_t pad, int64_t eos, int64_t count, int64_t *found,                  \
                                          float *scores) {                                                          \
        return best(logits, rows, words, state, pad, eos, count, found, scores, HALF);                              \
    }                                                                                                               \
    TARGET int NAMED(lstm, SUFFIX, LANES)(const void *gates, float *cell, void *hidden, int64_t rows,               \
                                          int64_t width) {                                                          \
        return lstm(gates, cell, hidden, rows, width, HALF);                                                        \
    }                                                                                                               \
    TARGET int NAMED(norm, SUFFIX, LANES)(const void *x, const void *y, const void *weight, const void *bias,       \
                                          int64_t rows, int64_t width, float eps, void *out) {                      \
        return norm(x, y, weight, bias, rows, width, eps, out, HALF);                                               \
    }

EXPORT(float32, 0)
EXPORT(bfloat16, 1)
