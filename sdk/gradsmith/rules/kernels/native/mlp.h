// The mlp rule on one block of coordinates of one tensor: features, network and head.
//
// A second telling of gradsmith/rules/mlp.py and gradsmith/rules/features.py; tests/sdk/test_native_tensors.py holds them
// equal. Compile-time constants: WIDTH, HIDDEN, LAYERS, and which inputs there are.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "product.h"
#include "sums.h"

namespace {

constexpr bool MOMENTA = WITH_MOMENTA, SCALES = WITH_SCALES, TENSOR_SCALE = WITH_TENSOR_SCALE;
constexpr bool ALIGNMENT = WITH_ALIGNMENT, TIME = WITH_TIME, FRACTION = WITH_FRACTION;

// Running means of the gradient and of its square; the last ones are those with decays 0.9 and 0.97, and 0.99.
constexpr int MEANS = MOMENTA ? 3 : 2, SQUARES = SCALES ? 2 : 1;
constexpr double MEAN_DECAYS[] = {0.5, 0.9, 0.97}, SQUARE_DECAYS[] = {0.9, 0.99};
constexpr double mean_decay(int k) { return MEAN_DECAYS[k + 3 - MEANS]; }
constexpr double square_decay(int k) { return SQUARE_DECAYS[k + 2 - SQUARES]; }
constexpr int M90 = MEANS - 2, M97 = MEANS - 1, V90 = 0, V99 = SQUARES - 1;
constexpr double SLOW = 0.95, ALIGNED = 0.7, FLOOR = 1e-3, HORIZONS[7] = {1, 3, 10, 30, 100, 300, 1000};
constexpr float NORMAL = 1.17549435e-38f;  // the least normal number, whose logarithm that of 0 counts as
constexpr float LOWEST = -7.f, HIGHEST = 5.f;

// Features: those of a coordinate, then those that a whole tensor shares.
constexpr int AT_SCALES = 4 * MOMENTA, AT_TENSOR = AT_SCALES + 4 * SCALES, EACH = AT_TENSOR + 5 * TENSOR_SCALE;
constexpr int SHARED = ALIGNMENT + 7 * TIME + 2 * FRACTION, FEATURES = EACH + SHARED;
constexpr int NUMBERS = 3 + FRACTION;  // of a tensor: steps, mean square, alignment, and the steps that are planned
constexpr int OVER_S = 4 * MOMENTA, OVER_R = 3 * TENSOR_SCALE, DIRECTIONS = OVER_S + OVER_R, OUTPUTS = DIRECTIONS + 1;
constexpr int direction(int k) { return k < OVER_S ? k : AT_TENSOR + k - OVER_S; }  // its row among the features

constexpr int AREA = HIDDEN * BLOCK;
constexpr int READING = (EACH + 1) * BLOCK;  // features of a block, and the row 1 / s

// Weights are flat, in the order of `rule.parameters()`: of each layer, the read-out last, (outputs x inputs) and biases.
constexpr int inputs(int layer) { return layer == 0 ? FEATURES : HIDDEN; }
constexpr int outputs(int layer) { return layer == LAYERS ? OUTPUTS : HIDDEN; }
constexpr int matrix_at(int layer) {
  int at = 0;
  for (int l = 0; l < layer; l++) at += outputs(l) * (inputs(l) + 1);
  return at;
}
constexpr int bias_at(int layer) { return matrix_at(layer) + outputs(layer) * inputs(layer); }
constexpr int WEIGHTS = matrix_at(LAYERS + 1);
constexpr int depth(int layer) { return layer == 0 ? EACH : HIDDEN; }  // inputs that differ within a tensor
constexpr int LARGEST = HIDDEN * (HIDDEN > EACH ? HIDDEN : EACH) + OUTPUTS * HIDDEN;

template <int L, int END, typename Do>
inline void for_layers(const Do& run) {
  if constexpr (L < END) {
    run(std::integral_constant<int, L>());
    for_layers<L + 1, END>(run);
  }
}

// The weights as the loops read them, made once for each call.
struct Prepared {
  const float* weights;
  float scale;
  float forward[LAYERS + 1][LARGEST], backward[LAYERS + 1][LARGEST];
};

void prepare(const float* weights, float scale, bool back, Prepared& out) {
  out.weights = weights, out.scale = scale;
  for_layers<0, LAYERS + 1>([&](auto layer) {
    constexpr int L = layer;
    pack(weights + matrix_at(L), outputs(L), depth(L), inputs(L), 1, out.forward[L]);
    if (L > 0 && back) pack(weights + matrix_at(L), inputs(L), outputs(L), 1, inputs(L), out.backward[L]);
  });
}

// What a step knows of a tensor, and leaves for the way back.
struct Row {
  float shared[SHARED + 1];
  float bias[HIDDEN];  // layer 0's, with what the shared features add to it
  float means[MEANS], squares[SQUARES];  // 1 over what running means of ones would be by now
  float floor;                           // beside the root in s
  float over_r, log_r, size;             // 1 / r, the logarithm of r, and that as a feature
  float young;                           // what of d(g/s)/dg the constant s leaves
};

inline double within(double low, double high, double x) { return x < low ? low : x > high ? high : x; }  // NaN stays

// sum: of g g, last last and last g over the tensor. What is remembered of it moves on.
inline void look(const Prepared& w, int64_t n, const double (&sum)[3], float* numbers, Row& row) {
  const double count = numbers[0] + 1.0;
  numbers[0] = count;
  numbers[1] = SLOW * numbers[1] + (1 - SLOW) * sum[0] / n;
  if (ALIGNMENT) {
    const double cosine = sum[2] / (sqrt(sum[0]) * sqrt(sum[1]) + 1e-30);
    numbers[2] = ALIGNED * numbers[2] + (1 - ALIGNED) * cosine;
  }
  for (int k = 0; k < MEANS; k++) row.means[k] = 1 / (1 - pow(mean_decay(k), count));
  for (int k = 0; k < SQUARES; k++) row.squares[k] = 1 / (1 - pow(square_decay(k), count));
  const double r = sqrt(numbers[1] / (1 - pow(SLOW, count)));
  row.floor = FLOOR * r;
  row.over_r = r == 0 ? r : 1 / r;
  const double log_r = log(r < NORMAL ? NORMAL : r);
  row.log_r = log_r, row.size = within(-4, 4, log_r / 4 + 1);
  row.young = 1 - (1 - square_decay(V99)) * row.squares[V99];
  float* shared = row.shared;
  if (ALIGNMENT) *shared++ = 3 * numbers[2];
  if (TIME)
    for (double horizon : HORIZONS) *shared++ = tanh(count / horizon - 1);
  if (FRACTION) {
    const double done = count - 1, planned = numbers[3];
    *shared++ = 2 * within(0, 1, done / (planned < 1 ? 1 : planned)) - 1;
    *shared++ = tanh((planned > done ? planned - done : 0) / 10 - 1);
  }
  for (int i = 0; i < HIDDEN; i++) {
    double bias = w.weights[bias_at(0) + i];
    for (int k = 0; k < SHARED; k++) bias += w.weights[matrix_at(0) + i * FEATURES + EACH + k] * row.shared[k];
    row.bias[i] = bias;
  }
}

// A block's numbers, each a row of BLOCK.
struct Lines {
  const float* gradient;
  float *means[MEANS], *squares[SQUARES], *last, *theta;  // last: null where there is no alignment
  float learning_rate;
};

inline Vector where(Ints condition, Vector x) { return reinterpret_cast<Vector>(condition & reinterpret_cast<Ints>(x)); }
inline Vector clamped(Vector x) { return at_least(splat(-4.f), at_most(splat(4.f), x)); }

// The running means move on; their features go to `x` (READING).
APART void read(const Row& row, const Lines& at, float* x) {
  for (int v = 0; v < BLOCK; v += WIDTH) {
    const Vector g = load(at.gradient + v);
    Vector m[MEANS], q[SQUARES];
    UNROLLED for (int k = 0; k < MEANS; k++) {
      m[k] = float(mean_decay(k)) * load(at.means[k] + v) + float(1 - mean_decay(k)) * g;
      store(at.means[k] + v, m[k]);
      m[k] *= row.means[k];
    }
    UNROLLED for (int k = 0; k < SQUARES; k++) {
      q[k] = float(square_decay(k)) * load(at.squares[k] + v) + float(1 - square_decay(k)) * g * g;
      store(at.squares[k] + v, q[k]);
    }
    const auto put = [&](int feature, Vector value) { store(x + feature * BLOCK + v, value); };
    const Vector root = root_of(q[V99] * row.squares[V99]), inverse = where(q[V99] != 0.f, 1.f / (root + row.floor));
    const Vector log_slow = log_of(at_least(splat(NORMAL), root));
    put(EACH, inverse);
    if constexpr (MOMENTA) {
      put(0, g * inverse);
      UNROLLED for (int k = 0; k < MEANS; k++) put(1 + k, m[k] * inverse);
    }
    if constexpr (SCALES) {
      const Vector fast = root_of(q[V90] * row.squares[V90]), size = m[M90] * inverse;
      put(AT_SCALES, g * where(q[V90] != 0.f, 1.f / fast));
      put(AT_SCALES + 1, clamped(log_slow * .25f + 1.f));
      put(AT_SCALES + 2, clamped(log_of(at_least(splat(NORMAL), fast)) - log_slow));
      put(AT_SCALES + 3, clamped(.3f * log_of((size < 0.f ? -size : size) + 1e-4f)));
    }
    if constexpr (TENSOR_SCALE) {
      put(AT_TENSOR, g * row.over_r), put(AT_TENSOR + 1, m[M90] * row.over_r), put(AT_TENSOR + 2, m[M97] * row.over_r);
      put(AT_TENSOR + 3, splat(row.size)), put(AT_TENSOR + 4, clamped(.3f * (log_slow - row.log_r)));
    }
  }
}

// hidden: (LAYERS x AREA) activations; out: (OUTPUTS x BLOCK)
inline void network(const Prepared& w, const Row& row, const float* x, float* hidden, float* out) {
  for_layers<0, LAYERS>([&](auto layer) {
    constexpr int L = layer;
    float* const h = hidden + L * AREA;
    product<HIDDEN, depth(L), 0>(w.forward[L], L ? w.weights + bias_at(L) : row.bias, x, nullptr, h);
    for (int e = 0; e < AREA; e += 2 * WIDTH) {
      const Vector left = elu_of(load(h + e)), right = elu_of(load(h + e + WIDTH));
      store(h + e, left), store(h + e + WIDTH, right);
    }
    x = h;
  });
  product<OUTPUTS, HIDDEN, 0>(w.forward[LAYERS], w.weights + bias_at(LAYERS), x, nullptr, out);
}

inline Vector length_of(const Prepared& w, Vector magnitude) {
  return w.scale * exp_of(at_least(splat(LOWEST), at_most(splat(HIGHEST), magnitude)));
}

struct Scratch {
  float x[READING], hidden[LAYERS * AREA], out[OUTPUTS * BLOCK];
  float padded[3 + MEANS + SQUARES][BLOCK];  // a block's lines where its tensor ends
};

// One step of a block; its features go to `x`, and the network's outputs to `out`.
inline void step(const Prepared& w, const Row& row, const Lines& at, float* x, float* out, Scratch& r) {
  read(row, at, x);
  network(w, row, x, r.hidden, out);
  for (int v = 0; v < BLOCK; v += WIDTH) {
    Vector along{};
    UNROLLED for (int k = 0; k < DIRECTIONS; k++) along += load(out + k * BLOCK + v) * load(x + direction(k) * BLOCK + v);
    const Vector update = length_of(w, load(out + DIRECTIONS * BLOCK + v)) * along;
    if constexpr (ALIGNMENT) store(at.last + v, update);
    store(at.theta + v, load(at.theta + v) + at.learning_rate * update);
  }
}

// Copies of a block's lines, zero behind the `count` numbers that there are, for a tensor's last block.
struct Padded {
  Lines given, own;
  int64_t count;

  Padded(const Lines& lines, int64_t count, float (*room)[BLOCK]) : given(lines), own(lines), count(count) {
    memset(room, 0, sizeof *room * (3 + MEANS + SQUARES));
    own.gradient = taken(lines.gradient, room), own.theta = taken(lines.theta, room);
    if (ALIGNMENT) own.last = taken(lines.last, room);
    for (int k = 0; k < MEANS; k++) own.means[k] = taken(lines.means[k], room);
    for (int k = 0; k < SQUARES; k++) own.squares[k] = taken(lines.squares[k], room);
  }
  void give_back() const {
    given_back(own.theta, given.theta);
    if (ALIGNMENT) given_back(own.last, given.last);
    for (int k = 0; k < MEANS; k++) given_back(own.means[k], given.means[k]);
    for (int k = 0; k < SQUARES; k++) given_back(own.squares[k], given.squares[k]);
  }

 private:
  float* taken(const float* line, float (*&room)[BLOCK]) const {
    return static_cast<float*>(memcpy(*room++, line, sizeof(float) * count));
  }
  void given_back(const float* from, float* to) const { memcpy(to, from, sizeof(float) * count); }
};

// The same of a tensor's last block, where it has fewer than BLOCK coordinates.
inline void step_padded(const Prepared& w, const Row& row, const Lines& at, float* x, float* out, Scratch& r,
                        int64_t count) {
  const Padded padded(at, count, r.padded);
  step(w, row, padded.own, x, out, r);
  padded.give_back();
}

}  // namespace
