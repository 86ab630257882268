// Newton and Schulz's iteration for one matrix, and the way back through it.
//
// A second telling of gradsmith/rules/orthogonal.py, whose names these are; tests/sdk/test_native_tensors.py holds them equal.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sums.h"

namespace {

constexpr int ITERATIONS = 5;
constexpr float OF_X = 3.4445f, OF_G = -4.7750f, OF_GG = 2.0315f, NO_NORM = 1e-30f;

inline float longer_side(int64_t rows, int64_t columns) { return 0.2f * sqrtf(rows > columns ? rows : columns); }

// Some rows and VECTORS vectors of columns of a product, their sums in registers. Lanes below `first` are left alone.
template <int ROWS, int VECTORS>
inline void tile(int64_t depth, int64_t columns, const float* a, const float* b, float* sum, int first) {
  Vector lanes[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; k++)
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      const Vector x = load(b + k * columns + v * WIDTH);
      UNROLLED for (int r = 0; r < ROWS; r++) lanes[r][v] += a[r * depth + k] * x;
    }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) {
      float* const to = sum + r * columns + v * WIDTH;
      if (!first)
        store(to, load(to) + lanes[r][v]);
      else
        for (int lane = first; lane < WIDTH; lane++) to[lane] += lanes[r][v][lane];
    }
}

template <int ROWS>
inline void add_rows(int64_t depth, int64_t columns, const float* a, const float* b, float* sum) {
  int64_t j = 0;
  for (; j + 2 * WIDTH <= columns; j += 2 * WIDTH) tile<ROWS, 2>(depth, columns, a, b + j, sum + j, 0);
  for (; j + WIDTH <= columns; j += WIDTH) tile<ROWS, 1>(depth, columns, a, b + j, sum + j, 0);
  if (j == columns) return;
  if (columns >= WIDTH) {
    const int64_t at = columns - WIDTH;
    return tile<ROWS, 1>(depth, columns, a, b + at, sum + at, static_cast<int>(j - at));
  }
  for (int r = 0; r < ROWS; r++)
    for (int64_t k = 0; k < depth; k++)
      for (int64_t c = j; c < columns; c++) sum[r * columns + c] += a[r * depth + k] * b[k * columns + c];
}

// (rows x columns) += (rows x depth) (depth x columns)
APART void add_product(int64_t rows, int64_t depth, int64_t columns, const float* a, const float* b, float* sum) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) add_rows<4>(depth, columns, a + i * depth, b, sum + i * columns);
  for (; i < rows; i++) add_rows<1>(depth, columns, a + i * depth, b, sum + i * columns);
}

// (columns x rows) = transposed of (rows x columns)
inline void transpose(int64_t rows, int64_t columns, const float* x, float* y) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) y[j * rows + i] = x[i * columns + j];
}

// A matrix lying down, (n x m) with n <= m, in memory of the caller's. keeps: what every iteration had, for the way back.
class Orthogonal {
 public:
  Orthogonal(int64_t rows, int64_t columns, float* memory, bool keeps)
      : _tall(rows > columns), _n(_tall ? columns : rows), _m(_tall ? rows : columns), _keeps(keeps) {
    const int64_t kept = keeps ? ITERATIONS : 1;
    _x = memory, _g = _x + (kept + 1) * _n * _m, _p = _g + kept * _n * _n;
    _norm = _p + kept * _n * _n, _wide = _norm + 1, _other = _wide + _n * _m, _small = _other + _n * _m;
  }

  static int64_t floats(int64_t rows, int64_t columns, bool keeps) {
    const int64_t kept = keeps ? ITERATIONS : 1, n = rows < columns ? rows : columns, m = rows + columns - n;
    return (kept + 3) * n * m + (2 * kept + 3) * n * n + 1;
  }

  void forward(const float* matrix) const {
    const int64_t size = _n * _m;
    double square[1];
    sums<1>(size, square, [&](Vector(&lanes)[1], const auto& at) {
      const Vector x = at(matrix);
      lanes[0] += x * x;
    });
    const double norm = sqrt(square[0]);
    *_norm = norm < NO_NORM ? NO_NORM : norm;  // NaN stays
    if (_tall)
      transpose(_m, _n, matrix, _x);
    else
      memcpy(_x, matrix, sizeof(float) * size);
    for (int64_t i = 0; i < size; i++) _x[i] /= *_norm;
    for (int step = 0; step < ITERATIONS; step++) {
      float *x = x_of(step), *g = g_of(step), *p = p_of(step), *next = x_of(step + 1);
      transpose(_n, _m, x, _wide);
      memset(g, 0, sizeof(float) * _n * _n);
      add_product(_n, _m, _n, x, _wide, g);
      memset(p, 0, sizeof(float) * _n * _n);
      add_product(_n, _n, _n, g, g, p);
      for (int64_t i = 0; i < _n * _n; i++) p[i] = OF_G * g[i] + OF_GG * p[i];
      for (int64_t i = 0; i < size; i++) next[i] = OF_X * x[i];
      add_product(_n, _n, _m, p, x, next);
    }
  }

  void result(float* matrix) const { stood_up(x_of(ITERATIONS), matrix); }

  // worth: dL / d(result), which becomes dL / d(matrix)
  void back(float* worth) const {
    const int64_t size = _n * _m, square = _n * _n;
    float *d = _other, *next = x_of(ITERATIONS), *both = _small, *product = _small + square, *of_g = _small + 2 * square;
    if (_tall)
      transpose(_m, _n, worth, d);
    else
      memcpy(d, worth, sizeof(float) * size);
    for (int step = ITERATIONS - 1; step >= 0; step--) {
      const float *x = x_of(step), *g = g_of(step), *p = p_of(step);
      transpose(_n, _m, x, _wide);
      memset(product, 0, sizeof(float) * square);
      add_product(_n, _m, _n, d, _wide, product);  // dL / dP
      for (int64_t i = 0; i < _n; i++)
        for (int64_t j = 0; j < _n; j++) both[i * _n + j] = product[i * _n + j] + product[j * _n + i];
      memset(product, 0, sizeof(float) * square);
      add_product(_n, _n, _n, both, g, product);
      for (int64_t i = 0; i < _n; i++)
        for (int64_t j = 0; j < _n; j++)
          of_g[i * _n + j] = OF_G * both[i * _n + j] + OF_GG * (product[i * _n + j] + product[j * _n + i]);
      for (int64_t i = 0; i < size; i++) next[i] = OF_X * d[i];
      add_product(_n, _n, _m, p, d, next);
      add_product(_n, _n, _m, of_g, x, next);
      float* const done = d;
      d = next, next = done;
    }
    double along[1];
    sums<1>(size, along, [&](Vector(&lanes)[1], const auto& at) { lanes[0] += at(d) * at(_x); });
    for (int64_t i = 0; i < size; i++) d[i] = (d[i] - _x[i] * static_cast<float>(along[0])) / *_norm;
    stood_up(d, worth);
  }

 private:
  float* x_of(int step) const { return _x + (_keeps ? step : step % 2) * _n * _m; }
  float* g_of(int step) const { return _g + (_keeps ? step : 0) * _n * _n; }
  float* p_of(int step) const { return _p + (_keeps ? step : 0) * _n * _n; }

  void stood_up(const float* lying, float* matrix) const {
    if (_tall)
      transpose(_n, _m, lying, matrix);
    else
      memcpy(matrix, lying, sizeof(float) * _n * _m);
  }

  bool _tall;
  int64_t _n, _m;
  bool _keeps;
  float *_x, *_g, *_p, *_norm, *_wide, *_other, *_small;
};

}  // namespace
