// The rule on one block of coordinates: sizes, weights, and the pieces of a step that forward and backward share.
//
// A block is BLOCK neighbouring coordinates, feature-major: row after row of BLOCK floats, so that a vector holds
// neighbouring coordinates and weights are broadcast. A block's state is, layer after layer, h (HIDDEN rows) and c
// (HIDDEN rows). Two vectors a row: a product then loads 7 vectors for 10 multiply-adds, and a 20-step window of the
// 2x20 LSTM takes 260 KB (AVX2) or 520 KB (AVX-512), within the L2 cache of such CPUs.
#pragma once
#include <cstring>
#include <type_traits>

#include "pairs.h"

namespace {

constexpr int GATES = 4 * HIDDEN;

// What products multiply: float32 numbers, or pairs in bfloat16.
typedef std::conditional_t<BFLOAT16, Pair, float> Factor;
constexpr int factors(int depth) { return BFLOAT16 ? (depth + 1) / 2 : depth; }
constexpr int AREA = HIDDEN * BLOCK;
constexpr int STATE = 2 * LAYERS * AREA;

// A record is what the gradient needs of one step of one layer: the gates' activations, then c. tanh(c) and h follow
// from them for less than it costs to keep them.
constexpr int RECORD = GATES * BLOCK + AREA;

constexpr int inputs(int layer) { return layer == 0 ? INPUTS : HIDDEN; }
constexpr int columns(int layer) { return inputs(layer) + HIDDEN; }  // [the layer's input, its own h]
constexpr int padded(int layer) { return (columns(layer) + WIDTH - 1) / WIDTH * WIDTH; }
constexpr int WIDEST = columns(0) > 2 * HIDDEN || LAYERS == 1 ? columns(0) : 2 * HIDDEN;
constexpr int PADDED = (WIDEST + WIDTH - 1) / WIDTH * WIDTH;

// Weights are flat, in the order of the rule's matrices: for each layer [GATES][columns] and [GATES] biases; then
// the read-out's [HIDDEN] and [1].
constexpr int matrix_at(int layer) {
  int at = 0;
  for (int l = 0; l < layer; l++) at += GATES * columns(l) + GATES;
  return at;
}
constexpr int bias_at(int layer) { return matrix_at(layer) + GATES * columns(layer); }
constexpr int READ_OUT = matrix_at(LAYERS), READ_OUT_BIAS = READ_OUT + HIDDEN, WEIGHTS = READ_OUT_BIAS + 1;

template <int L, typename Do>
inline void for_each_layer(const Do& run) {
  if constexpr (L < LAYERS) {
    run(std::integral_constant<int, L>());
    for_each_layer<L + 1>(run);
  }
}

// The weights as the loops read them, made once for each set of weights.
struct Prepared {
  Factor forward[LAYERS][GATES * factors(WIDEST)];
  float bias[LAYERS][GATES];  // this and the former times the activations' scales, but for factors in bfloat16
  Factor backward[LAYERS][WIDEST * factors(GATES)];
  float read_out[HIDDEN], read_out_bias;
  float p, threshold_scale, output_scale;
};

// Weights in bfloat16 are those of the rule, rounded: the activations' scales come behind the sums.
constexpr float SIGMOID_PACKED = BFLOAT16 ? 1.f : SIGMOID_SCALE, SIGMOID_LEFT = BFLOAT16 ? SIGMOID_SCALE : 1.f;
constexpr float TANH_PACKED = BFLOAT16 ? 1.f : TANH_SCALE, TANH_LEFT = BFLOAT16 ? TANH_SCALE : 1.f;
inline float gate_scale(int gate) { return gate / HIDDEN == 2 ? TANH_PACKED : SIGMOID_PACKED; }

void prepare(const float* weights, float p, float output_scale, Prepared& out) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer, K = columns(L);
    float scaled[GATES * K];
    for (int g = 0; g < GATES; g++) {
      for (int k = 0; k < K; k++) scaled[g * K + k] = weights[matrix_at(L) + g * K + k] * gate_scale(g);
      out.bias[L][g] = weights[bias_at(L) + g] * gate_scale(g);
    }
    pack(scaled, GATES, K, K, 1, out.forward[L]);
    // d(inputs) is W^T z; the features of layer 0 need none, the gradient being a constant.
    constexpr int skipped = L == 0 ? INPUTS : 0;
    pack(weights + matrix_at(L) + skipped, K - skipped, GATES, 1, K, out.backward[L]);
  });
  memcpy(out.read_out, weights + READ_OUT, sizeof out.read_out);
  out.read_out_bias = weights[READ_OUT_BIAS];
  out.p = p, out.threshold_scale = expf(p), out.output_scale = output_scale;
}

inline void features(const Prepared& w, const float* gradient, float* x) {
  for (int v = 0; v < BLOCK; v += WIDTH) {
    const Vector g = load(gradient + v);
    if constexpr (INPUTS == 1) {
      store(x + v, g);
    } else {
      const Vector size = g < 0.f ? -g : g, normal = at_least(splat(1.17549435e-38f), size);
      const Vector log_size = normal < INFINITY ? log_of(normal) : normal;  // infinity and NaN are their own
      store(x + v, at_least(splat(-1.f), log_size / w.p));
      store(x + BLOCK + v, at_least(splat(-1.f), at_most(splat(1.f), g * w.threshold_scale)));
    }
  }
}

// A record's pre-activations -> its activations and c, and h.
APART void cell(float* record, const float* c_before, float* h) {
  float* const c = record + GATES * BLOCK;
  // Two loops: one would wait for the cell's chain of latencies, these fill it with neighbours.
  for (int e = 0; e < AREA; e += WIDTH) {
    const auto pre_activation = [&](int gate) { return load(record + gate * AREA + e); };
    const Vector i = sigmoid_of(pre_activation(0) * SIGMOID_LEFT), f = sigmoid_of(pre_activation(1) * SIGMOID_LEFT);
    const Vector g = tanh_of(pre_activation(2) * TANH_LEFT), o = sigmoid_of(pre_activation(3) * SIGMOID_LEFT);
    store(record + e, i), store(record + AREA + e, f), store(record + 2 * AREA + e, g), store(record + 3 * AREA + e, o);
    store(c + e, f * load(c_before + e) + i * g);
  }
  for (int e = 0; e < AREA; e += WIDTH) store(h + e, load(record + 3 * AREA + e) * tanh_of(load(c + e) * TANH_SCALE));
}

// A record -> tanh(c) and h, as `cell` had them.
APART void recall(const float* record, float* tanh_c, float* h) {
  for (int e = 0; e < AREA; e += WIDTH) {
    const Vector t = tanh_of(load(record + GATES * BLOCK + e) * TANH_SCALE);
    store(tanh_c + e, t), store(h + e, load(record + 3 * AREA + e) * t);
  }
}

// Records that the steps of a window leave for its gradient, which then need not compute them again: those of the
// layers from `first` on, for the first `blocks` blocks. Rows of steps, so that a step writes one run of memory; a row is
// (blocks, kept layers, RECORD).
struct Tape {
  float* data;
  int64_t blocks, first;

  int64_t block_floats() const { return (LAYERS - first) * RECORD; }

  // Null where nothing is kept.
  float* record(int64_t step, int64_t block, int layer) const {
    if (block >= blocks || layer < first) return nullptr;
    return data + (step * blocks + block) * block_floats() + (layer - first) * RECORD;
  }
};

// BLOCK numbers of a row; where the row ends inside the block, zeros follow.
inline const float* whole_block(const float* row, int64_t block, int64_t coordinates, float* buffer) {
  const int64_t left = coordinates - block * BLOCK;
  if (left >= BLOCK) return row + block * BLOCK;
  memset(buffer, 0, sizeof(float) * BLOCK);
  memcpy(buffer, row + block * BLOCK, sizeof(float) * left);
  return buffer;
}

}  // namespace
