// A window of steps replayed and differentiated, while a block's activations stay in the cache.
#pragma once
#include "lstm.h"

namespace {

struct Sums {  // over one block's window; sums over coordinates stay vectors until they are added up
  float matrix[LAYERS][GATES * PADDED], bias[LAYERS][GATES * WIDTH], read_out[HIDDEN * WIDTH], read_out_bias[WIDTH];
};

// Two steps at a time: the sums go to memory and back half as often.
constexpr int PAIR = 2;

// Two runs of the tape on their way to the second-level cache, a few lines at a time: a core that is asked for more of
// them at once than it can wait for waits for those, and so does everything behind them.
struct Ahead {
  const float *at, *end, *then, *then_end;  // null: none
  int lines;                                // for each call

  // Inlined, or GCC takes it for a function without effect and drops it.
  __attribute__((always_inline)) inline void fetch() {
    constexpr int LINE = 16;
    for (int n = 0; n < lines; n++, at += LINE) {
      if (at >= end) {
        at = then, end = then_end, then = nullptr;
        if (!at) {
          lines = 0;
          return;
        }
      }
      __builtin_prefetch(at, 0, 2);
    }
  }
};

constexpr int ROW = BFLOAT16 ? WIDTH : BLOCK;  // factors of a row of coordinates

// z as the outer product reads it, in the memory that it had.
template <int ROWS, typename Wanted = Factor>
inline const Wanted* factors_of(float* rows) {
  if constexpr (std::is_same_v<Wanted, float>) return rows;
  else return pair_columns<ROWS>(rows);
}

template <int STEPS, int VECTORS>
inline void outer_columns(const Factor* z, const Factor* transposed, int stride, float* matrix, Ahead& ahead) {
  constexpr int GROUP = REGISTER_SUMS / VECTORS, REST = GATES % GROUP;
  int g = 0;
  for (; g < GATES - REST; g += GROUP) {
    ahead.fetch();
    outer_tile<STEPS, GATES, GROUP, VECTORS>(z + g * ROW, transposed, stride, matrix + g * stride);
  }
  if constexpr (REST > 0) outer_tile<STEPS, GATES, REST, VECTORS>(z + g * ROW, transposed, stride, matrix + g * stride);
}

constexpr int wide(int KP) { return KP / WIDTH % 5 == 0 ? 5 : 3; }  // vectors of a tile's row
constexpr int tiles(int vectors) { return vectors ? GATES / (REGISTER_SUMS / vectors) : 0; }
constexpr int fetches(int KP) {
  return KP / WIDTH / wide(KP) * tiles(wide(KP)) + tiles(KP / WIDTH % wide(KP));
}

// matrix (GATES x KP) += sum over the steps of z (GATES x ROW) * transposed (ROW x KP); `ahead` fetches `fetches(KP)` times
template <int STEPS, int KP>
APART void outer(const Factor* z, const Factor* transposed, float* matrix, Ahead& ahead) {
  constexpr int WIDE = wide(KP), REST = KP / WIDTH % WIDE;
  int q = 0;
  for (; q < KP - REST * WIDTH; q += WIDE * WIDTH)
    outer_columns<STEPS, WIDE>(z, transposed + q, KP, matrix + q, ahead);
  if constexpr (REST > 0) outer_columns<STEPS, REST>(z, transposed + q, KP, matrix + q, ahead);
}

// Steps whose tanh(c) and h are at hand: a pair, the one before it, and one more, to make the number a power of two.
constexpr int RECALLED = 4;

// A thread's memory: this, and behind it what grows with the window.
struct Workspace {
  Sums sums;
  float z[PAIR * GATES * BLOCK];
  Factor transposed[PAIR * BLOCK * PADDED];
  float tanh_c[LAYERS][RECALLED][AREA], h[LAYERS][RECALLED][AREA];
  float replayed_h[LAYERS][AREA];
  float d_input[LAYERS][2 * AREA];  // what a layer returns: to the layer below (layer 0: nothing), to the step before
  float d_cell[LAYERS][AREA];
  float d_hidden[PAIR][AREA];  // d/dh of a layer, from the one above it
};

constexpr int own_at(int layer) { return layer == 0 ? 0 : AREA; }

// One step of one block. The record of a layer that is on the tape is read there.
struct Step {
  float x[INPUTS * BLOCK], gradient[BLOCK], d_update[BLOCK];
  float records[LAYERS][RECORD];
};

struct Window {
  int64_t steps, coordinates, gradient_stride, cotangent_stride;
  const float *gradients, *cotangents, *snapshot;
  Tape tape;
};

constexpr int64_t workspace_bytes(int64_t steps) {
  return sizeof(Workspace) + steps * sizeof(Step);
}

// A block's window.
struct Replay {
  const Prepared& w;
  const Window& window;
  int64_t block;
  Workspace& s;
  Step* const steps;

  Replay(const Prepared& w, const Window& window, int64_t block, Workspace& s)
      : w(w), window(window), block(block), s(s), steps(reinterpret_cast<Step*>(&s + 1)) {}

  const float* state(int row) const { return window.snapshot + block * STATE + row * AREA; }
  const float* record(int layer, int64_t t) const {
    const float* kept = window.tape.record(t, block, layer);
    return kept ? kept : steps[t].records[layer];
  }
  const float* c_before(int layer, int64_t t) const {
    return t ? record(layer, t - 1) + GATES * BLOCK : state(2 * layer + 1);
  }
  const float* h(int layer, int64_t t) const { return s.h[layer][t % RECALLED]; }
  const float* h_before(int layer, int64_t t) const { return t ? h(layer, t - 1) : state(2 * layer); }

  // The layers above one that is on the tape are on it too: what is left to do are the lower ones.
  void forward(int64_t t) const {
    features(w, steps[t].gradient, steps[t].x);
    for_each_layer<0>([&](auto layer) {
      constexpr int L = layer;
      if (window.tape.record(t, block, L)) return;
      const float* x = L == 0 ? steps[t].x : s.replayed_h[L - (L > 0)];
      float* const own = s.replayed_h[L];
      if (t == 0) memcpy(own, state(2 * L), sizeof s.replayed_h[L]);
      product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, own, steps[t].records[L]);
      cell(steps[t].records[L], c_before(L, t), own);
    });
  }

  void recall_all(int64_t t) const {
    for (int layer = 0; layer < LAYERS; layer++)
      recall(record(layer, t), s.tanh_c[layer][t % RECALLED], s.h[layer][t % RECALLED]);
  }

  // From d/dh and d/dc of a step's result to z = d/d(pre-activations); d/dc of the step before replaces d/dc.
  template <int L>
  APART void cell_backward(int64_t t, const float* d_hidden, float* z) const {
    const float *const gates = record(L, t), *const before = c_before(L, t), *const d_own = s.d_input[L] + own_at(L);
    const float *const tanh_row = s.tanh_c[L][t % RECALLED], *const d_update = steps[t].d_update;
    float* const d_cell = s.d_cell[L];
    for (int j = 0; j < HIDDEN; j++) {
      Vector sum_i{}, sum_f{}, sum_g{}, sum_o{};
      UNROLLED for (int v = 0; v < BLOCK; v += WIDTH) {
        const int e = j * BLOCK + v;
        Vector d = load(d_own + e);
        if constexpr (L == LAYERS - 1) d += w.read_out[j] * load(d_update + v);
        else d += load(d_hidden + e);
        const Vector i = load(gates + e), f = load(gates + AREA + e), g = load(gates + 2 * AREA + e);
        const Vector o = load(gates + 3 * AREA + e), tanh_c = load(tanh_row + e);
        const Vector d_c = d * o * (1.f - tanh_c * tanh_c) + load(d_cell + e);
        const Vector z_i = d_c * g * (i - i * i), z_f = d_c * load(before + e) * (f - f * f);
        const Vector z_g = d_c * i * (1.f - g * g), z_o = d * tanh_c * (o - o * o);
        store(z + e, z_i), store(z + AREA + e, z_f), store(z + 2 * AREA + e, z_g), store(z + 3 * AREA + e, z_o);
        store(d_cell + e, d_c * f);
        sum_i += z_i, sum_f += z_f, sum_g += z_g, sum_o += z_o;
      }
      float* bias = s.sums.bias[L] + j * WIDTH;
      constexpr int GATE = HIDDEN * WIDTH;
      store(bias, load(bias) + sum_i), store(bias + GATE, load(bias + GATE) + sum_f);
      store(bias + 2 * GATE, load(bias + 2 * GATE) + sum_g), store(bias + 3 * GATE, load(bias + 3 * GATE) + sum_o);
    }
  }

  // The step's records on the tape; of a step before the first, those of the next block's last ones.
  const float* records_before(int64_t t) const {
    const int64_t step = t < 0 ? t + window.steps : t;
    return step < 0 ? nullptr : window.tape.record(step, block + (t < 0), static_cast<int>(window.tape.first));
  }

  // What the next pair will read and the present one, whose last step is `last`, does not, spread over the outer products
  // of all layers.
  Ahead ahead(int64_t last) const {
    const float *const first = records_before(last - PAIR - 1), *const second = records_before(last - PAIR - 2);
    if (!first || !second) return {};
    int calls = 0;
    for_each_layer<0>([&](auto layer) { calls += fetches(padded(layer)); });
    if (!calls) return {};  // so small a rule that its tiles are rests
    const int64_t size = window.tape.block_floats();
    return {first, first + size, second, second + size, static_cast<int>(PAIR * size / (16 * calls)) + 1};
  }

  // STEPS steps from `last` backwards, from layer L downwards.
  template <int L, int STEPS>
  void backward(int64_t last, Ahead& ahead) const {
    for (int n = 0; n < STEPS; n++) {
      const int64_t t = last - n;
      float* const z = s.z + n * GATES * BLOCK;
      cell_backward<L>(t, s.d_hidden[n], z);
      const float* x = L == 0 ? steps[t].x : h(L - (L > 0), t);
      transpose<inputs(L), HIDDEN, padded(L)>(x, h_before(L, t), s.transposed + n * ROW * padded(L));
      product<columns(L) - (L == 0 ? INPUTS : 0), GATES, 0>(w.backward[L], nullptr, z, nullptr, s.d_input[L]);
      if constexpr (L > 0) memcpy(s.d_hidden[n], s.d_input[L], sizeof s.d_hidden[n]);
    }
    outer<STEPS, padded(L)>(factors_of<STEPS * GATES>(s.z), s.transposed, s.sums.matrix[L], ahead);
    if constexpr (L > 0) backward<L - 1, STEPS>(last, ahead);
  }

  // Where the row ends inside the block, zeros follow.
  void part_of_row(const float* row, float* part) const {
    const int64_t left = window.coordinates - block * BLOCK;
    if (left < BLOCK) memset(part, 0, sizeof(float) * BLOCK);
    memcpy(part, row + block * BLOCK, sizeof(float) * (left < BLOCK ? left : BLOCK));
  }

  // A block's part of a row is one line of the cache, far from the next row's: read together, they come together.
  void gather() const {
    for (int64_t t = 0; t < window.steps; t++) {
      part_of_row(window.gradients + t * window.gradient_stride, steps[t].gradient);
      part_of_row(window.cotangents + t * window.cotangent_stride, steps[t].d_update);
    }
  }

  void read_out_backward(int64_t t) const {
    float* d_update = steps[t].d_update;
    const float* top = h(LAYERS - 1, t);
    const Vector left = load(d_update) * w.output_scale, right = load(d_update + WIDTH) * w.output_scale;
    store(d_update, left), store(d_update + WIDTH, right);
    store(s.sums.read_out_bias, load(s.sums.read_out_bias) + (left + right));
    for (int j = 0; j < HIDDEN; j++) {
      float* sum = s.sums.read_out + j * WIDTH;
      store(sum, load(sum) + left * load(top + j * BLOCK) + right * load(top + j * BLOCK + WIDTH));
    }
  }

  // STEPS steps from `last` backwards, whose tanh(c) and h are at hand; those of the step before them shall be.
  template <int STEPS>
  void backward_all(int64_t last) const {
    for (int n = 0; n < STEPS; n++) {
      read_out_backward(last - n);
      if (last - n > 0) recall_all(last - n - 1);
    }
    Ahead next = ahead(last);
    backward<LAYERS - 1, STEPS>(last, next);
  }

  void run() const {
    gather();
    for (int64_t t = 0; t < window.steps; t++) forward(t);
    memset(&s.sums, 0, sizeof s.sums);
    memset(s.d_input, 0, sizeof s.d_input);
    memset(s.d_cell, 0, sizeof s.d_cell);
    int64_t t = window.steps - 1;
    if (t >= 0) recall_all(t);
    for (; t >= PAIR - 1; t -= PAIR) backward_all<PAIR>(t);
    if (t >= 0) backward_all<1>(t);
  }
};

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

void window_of_block(const Prepared& w, const Window& window, int64_t block, Workspace& s, double* out) {
  Replay(w, window, block, s).run();
  add_up(s.sums, out);
}

}  // namespace
