// The hyper rule for one tensor: its step, and the way back through a step.
//
// A second telling of gradsmith/rules/hyper.py, whose names these are; tests/sdk/test_native_tensors.py holds them equal.
// Compile-time constants: WIDTH; WITH_FRACTION, 1 for rules that know how many steps are planned; WITH_MUON, 1 for those
// with Muon's direction.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "orthogonal.h"
#include "sums.h"

namespace {

constexpr int MEANS = 3, NUMBERS = 6 + WITH_FRACTION, FEATURES = 14 + 2 * WITH_FRACTION, ALONG = 7, OF_OTHERS = 8;
constexpr int OUTPUTS = OF_OTHERS + 5 * WITH_MUON;
constexpr float DECAY[MEANS] = {0.5f, 0.9f, 0.97f};
constexpr float SQUARES = 0.99f, FAST = 0.5f, SLOW = 0.95f, ALIGNMENT = 0.7f, LEAST = 1e-3f;
constexpr float TINY = 1e-20f, SMALLEST = 1e-30f, LOWEST = -7.f, HIGHEST = 5.f;
constexpr double HORIZONS[7] = {1, 3, 10, 30, 100, 300, 1000};

// The weights lie as `rule.parameters()` has them: each hidden layer's (outputs x inputs) and biases, the read-out's.
struct Net {
  const float* weights;
  int64_t hidden, layers;
  float scale;
};

// What a step leaves of a tensor for the way back.
struct Row {
  float x[FEATURES], outputs[OUTPUTS];
  float over_s[4], over_r[3];          // what the rows g, m_.5, m_.9, m_.97 are multiplied by over s, and g, m_.9, m_.97 over r
  float per_s[4], per_r[3];            // those for a coefficient of 1
  float itself;                        // what d(g/s)/dg gets for the constant s
  float floor;                         // under sqrt(squares)
  float muons;                         // what a matrix moves against Muon's direction
};

inline int64_t activations(const Net& net) { return net.hidden * net.layers; }

inline float within(float low, float high, float x) { return x < low ? low : x > high ? high : x; }  // NaN stays

// (outputs x inputs) x + biases.
inline void dense(const float* weights, const float* biases, int64_t outputs, int64_t inputs, const float* x, float* y) {
  for (int64_t i = 0; i < outputs; i++) {
    Vector lanes = {};
    int64_t j = 0;
    for (; j + WIDTH <= inputs; j += WIDTH) lanes += load(weights + i * inputs + j) * load(x + j);
    float sum = biases[i];
    for (int lane = 0; lane < WIDTH; lane++) sum += lanes[lane];
    for (; j < inputs; j++) sum += weights[i * inputs + j] * x[j];
    y[i] = sum;
  }
}

// The network's outputs from row.x; the activations of hidden layers are left in `units`.
inline void outputs_of(const Net& net, Row& row, float* units) {
  const float *w = net.weights, *x = row.x;
  int64_t inputs = FEATURES;
  for (int64_t layer = 0; layer < net.layers; layer++) {
    float* const y = units + layer * net.hidden;
    dense(w, w + net.hidden * inputs, net.hidden, inputs, x, y);
    for (int64_t i = 0; i < net.hidden; i++) y[i] = y[i] > 0 ? y[i] : expm1f(y[i]);
    w += net.hidden * (inputs + 1), x = y, inputs = net.hidden;
  }
  dense(w, w + OUTPUTS * inputs, OUTPUTS, inputs, x, row.outputs);
}

// What is remembered of the tensor after this gradient, its features, and the coefficients of its coordinates.
inline void look(const Net& net, int64_t n, const float* g, const float* const (&m)[MEANS], const float* last,
                 float* numbers, Row& row, float* units) {
  double sum[7];
  const float *fast_mean = m[1], *slow_mean = m[2];
  sums<7>(n, sum, [&](Vector (&lanes)[7], const auto& at) {
    const Vector a = at(g), b = at(last), c = at(fast_mean), d = at(slow_mean);
    lanes[0] += a * a, lanes[1] += b * b, lanes[2] += c * c, lanes[3] += d * d;
    lanes[4] += a * b, lanes[5] += a * c, lanes[6] += a * d;
  });
  const double length = n > 0 ? n : 1, count = numbers[0] + 1.0, mean_square = sum[0] / length;
  numbers[0] = count;
  numbers[1] = FAST * numbers[1] + (1 - FAST) * mean_square;
  numbers[2] = SLOW * numbers[2] + (1 - SLOW) * mean_square;
  for (int k = 0; k < 3; k++) {
    const double cosine = sum[4 + k] / (sqrt(sum[1 + k]) * sqrt(sum[0]) + SMALLEST);
    numbers[3 + k] = ALIGNMENT * numbers[3 + k] + (1 - ALIGNMENT) * cosine;
  }
  const double r = sqrt(numbers[2] / (1 - pow(SLOW, count))) + TINY;
  double corrected[4] = {1};
  for (int k = 0; k < MEANS; k++) corrected[1 + k] = 1 - pow(DECAY[k], count);
  float* const x = row.x;
  x[0] = log(r) / 4 + 1;
  x[1] = log((sqrt(numbers[1] / (1 - pow(FAST, count))) + TINY) / r + TINY);
  for (int k = 1; k < MEANS; k++) {
    const double b = DECAY[k];
    const double grown = b * b * sum[1 + k] + 2 * b * (1 - b) * sum[4 + k] + (1 - b) * (1 - b) * sum[0];
    x[1 + k] = log(sqrt(grown < 0 ? 0 : grown / length) / corrected[1 + k] / r + TINY);
  }
  for (int k = 0; k < 3; k++) x[4 + k] = 3 * numbers[3 + k];
  for (int k = 0; k < 7; k++) x[k] = within(-4, 4, x[k]);
  for (int k = 0; k < 7; k++) x[7 + k] = tanh(count / HORIZONS[k] - 1);
  if (WITH_FRACTION) {
    const double done = count - 1, planned = numbers[NUMBERS - 1];
    x[FEATURES - 2] = 2 * within(0, 1, done / (planned < 1 ? 1 : planned)) - 1;
    x[FEATURES - 1] = tanh((planned > done ? planned - done : 0) / 10 - 1);
  }
  outputs_of(net, row, units);

  constexpr int OVER_R[3] = {0, 2, 3};
  const double start = 1 - pow(SQUARES, count), rate = net.scale * exp(within(LOWEST, HIGHEST, row.outputs[ALONG]));
  for (int k = 0; k < 4; k++) {
    row.per_s[k] = rate * sqrt(start) / corrected[k];
    row.over_s[k] = row.outputs[k] * row.per_s[k];
  }
  for (int k = 0; k < 3; k++) {
    row.per_r[k] = rate / (corrected[OVER_R[k]] * r);
    row.over_r[k] = row.outputs[4 + k] * row.per_r[k];
  }
  row.itself = (SQUARES - 1) / start;
  row.floor = sqrt(start) * (LEAST * r + TINY);
}

// One of the tensors: its size, and where it is a matrix with Muon's direction its rows and columns, else zeros.
struct Shape {
  int64_t n, rows, columns;
};

inline Shape shape_of(const int64_t* sizes, int64_t t) {
  if (WITH_MUON) return {sizes[3 * t], sizes[3 * t + 1], sizes[3 * t + 2]};
  return {sizes[t], 0, 0};
}

// A tensor's numbers in memory, and where a recorded step leaves what the way back needs: g, the three means, 1 / s.
struct Tensor {
  int64_t n;
  Shape shape;
  const float* gradient;
  float *means[MEANS], *squares, *last, *numbers, *theta;
  float learning_rate;
  float* kept[5];  // or null
};

APART void move(const Tensor& tensor, const Row& row) {
  const float* __restrict g = tensor.gradient;
  float *__restrict m0 = tensor.means[0], *__restrict m1 = tensor.means[1], *__restrict m2 = tensor.means[2];
  float *__restrict v = tensor.squares, *__restrict last = tensor.last, *__restrict theta = tensor.theta;
  const float s0 = row.over_s[0], s1 = row.over_s[1], s2 = row.over_s[2], s3 = row.over_s[3];
  const float r0 = row.over_r[0], r1 = row.over_r[1], r2 = row.over_r[2], floor = row.floor, lr = tensor.learning_rate;
  const int64_t n = tensor.n;
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    const Vector x = load(g + i), a = DECAY[0] * load(m0 + i) + (1 - DECAY[0]) * x;
    const Vector b = DECAY[1] * load(m1 + i) + (1 - DECAY[1]) * x, c = DECAY[2] * load(m2 + i) + (1 - DECAY[2]) * x;
    const Vector square = SQUARES * load(v + i) + (1 - SQUARES) * x * x;
    const Vector update =
        (s0 * x + s1 * a + s2 * b + s3 * c) / (root_of(square) + floor) + (r0 * x + r1 * b + r2 * c);
    store(m0 + i, a), store(m1 + i, b), store(m2 + i, c), store(v + i, square), store(last + i, update);
    store(theta + i, load(theta + i) + lr * update);
  }
  for (; i < n; i++) {
    m0[i] = DECAY[0] * m0[i] + (1 - DECAY[0]) * g[i];
    m1[i] = DECAY[1] * m1[i] + (1 - DECAY[1]) * g[i];
    m2[i] = DECAY[2] * m2[i] + (1 - DECAY[2]) * g[i];
    v[i] = SQUARES * v[i] + (1 - SQUARES) * g[i] * g[i];
    const float scaled = s0 * g[i] + s1 * m0[i] + s2 * m1[i] + s3 * m2[i];
    const float update = scaled / (sqrtf(v[i]) + floor) + (r0 * g[i] + r1 * m1[i] + r2 * m2[i]);
    last[i] = update;
    theta[i] += lr * update;
  }
}

APART void keep(const Tensor& tensor, const Row& row) {
  const float* from[4] = {tensor.gradient, tensor.means[0], tensor.means[1], tensor.means[2]};
  for (int k = 0; k < 4; k++) memcpy(tensor.kept[k], from[k], sizeof(float) * tensor.n);
  const float* __restrict v = tensor.squares;
  float* __restrict inverse = tensor.kept[4];
  for (int64_t i = 0; i < tensor.n; i++) inverse[i] = 1 / (sqrtf(v[i]) + row.floor);
}

// The same of a matrix, against Muon's direction. What it keeps in place of 1 / s is 1 where a coordinate has had a gradient.
APART void move_matrix(const Net& net, const Tensor& tensor, Row& row, float* scratch) {
  const float *inside = row.outputs + OF_OTHERS, *g = tensor.gradient;
  const int64_t n = tensor.n;
  row.muons = net.scale * exp(within(LOWEST, HIGHEST, row.outputs[OUTPUTS - 1])) * longer_side(tensor.shape.rows, tensor.shape.columns);
  float* const ahead = scratch;
  for (int k = 0; k < MEANS; k++) {
    float* const m = tensor.means[k];
    for (int64_t i = 0; i < n; i++) m[i] = DECAY[k] * m[i] + (1 - DECAY[k]) * g[i];
  }
  const float *m0 = tensor.means[0], *m1 = tensor.means[1], *m2 = tensor.means[2];
  for (int64_t i = 0; i < n; i++) {
    tensor.squares[i] = SQUARES * tensor.squares[i] + (1 - SQUARES) * g[i] * g[i];
    ahead[i] = inside[0] * g[i] + inside[1] * m0[i] + inside[2] * m1[i] + inside[3] * m2[i];
  }
  const Orthogonal iteration(tensor.shape.rows, tensor.shape.columns, scratch + n, false);
  iteration.forward(ahead);
  iteration.result(ahead);
  for (int64_t i = 0; i < n; i++) {
    const float update = tensor.squares[i] > 0 ? -row.muons * ahead[i] : 0.f;
    tensor.last[i] = update;
    tensor.theta[i] += tensor.learning_rate * update;
  }
  if (!tensor.kept[0]) return;
  const float* from[4] = {g, m0, m1, m2};
  for (int k = 0; k < 4; k++) memcpy(tensor.kept[k], from[k], sizeof(float) * n);
  for (int64_t i = 0; i < n; i++) tensor.kept[4][i] = tensor.squares[i] > 0;
}

// Floats that a step of a tensor needs beside its Row and units, and the way back through it.
inline int64_t step_floats(const Shape& shape) {
  return WITH_MUON && shape.rows ? shape.n + Orthogonal::floats(shape.rows, shape.columns, false) : 0;
}
inline int64_t back_floats(const Shape& shape) {
  return WITH_MUON && shape.rows ? 2 * shape.n + Orthogonal::floats(shape.rows, shape.columns, true) : 0;
}

inline void step(const Net& net, const Tensor& tensor, Row& row, float* units, float* scratch) {
  const float* const m[MEANS] = {tensor.means[0], tensor.means[1], tensor.means[2]};
  look(net, tensor.n, tensor.gradient, m, tensor.last, tensor.numbers, row, units);
  if (WITH_MUON && tensor.shape.rows) return move_matrix(net, tensor, row, scratch);
  move(tensor, row);
  if (tensor.kept[0]) keep(tensor, row);
}

// The gradient of the outputs from that of the coefficients.
inline void to_outputs(const Row& row, const double (&dot)[ALONG], float (&d_outputs)[OUTPUTS]) {
  double d_rate = 0;
  for (int k = 0; k < 4; k++) d_outputs[k] = dot[k] * row.per_s[k], d_rate += dot[k] * row.over_s[k];
  for (int k = 0; k < 3; k++) d_outputs[4 + k] = dot[4 + k] * row.per_r[k], d_rate += dot[4 + k] * row.over_r[k];
  const float magnitude = row.outputs[ALONG];
  d_outputs[ALONG] = magnitude >= LOWEST && magnitude <= HIGHEST ? d_rate : 0;
  for (int k = OF_OTHERS; k < OUTPUTS; k++) d_outputs[k] = 0;
}

// The gradient of the weights from that of the outputs, added to `total`.
inline void learn(const Net& net, const Row& row, const float* units, const float (&d_outputs)[OUTPUTS], double* total,
                  float* scratch) {
  const int64_t H = net.hidden, first = H * (FEATURES + 1), later = H * (H + 1);
  int64_t place = first + (net.layers - 1) * later, outputs = OUTPUTS;
  const float* above = d_outputs;
  for (int64_t layer = net.layers; layer >= 0; layer--) {
    const int64_t inputs = layer ? H : FEATURES;
    const float* const x = layer ? units + (layer - 1) * H : row.x;
    const float* const w = net.weights + place;
    float* const below = scratch + (layer & 1) * H;
    if (layer) memset(below, 0, sizeof(float) * H);
    for (int64_t i = 0; i < outputs; i++) {
      double* const t = total + place + i * inputs;
      for (int64_t j = 0; j < inputs; j++) t[j] += above[i] * x[j];
      total[place + outputs * inputs + i] += above[i];
      if (layer)
        for (int64_t j = 0; j < inputs; j++) below[j] += above[i] * w[i * inputs + j];
    }
    if (layer)
      for (int64_t j = 0; j < inputs; j++) below[j] *= x[j] > 0 ? 1.f : 1.f + x[j];
    above = below, outputs = H, place -= layer > 1 ? later : first;
  }
}

// q = dL / dg, and `worths` of the means before the step from those after it. worth: dL / d(update). q may be null.
APART void back_coordinates(int64_t n, const Row& row, const float* worth, const float* inverse,
                            float* const (&worths)[MEANS], float* q_or_null) {
  const float s0 = row.over_s[0] * (1 + row.itself), s1 = row.over_s[1], s2 = row.over_s[2], s3 = row.over_s[3];
  const float r0 = row.over_r[0], r1 = row.over_r[1], r2 = row.over_r[2];
  const float *__restrict d = worth, *__restrict inv = inverse;
  float *__restrict u0 = worths[0], *__restrict u1 = worths[1], *__restrict u2 = worths[2], *__restrict q = q_or_null;
  for (int64_t i = 0; i < n; i++) {
    const float over_s = d[i] * inv[i];
    const float m0 = u0[i] + s1 * over_s, m1 = u1[i] + s2 * over_s + r1 * d[i], m2 = u2[i] + s3 * over_s + r2 * d[i];
    q[i] = s0 * over_s + r0 * d[i] + (1 - DECAY[0]) * m0 + (1 - DECAY[1]) * m1 + (1 - DECAY[2]) * m2;
    u0[i] = DECAY[0] * m0, u1[i] = DECAY[1] * m1, u2[i] = DECAY[2] * m2;
  }
}

// The same of a matrix; returns the gradient of its outputs, and does not need `q`.
APART void back_matrix(const Shape& shape, const Row& row, const float* const (&kept)[5], const float* worth,
                       float* const (&worths)[MEANS], float* q, float (&d_outputs)[OUTPUTS], float* scratch) {
  const int64_t n = shape.n;
  const float* inside = row.outputs + OF_OTHERS;
  float *ahead = scratch, *d = scratch + n;
  for (int64_t i = 0; i < n; i++)
    ahead[i] = inside[0] * kept[0][i] + inside[1] * kept[1][i] + inside[2] * kept[2][i] + inside[3] * kept[3][i];
  const Orthogonal iteration(shape.rows, shape.columns, scratch + 2 * n, true);
  iteration.forward(ahead);
  iteration.result(ahead);
  for (int64_t i = 0; i < n; i++) d[i] = -row.muons * worth[i] * kept[4][i];
  double of_rate[1], dot[4];
  sums<1>(n, of_rate, [&](Vector(&lanes)[1], const auto& at) { lanes[0] += at(d) * at(ahead); });
  iteration.back(d);
  sums<4>(n, dot, [&](Vector(&lanes)[4], const auto& at) {
    const Vector x = at(d);
    for (int k = 0; k < 4; k++) lanes[k] += x * at(kept[k]);
  });
  for (int k = 0; k < OF_OTHERS; k++) d_outputs[k] = 0;
  for (int k = 0; k < 4; k++) d_outputs[OF_OTHERS + k] = dot[k];
  const float magnitude = row.outputs[OUTPUTS - 1];
  d_outputs[OUTPUTS - 1] = magnitude >= LOWEST && magnitude <= HIGHEST ? of_rate[0] : 0;
  if (!q) return;
  for (int64_t i = 0; i < n; i++) q[i] = inside[0] * d[i];
  for (int k = 0; k < MEANS; k++)
    for (int64_t i = 0; i < n; i++) {
      const float mean = worths[k][i] + inside[1 + k] * d[i];
      q[i] += (1 - DECAY[k]) * mean;
      worths[k][i] = DECAY[k] * mean;
    }
}

inline void back(const Net& net, const Shape& shape, const Row& row, const float* units, const float* const (&kept)[5],
                 const float* worth, float* const (&worths)[MEANS], float* q, double* total, float* scratch) {
  const int64_t n = shape.n;
  if (n == 0) return;  // its features are not finite, and nothing depends on them
  float d_outputs[OUTPUTS];
  if (WITH_MUON && shape.rows) {
    back_matrix(shape, row, kept, worth, worths, q, d_outputs, scratch + 2 * net.hidden);
    return learn(net, row, units, d_outputs, total, scratch);
  }
  double dot[ALONG];
  sums<ALONG>(n, dot, [&](Vector (&lanes)[ALONG], const auto& at) {
    const Vector d = at(worth), over_s = d * at(kept[4]);
    const Vector g = at(kept[0]), m0 = at(kept[1]), m1 = at(kept[2]), m2 = at(kept[3]);
    lanes[0] += over_s * g, lanes[1] += over_s * m0, lanes[2] += over_s * m1, lanes[3] += over_s * m2;
    lanes[4] += d * g, lanes[5] += d * m1, lanes[6] += d * m2;
  });
  to_outputs(row, dot, d_outputs);
  learn(net, row, units, d_outputs, total, scratch);
  if (q) back_coordinates(n, row, worth, kept[4], worths, q);
}

}  // namespace
