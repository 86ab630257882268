// Products of small matrices with a block of coordinates.
//
// A block is BLOCK neighbouring coordinates, feature-major: row after row of BLOCK floats, so that a vector holds
// neighbouring coordinates and weights are broadcast. Two vectors a row: a product then loads 7 vectors for 10
// multiply-adds.
#pragma once
#include "vectors.h"

namespace {

constexpr int BLOCK = 2 * WIDTH;

// Rows of a product that stay in registers, two vectors each; the last tile takes what is left. Six is the most that fits
// 16 registers beside the factors, and pays where no smaller tile is left over.
constexpr int row_tile(int rows) { return WIDTH == 16 ? 10 : rows % 6 == 0 ? 6 : 5; }

constexpr int REGISTER_SUMS = WIDTH == 16 ? 24 : 12;  // of 32 or 16 registers; the rest hold the factors

// Tile after tile of row_tile rows, for each column the rows of the tile side by side.
inline void pack(const float* w, int rows, int depth, int row_stride, int column_stride, float* packed) {
  const int most = row_tile(rows);
  for (int first = 0; first < rows; first += most) {
    const int tile = rows - first < most ? rows - first : most;
    for (int k = 0; k < depth; k++)
      for (int r = 0; r < tile; r++) *packed++ = w[(first + r) * row_stride + k * column_stride];
  }
}

template <int ROWS, int DEPTH>
inline void multiply_add(Vector (&sum)[ROWS][2], const float* packed, const float* x) {
  for (int k = 0; k < DEPTH; k++, packed += ROWS, x += BLOCK) {
    const Vector left = load(x), right = load(x + WIDTH);
    UNROLLED for (int r = 0; r < ROWS; r++) sum[r][0] += packed[r] * left, sum[r][1] += packed[r] * right;
  }
}

template <int ROWS, int DEPTH, int OWN_DEPTH>
inline void product_tile(const float* packed, const float* bias, const float* x, const float* own, float* z) {
  Vector sum[ROWS][2];
  UNROLLED for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = splat(bias ? bias[r] : 0.f);
  multiply_add<ROWS, DEPTH>(sum, packed, x);
  multiply_add<ROWS, OWN_DEPTH>(sum, packed + ROWS * DEPTH, own);
  UNROLLED for (int r = 0; r < ROWS; r++) store(z + r * BLOCK, sum[r][0]), store(z + r * BLOCK + WIDTH, sum[r][1]);
}

// z (ROWS x BLOCK) = bias + packed (ROWS x (DEPTH + OWN_DEPTH)) * [x; own], x (DEPTH x BLOCK), own (OWN_DEPTH x BLOCK)
template <int ROWS, int DEPTH, int OWN_DEPTH>
APART void product(const float* packed, const float* bias, const float* x, const float* own, float* z) {
  constexpr int TILE = row_tile(ROWS), REST = ROWS % TILE, K = DEPTH + OWN_DEPTH;
  int r = 0;
  for (; r < ROWS - REST; r += TILE)
    product_tile<TILE, DEPTH, OWN_DEPTH>(packed + r * K, bias ? bias + r : bias, x, own, z + r * BLOCK);
  if constexpr (REST > 0)
    product_tile<REST, DEPTH, OWN_DEPTH>(packed + r * K, bias ? bias + r : bias, x, own, z + r * BLOCK);
}

// matrix (GROUP x VECTORS vectors, rows `stride` apart) += z (GROUP of ROWS x BLOCK) * transposed (BLOCK x stride), summed over
// STEPS of both.
template <int STEPS, int ROWS, int GROUP, int VECTORS>
inline void outer_tile(const float* z, const float* transposed, int stride, float* matrix) {
  Vector sum[GROUP][VECTORS];
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = load(matrix + r * stride + v * WIDTH);
  for (int step = 0; step < STEPS; step++, z += ROWS * BLOCK)
    for (int n = 0; n < BLOCK; n++, transposed += stride) {
      Vector x[VECTORS];
      UNROLLED for (int v = 0; v < VECTORS; v++) x[v] = load(transposed + v * WIDTH), hold(x[v]);
      UNROLLED for (int r = 0; r < GROUP; r++)
        UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] += z[r * BLOCK + n] * x[v];
    }
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) store(matrix + r * stride + v * WIDTH, sum[r][v]);
}

// [x; own] ((DEPTH + OWN_DEPTH) x BLOCK) -> transposed (BLOCK x KP), zero beyond
template <int DEPTH, int OWN_DEPTH, int KP>
APART void transpose(const float* x, const float* own, float* transposed) {
  for (int k = 0; k < KP; k += WIDTH)
    for (int n = 0; n < BLOCK; n += WIDTH) {
      Vector rows[WIDTH];
      UNROLLED for (int r = 0; r < WIDTH; r++) {
        const int row = k + r;
        rows[r] = row < DEPTH            ? load(x + row * BLOCK + n)
                  : row < DEPTH + OWN_DEPTH ? load(own + (row - DEPTH) * BLOCK + n)
                                         : Vector{};
      }
      exchange_all<WIDTH / 2>(rows);
      UNROLLED for (int r = 0; r < WIDTH; r++) store(transposed + (n + r) * KP + k, rows[r]);
    }
}

}  // namespace
