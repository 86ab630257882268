// A window of steps replayed and differentiated, while a block's activations stay in the cache.
#pragma once
#include "lstm.h"

namespace {

constexpr int REGISTER_SUMS = WIDTH == 16 ? 24 : 12;  // of 32 or 16 registers; the rest hold the factors

// What the backward pass needs of one step of one block.
struct Record {
  float x[INPUTS * BLOCK], gates[LAYERS][GATES * BLOCK], c[LAYERS][AREA], tanh_c[LAYERS][AREA], h[LAYERS][AREA];
};

struct Sums {  // over one block's window; sums over coordinates stay vectors until they are added up
  float matrix[LAYERS][GATES * PADDED], bias[LAYERS][GATES * WIDTH], read_out[HIDDEN * WIDTH], read_out_bias[WIDTH];
};

template <int GROUP, int VECTORS>
inline void outer_tile(const float* z, const float* transposed, int stride, float* matrix) {
  Vector sum[GROUP][VECTORS];
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = load(matrix + r * stride + v * WIDTH);
  for (int n = 0; n < BLOCK; n++) {
    Vector x[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) x[v] = load(transposed + n * stride + v * WIDTH);
    UNROLLED for (int r = 0; r < GROUP; r++)
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] += z[r * BLOCK + n] * x[v];
  }
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) store(matrix + r * stride + v * WIDTH, sum[r][v]);
}

template <int VECTORS>
inline void outer_columns(const float* z, const float* transposed, int stride, float* matrix) {
  constexpr int GROUP = REGISTER_SUMS / VECTORS, REST = GATES % GROUP;
  int g = 0;
  for (; g < GATES - REST; g += GROUP)
    outer_tile<GROUP, VECTORS>(z + g * BLOCK, transposed, stride, matrix + g * stride);
  if constexpr (REST > 0) outer_tile<REST, VECTORS>(z + g * BLOCK, transposed, stride, matrix + g * stride);
}

// matrix (GATES x KP) += z (GATES x BLOCK) * transposed (BLOCK x KP)
template <int KP>
inline void outer(const float* z, const float* transposed, float* matrix) {
  constexpr int WIDE = KP / WIDTH % 5 == 0 ? 5 : 3, REST = KP / WIDTH % WIDE;
  int q = 0;
  for (; q < KP - REST * WIDTH; q += WIDE * WIDTH) outer_columns<WIDE>(z, transposed + q, KP, matrix + q);
  if constexpr (REST > 0) outer_columns<REST>(z, transposed + q, KP, matrix + q);
}

// [x; own] ((DEPTH + HIDDEN) x BLOCK) -> transposed (BLOCK x KP), zero beyond
template <int DEPTH, int KP>
inline void transpose(const float* x, const float* own, float* transposed) {
  for (int k = 0; k < KP; k += WIDTH)
    for (int n = 0; n < BLOCK; n += WIDTH) {
      Vector rows[WIDTH];
      UNROLLED for (int r = 0; r < WIDTH; r++) {
        const int row = k + r;
        rows[r] = row < DEPTH            ? load(x + row * BLOCK + n)
                  : row < DEPTH + HIDDEN ? load(own + (row - DEPTH) * BLOCK + n)
                                         : Vector{};
      }
      exchange_all<WIDTH / 2>(rows);
      UNROLLED for (int r = 0; r < WIDTH; r++) store(transposed + (n + r) * KP + k, rows[r]);
    }
}

// A thread's memory.
struct Workspace {
  Sums sums;
  float z[GATES * BLOCK], transposed[BLOCK * PADDED];
  float d_input[LAYERS][2 * AREA];  // what a layer returned: to the layer below (layer 0: nothing), to the step before
  float d_cell[LAYERS][AREA];
  float gradient[BLOCK], cotangent[BLOCK];
  Record records[];
};

constexpr int own_at(int layer) { return layer == 0 ? 0 : AREA; }

// From d/dh and d/dc of a step's result to z = d/d(pre-activations); d/dc of the step before replaces d/dc.
template <int L>
inline void cell_backward(const Prepared& w, const Record& r, const float* c_before, const float* du, Workspace& s) {
  const float *gates = r.gates[L], *carried_h = s.d_input[L] + own_at(L);
  float* z = s.z;
  for (int j = 0; j < HIDDEN; j++)
    for (int v = 0; v < BLOCK; v += WIDTH) {
      const int e = j * BLOCK + v;
      Vector d;
      if constexpr (L == LAYERS - 1) d = w.read_out[j] * load(du + v) + load(carried_h + e);
      else d = load(s.d_input[L + 1] + e) + load(carried_h + e);
      const Vector i = load(gates + e), f = load(gates + AREA + e), g = load(gates + 2 * AREA + e);
      const Vector o = load(gates + 3 * AREA + e), t = load(r.tanh_c[L] + e);
      const Vector carried = d * o * (1.f - t * t) + load(s.d_cell[L] + e);
      store(z + e, carried * g * (i - i * i));
      store(z + AREA + e, carried * load(c_before + e) * (f - f * f));
      store(z + 2 * AREA + e, carried * i * (1.f - g * g));
      store(z + 3 * AREA + e, d * t * (o - o * o));
      store(s.d_cell[L] + e, carried * f);
    }
}

template <int L>
inline void layer_backward(const Prepared& w, const Record& r, const float* const* h_before,
                           const float* const* c_before, const float* du, Workspace& s) {
  cell_backward<L>(w, r, c_before[L], du, s);
  const float* x = L == 0 ? r.x : r.h[L > 0 ? L - 1 : 0];
  transpose<inputs(L), padded(L)>(x, h_before[L], s.transposed);
  outer<padded(L)>(s.z, s.transposed, s.sums.matrix[L]);
  for (int g = 0; g < GATES; g++) {
    float* bias = s.sums.bias[L] + g * WIDTH;
    store(bias, load(bias) + (load(s.z + g * BLOCK) + load(s.z + g * BLOCK + WIDTH)));
  }
  product<columns(L) - (L == 0 ? INPUTS : 0), GATES, 0>(w.backward[L], nullptr, s.z, nullptr, s.d_input[L]);
  if constexpr (L > 0) layer_backward<L - 1>(w, r, h_before, c_before, du, s);
}

inline void forward(const Prepared& w, const float* const* h_before, const float* const* c_before, Record& r) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer;
    const float* x = L == 0 ? r.x : r.h[L > 0 ? L - 1 : 0];
    product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, h_before[L], r.gates[L]);
    cell(r.gates[L], c_before[L], r.c[L], r.tanh_c[L], r.h[L]);
  });
}

// Add the block's sums to the chunk's, in double: within a block float32 adds up no more than steps x BLOCK terms.
void add_up(const Sums& sums, double* out) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer, K = columns(L);
    for (int g = 0; g < GATES; g++) {
      for (int k = 0; k < K; k++) out[matrix_at(L) + g * K + k] += sums.matrix[L][g * padded(L) + k];
      for (int v = 0; v < WIDTH; v++) out[bias_at(L) + g] += sums.bias[L][g * WIDTH + v];
    }
  });
  for (int j = 0; j < HIDDEN; j++)
    for (int v = 0; v < WIDTH; v++) out[READ_OUT + j] += sums.read_out[j * WIDTH + v];
  for (int v = 0; v < WIDTH; v++) out[READ_OUT_BIAS] += sums.read_out_bias[v];
}

struct Window {
  int64_t steps, coordinates, gradient_stride, cotangent_stride;
  const float *gradients, *cotangents, *snapshot;
};

void window_of_block(const Prepared& w, const Window& window, int64_t block, Workspace& s, double* out) {
  const float* state = window.snapshot + block * STATE;
  const float *h[LAYERS], *c[LAYERS];
  auto before = [&](int64_t t) {
    for (int l = 0; l < LAYERS; l++) {
      h[l] = t ? s.records[t - 1].h[l] : state + 2 * l * AREA;
      c[l] = t ? s.records[t - 1].c[l] : state + (2 * l + 1) * AREA;
    }
  };
  for (int64_t t = 0; t < window.steps; t++) {
    before(t);
    const float* row = window.gradients + t * window.gradient_stride;
    features(w, whole_block(row, block, window.coordinates, s.gradient), s.records[t].x);
    forward(w, h, c, s.records[t]);
  }
  memset(&s.sums, 0, sizeof s.sums);
  memset(s.d_input, 0, sizeof s.d_input);
  memset(s.d_cell, 0, sizeof s.d_cell);
  for (int64_t t = window.steps - 1; t >= 0; t--) {
    before(t);
    const float* row = window.cotangents + t * window.cotangent_stride;
    const float *given = whole_block(row, block, window.coordinates, s.cotangent), *top = s.records[t].h[LAYERS - 1];
    const Vector left = load(given) * w.output_scale, right = load(given + WIDTH) * w.output_scale;
    store(s.cotangent, left), store(s.cotangent + WIDTH, right);
    store(s.sums.read_out_bias, load(s.sums.read_out_bias) + (left + right));
    for (int j = 0; j < HIDDEN; j++) {
      float* sum = s.sums.read_out + j * WIDTH;
      store(sum, load(sum) + left * load(top + j * BLOCK) + right * load(top + j * BLOCK + WIDTH));
    }
    layer_backward<LAYERS - 1>(w, s.records[t], h, c, s.cotangent, s);
  }
  add_up(s.sums, out);
}

}  // namespace
