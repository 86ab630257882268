// Products in bfloat16: factors rounded to the nearest, ties to even, in pairs; products exact, their sums in float32.
//
// A pair is two bfloat16 numbers in 32 bits, the first in the lower half. AVX512-BF16 multiplies and adds pairs in one
// instruction. On any other CPU the same sums are made of float32 products, which costs more than float32 factors do.
#pragma once
#include "product.h"

namespace {

struct __attribute__((may_alias)) Pair {
  uint32_t halves;
};
typedef Words Pairs;  // a pair in every lane
typedef uint32_t WordsInMemory __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

inline Pairs load(const Pair* p) { return *reinterpret_cast<const WordsInMemory*>(p); }
inline void store(Pair* p, Pairs v) { *reinterpret_cast<WordsInMemory*>(p) = v; }
inline Pairs splat(Pair x) { return Pairs{} + x.halves; }

#if WIDTH == 16 && defined(__AVX512BF16__)
inline Vector add_products(Vector sum, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
// Sixteen numbers of `low`, then sixteen of `high`.
inline Pairs halves_of(Vector low, Vector high) { return (Pairs)_mm512_cvtne2ps_pbh(high, low); }
inline Pairs in_pairs(Vector first, Vector second) {
  typedef int16_t Places __attribute__((vector_size(64)));
  const Places each{0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (Pairs)_mm512_permutexvar_epi16((__m512i)each, (__m512i)halves_of(first, second));
}
#else
inline Vector add_products(Vector sum, Pairs a, Pairs b) {
  const auto first = [](Pairs x) { return reinterpret_cast<Vector>(x << 16); };
  const auto second = [](Pairs x) { return reinterpret_cast<Vector>(x & 0xffff0000u); };
  sum += second(a) * second(b);
  return sum + first(a) * first(b);
}
inline Pairs halves_of(Vector low, Vector high) {
  Bfloat16 halves[BLOCK];
  store(halves, low), store(halves + WIDTH, high);
  return load(reinterpret_cast<const Pair*>(halves));
}
inline Pairs in_pairs(Vector first, Vector second) { return upper_half(first) | upper_half(second) << 16; }
#endif

// As for float32 factors: a column is a pair of columns; behind an odd number of them is a zero.
inline void pack(const float* w, int rows, int depth, int row_stride, int column_stride, Pair* packed) {
  const int most = row_tile(rows);
  for (int first = 0; first < rows; first += most) {
    const int tile = rows - first < most ? rows - first : most;
    for (int k = 0; k < depth; k += 2)
      for (int r = 0; r < tile; r++) {
        const float* const at = w + (first + r) * row_stride + k * column_stride;
        const float second = k + 1 < depth ? at[column_stride] : 0.f;
        packed++->halves = upper_half(splat(*at))[0] | upper_half(splat(second))[0] << 16;
      }
  }
}

// Rows of [x; own] in pairs, one below the other: ((DEPTH + OWN_DEPTH) x BLOCK) -> (half as many x BLOCK)
template <int DEPTH, int OWN_DEPTH>
inline void pair_rows(const float* x, const float* own, Pair* paired) {
  const auto at = [&](int row, int v) {
    return row < DEPTH               ? load(x + row * BLOCK + v)
           : row < DEPTH + OWN_DEPTH ? load(own + (row - DEPTH) * BLOCK + v)
                                     : Vector{};
  };
  for (int k = 0; k < DEPTH + OWN_DEPTH; k += 2, paired += BLOCK)
    for (int v = 0; v < BLOCK; v += WIDTH) store(paired + v, in_pairs(at(k, v), at(k + 1, v)));
}

template <int ROWS, int PAIRS>
inline void product_tile(const Pair* packed, const float* bias, const Pair* x, float* z) {
  Vector sum[ROWS][2];
  UNROLLED for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = splat(bias ? bias[r] : 0.f);
  for (int k = 0; k < PAIRS; k++, packed += ROWS, x += BLOCK) {
    const Pairs left = load(x), right = load(x + WIDTH);
    UNROLLED for (int r = 0; r < ROWS; r++) {
      const Pairs w = splat(packed[r]);
      sum[r][0] = add_products(sum[r][0], w, left), sum[r][1] = add_products(sum[r][1], w, right);
    }
  }
  UNROLLED for (int r = 0; r < ROWS; r++) store(z + r * BLOCK, sum[r][0]), store(z + r * BLOCK + WIDTH, sum[r][1]);
}

// As for float32 factors; x and own are rounded here.
template <int ROWS, int DEPTH, int OWN_DEPTH>
APART void product(const Pair* packed, const float* bias, const float* x, const float* own, float* z) {
  constexpr int TILE = row_tile(ROWS), REST = ROWS % TILE, PAIRS = (DEPTH + OWN_DEPTH + 1) / 2;
  Pair paired[PAIRS * BLOCK];
  pair_rows<DEPTH, OWN_DEPTH>(x, own, paired);
  int r = 0;
  for (; r < ROWS - REST; r += TILE)
    product_tile<TILE, PAIRS>(packed + r * PAIRS, bias ? bias + r : bias, paired, z + r * BLOCK);
  if constexpr (REST > 0)
    product_tile<REST, PAIRS>(packed + r * PAIRS, bias ? bias + r : bias, paired, z + r * BLOCK);
}

// Neighbouring coordinates in pairs: (ROWS x BLOCK) -> (ROWS x WIDTH), in the memory that the rows had.
template <int ROWS>
APART const Pair* pair_columns(float* rows) {
  Pair* const paired = reinterpret_cast<Pair*>(rows);
  for (int r = 0; r < ROWS; r++, rows += BLOCK) store(paired + r * WIDTH, halves_of(load(rows), load(rows + WIDTH)));
  return paired;
}

// As for float32 factors, with pairs of coordinates: z (GROUP of ROWS x WIDTH) * transposed (WIDTH x stride)
template <int STEPS, int ROWS, int GROUP, int VECTORS>
inline void outer_tile(const Pair* z, const Pair* transposed, int stride, float* matrix) {
  Vector sum[GROUP][VECTORS];
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = load(matrix + r * stride + v * WIDTH);
  for (int step = 0; step < STEPS; step++, z += ROWS * WIDTH)
    for (int n = 0; n < WIDTH; n++, transposed += stride) {
      Pairs x[VECTORS];
      UNROLLED for (int v = 0; v < VECTORS; v++) x[v] = load(transposed + v * WIDTH);
      UNROLLED for (int r = 0; r < GROUP; r++) {
        const Pairs each = splat(z[r * WIDTH + n]);
        UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = add_products(sum[r][v], each, x[v]);
      }
    }
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) store(matrix + r * stride + v * WIDTH, sum[r][v]);
}

// [x; own] ((DEPTH + OWN_DEPTH) x BLOCK) -> transposed (WIDTH pairs of coordinates x KP), zero beyond
template <int DEPTH, int OWN_DEPTH, int KP>
APART void transpose(const float* x, const float* own, Pair* transposed) {
  for (int k = 0; k < KP; k += WIDTH) {
    Vector rows[WIDTH];
    UNROLLED for (int r = 0; r < WIDTH; r++) {
      const int row = k + r;
      const float* const at = row < DEPTH ? x + row * BLOCK : own + (row - DEPTH) * BLOCK;
      rows[r] = row < DEPTH + OWN_DEPTH ? reinterpret_cast<Vector>(halves_of(load(at), load(at + WIDTH))) : Vector{};
    }
    exchange_all<WIDTH / 2>(rows);
    UNROLLED for (int r = 0; r < WIDTH; r++) store(transposed + r * KP + k, reinterpret_cast<Pairs>(rows[r]));
  }
}

}  // namespace
