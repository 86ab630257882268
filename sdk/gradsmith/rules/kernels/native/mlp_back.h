// Back through a step of the mlp rule: the gradient of its weights, and of the gradient and the means that entered it.
#pragma once
#include "mlp.h"

namespace {

constexpr int padded(int layer) { return (depth(layer) + WIDTH - 1) / WIDTH * WIDTH; }
constexpr int WIDEST = padded(0) > padded(LAYERS) ? padded(0) : padded(LAYERS);
constexpr int MOST_ROWS = HIDDEN > OUTPUTS ? HIDDEN : OUTPUTS;
constexpr int TOGETHER = 4;  // blocks whose outer products are taken at once: sums go to memory and back less often

// A block's numbers where its tensor ends.
struct Ends {
  float worth[BLOCK], worths[MEANS][BLOCK], q[BLOCK];
};

// A thread's memory. z: d/d(pre-activations), and d/d(outputs) at last; transposed: the inputs of the layers.
struct Back {
  float hidden[LAYERS * AREA], out[OUTPUTS * BLOCK];
  Ends ends;
  float z[LAYERS + 1][TOGETHER * MOST_ROWS * BLOCK], transposed[LAYERS + 1][TOGETHER * BLOCK * WIDEST];
  float matrix[LAYERS + 1][MOST_ROWS * WIDEST], bias[LAYERS + 1][MOST_ROWS * WIDTH];  // sums
  int64_t gathered;  // coordinates that are in them
};

// Coordinates of one tensor: what their step left, and what is asked of them. q: null where it is not wanted, and the worths.
struct Span {
  int64_t count;
  const float *readings, *worth;
  float *worths[MEANS], *q;
};

template <int STEPS, int ROWS, int VECTORS, int KP>
inline void outer_columns(const float* z, const float* transposed, float* matrix) {
  constexpr int GROUP = REGISTER_SUMS / VECTORS, REST = ROWS % GROUP;
  int g = 0;
  for (; g < ROWS - REST; g += GROUP)
    outer_tile<STEPS, ROWS, GROUP, VECTORS>(z + g * BLOCK, transposed, KP, matrix + g * KP);
  if constexpr (REST > 0) outer_tile<STEPS, ROWS, REST, VECTORS>(z + g * BLOCK, transposed, KP, matrix + g * KP);
}

// matrix (ROWS x KP) += sum over blocks of z (ROWS x BLOCK) * transposed (BLOCK x KP)
template <int STEPS, int ROWS, int KP>
APART void outer(const float* z, const float* transposed, float* matrix) {
  constexpr int WIDE = KP / WIDTH < 3 ? KP / WIDTH : 3, REST = KP / WIDTH % WIDE;
  int k = 0;
  for (; k < KP - REST * WIDTH; k += WIDE * WIDTH)
    outer_columns<STEPS, ROWS, WIDE, KP>(z, transposed + k, matrix + k);
  if constexpr (REST > 0) outer_columns<STEPS, ROWS, REST, KP>(z, transposed + k, matrix + k);
}

// From what the update is worth to the outputs' z, and to q and the worths of the means before the step. Either may be null.
APART void back_head(const Prepared& w, const Row& row, const float* x, const float* out, const float* worth,
                     float* const (&worths)[MEANS], float* q, float* z) {
  for (int v = 0; v < BLOCK; v += WIDTH) {
    const Vector magnitude = load(out + DIRECTIONS * BLOCK + v), d = load(worth + v) * length_of(w, magnitude);
    Vector along{}, coefficient[DIRECTIONS];
    UNROLLED for (int k = 0; k < DIRECTIONS; k++) {
      const Vector each = load(x + direction(k) * BLOCK + v);
      coefficient[k] = load(out + k * BLOCK + v);
      along += coefficient[k] * each;
      if (z) store(z + k * BLOCK + v, d * each);
    }
    if (z) store(z + DIRECTIONS * BLOCK + v, where((magnitude >= LOWEST) & (magnitude <= HIGHEST), d * along));
    if (!q) continue;
    const Vector over_s = d * load(x + EACH * BLOCK + v), over_r = d * row.over_r;
    Vector mean[MEANS], own{};
    UNROLLED for (int k = 0; k < MEANS; k++) mean[k] = Vector{};
    if constexpr (MOMENTA) {
      own += row.young * coefficient[0] * over_s;
      UNROLLED for (int k = 0; k < MEANS; k++) mean[k] += coefficient[1 + k] * over_s;
    }
    if constexpr (TENSOR_SCALE) {
      own += coefficient[OVER_S] * over_r;
      mean[M90] += coefficient[OVER_S + 1] * over_r, mean[M97] += coefficient[OVER_S + 2] * over_r;
    }
    UNROLLED for (int k = 0; k < MEANS; k++) {
      const Vector after = load(worths[k] + v) + mean[k] * row.means[k];
      own += float(1 - mean_decay(k)) * after;
      store(worths[k] + v, float(mean_decay(k)) * after);
    }
    store(q + v, own);
  }
}

inline void add_bias(const float* z, int rows, float* bias) {
  for (int i = 0; i < rows; i++)
    store(bias + i * WIDTH, load(bias + i * WIDTH) + (load(z + i * BLOCK) + load(z + i * BLOCK + WIDTH)));
}

// A block's z and transposed inputs, left as number `slot` of those that are taken together.
inline void back_block(const Prepared& w, const Row& row, const float* x, const float* worth,
                       float* const (&worths)[MEANS], float* q, Back& r, int slot) {
  network(w, row, x, r.hidden, r.out);
  back_head(w, row, x, r.out, worth, worths, q, r.z[LAYERS] + slot * OUTPUTS * BLOCK);
  for_layers<0, LAYERS + 1>([&](auto number) {
    constexpr int L = LAYERS - number;
    const float* const z = r.z[L] + slot * outputs(L) * BLOCK;
    add_bias(z, outputs(L), r.bias[L]);
    const float* const below = L ? r.hidden + (L - (L > 0)) * AREA : x;
    transpose<depth(L), 0, padded(L)>(below, nullptr, r.transposed[L] + slot * BLOCK * padded(L));
    if constexpr (L > 0) {
      float* const next = r.z[L - 1] + slot * AREA;
      product<HIDDEN, outputs(L), 0>(w.backward[L], nullptr, z, nullptr, next);
      for (int e = 0; e < AREA; e += WIDTH) store(next + e, load(next + e) * (at_most(Vector{}, load(below + e)) + 1.f));
    }
  });
}

template <int STEPS>
inline void add_products(Back& r, int slot) {
  for_layers<0, LAYERS + 1>([&](auto layer) {
    constexpr int L = layer;
    outer<STEPS, outputs(L), padded(L)>(r.z[L] + slot * outputs(L) * BLOCK, r.transposed[L] + slot * BLOCK * padded(L),
                                        r.matrix[L]);
  });
}

inline void begin(Back& r) {
  memset(r.matrix, 0, sizeof r.matrix), memset(r.bias, 0, sizeof r.bias);
  r.gathered = 0;
}

// The sums over `gathered` coordinates go to `total`, in double, and begin anew.
inline void add_up(Back& r, double* total) {
  for_layers<0, LAYERS + 1>([&](auto layer) {
    constexpr int L = layer;
    for (int i = 0; i < outputs(L); i++) {
      double* const t = total + matrix_at(L) + i * inputs(L);
      for (int k = 0; k < depth(L); k++) t[k] += r.matrix[L][i * padded(L) + k];
      if (L > 0)
        for (int lane = 0; lane < WIDTH; lane++) total[bias_at(L) + i] += r.bias[L][i * WIDTH + lane];
    }
  });
  begin(r);
}

// Layer 0's sums of biases, of one tensor: the weights of what its coordinates share have theirs by them.
inline void add_shared(const Row& row, Back& r, double* total) {
  for (int i = 0; i < HIDDEN; i++) {
    double bias = 0;
    for (int lane = 0; lane < WIDTH; lane++) bias += r.bias[0][i * WIDTH + lane];
    total[bias_at(0) + i] += bias;
    for (int k = 0; k < SHARED; k++) total[matrix_at(0) + i * FEATURES + EACH + k] += bias * row.shared[k];
  }
  memset(r.bias[0], 0, sizeof r.bias[0]);
}

// `run(number, worth, worths, q)` for each block of a span; where its tensor ends, with copies that are zero behind it.
template <typename Run>
inline void each_block(const Span& span, Ends& ends, const Run& run) {
  for (int64_t at = 0; at < span.count; at += BLOCK) {
    const int64_t left = span.count - at;
    float* worths[MEANS];
    for (int k = 0; k < MEANS; k++) worths[k] = left < BLOCK ? ends.worths[k] : span.q ? span.worths[k] + at : nullptr;
    if (left >= BLOCK) {
      run(at / BLOCK, span.worth + at, worths, span.q ? span.q + at : nullptr);
      continue;
    }
    memset(&ends, 0, sizeof ends);
    memcpy(ends.worth, span.worth + at, sizeof(float) * left);
    if (span.q)
      for (int k = 0; k < MEANS; k++) memcpy(worths[k], span.worths[k] + at, sizeof(float) * left);
    run(at / BLOCK, ends.worth, worths, span.q ? ends.q : nullptr);
    if (span.q) {
      memcpy(span.q + at, ends.q, sizeof(float) * left);
      for (int k = 0; k < MEANS; k++) memcpy(span.worths[k] + at, worths[k], sizeof(float) * left);
    }
  }
}

// A piece of a tensor. What `add_up` does is left to whoever calls it for the last one.
void back(const Prepared& w, const Row& row, const Span& span, Back& r, double* total) {
  int slot = 0;
  each_block(span, r.ends, [&](int64_t block, const float* worth, float* const (&worths)[MEANS], float* q) {
    back_block(w, row, span.readings + block * READING, worth, worths, q, r, slot);
    if (++slot == TOGETHER) add_products<TOGETHER>(r, 0), slot = 0;
  });
  while (slot > 0) add_products<1>(r, --slot);
  add_shared(row, r, total);
  r.gathered += span.count;
  if (r.gathered >= PIECE) add_up(r, total);
}

// q and the worths alone, by the outputs that the step left: no network is run.
inline void back_without_weights(const Prepared& w, const Row& row, const Span& span, const float* outputs, Ends& ends) {
  each_block(span, ends, [&](int64_t block, const float* worth, float* const (&worths)[MEANS], float* q) {
    back_head(w, row, span.readings + block * READING, outputs + block * OUTPUTS * BLOCK, worth, worths, q, nullptr);
  });
}

}  // namespace
