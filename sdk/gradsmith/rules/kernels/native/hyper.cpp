// The hyper rule on the CPU: inner steps of all tensors of many tasks, and windows gone back through step by step.
//
// Compile-time constants: WIDTH (floats in a vector: 16 for AVX-512, 8 for AVX2, 4 elsewhere); WITH_FRACTION, 1 for the
// clock `time+fraction`; WITH_MUON, 1 for the direction `muon`.
#include "hyper.h"
#include "parallel.h"
#include "supported.h"

namespace {

// What a recorded step leaves: g, three means and 1 / s, (5 x coordinates); then for each tensor a Row and its units.
inline int64_t row_floats(const Net& net) { return sizeof(Row) / sizeof(float) + activations(net); }
inline float* kept_row(float* record, int64_t coordinates, int64_t number, const Net& net) {
  return record + 5 * coordinates + number * row_floats(net);
}

// The most that the step of one of the tensors needs, in floats: a Row, its units, and what an iteration takes.
inline int64_t scratch_floats(const Net& net, int64_t tensors, const int64_t* sizes) {
  int64_t most = 0;
  for (int64_t t = 0; t < tensors; t++) {
    const int64_t own = step_floats(shape_of(sizes, t));
    most = own > most ? own : most;
  }
  return row_floats(net) + most;
}

inline int64_t total_of(int64_t tensors, const int64_t* sizes) {
  int64_t coordinates = 0;
  for (int64_t t = 0; t < tensors; t++) coordinates += shape_of(sizes, t).n;
  return coordinates;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// To be asked before anything else.
int gradsmith_supported() { return supported(); }

// The number of weights.
int64_t gradsmith_weights(int64_t hidden, int64_t layers) {
  return hidden * (FEATURES + 1) + (layers - 1) * hidden * (hidden + 1) + OUTPUTS * (hidden + 1);
}

int64_t gradsmith_record_floats(int64_t coordinates, int64_t tensors, int64_t hidden, int64_t layers) {
  return 5 * coordinates + tensors * row_floats(Net{nullptr, hidden, layers, 0});
}

// sizes: of each tensor; with WITH_MUON its size, rows and columns, which are 0 where it is no matrix.
// One inner step, in place, of tensors one after another; memory as the rule's, feature-major: means (3 x coordinates),
// squares and last (coordinates), numbers (tensors x NUMBERS). `gradients` and `values` hold a pointer for each tensor, or null for
// one that does not move. record: null, or where to leave what the way back needs; the pointer
// after it is for mlp rules. Returns 1 when memory ran out.
int gradsmith_step(const float* weights, int64_t hidden, int64_t layers, float scale, int64_t tensors,
                         const int64_t* sizes, const float* const* gradients, float* const* values, const float* rates,
                         float* means, float* squares, float* last, float* numbers, float* record, float*,
                         int64_t threads) {
  const Net net{weights, hidden, layers, scale};
  const int64_t coordinates = total_of(tensors, sizes), bytes = sizeof(float) * scratch_floats(net, tensors, sizes);
  std::vector<int64_t> starts(tensors);
  for (int64_t t = 1; t < tensors; t++) starts[t] = starts[t - 1] + shape_of(sizes, t - 1).n;
  return !in_parallel(tensors, worthwhile(threads, coordinates), bytes, [&](int64_t t, void* memory) {
    const Shape shape = shape_of(sizes, t);
    if (!values[t] || !shape.n) return;
    const int64_t at = starts[t];
    Tensor tensor{shape.n, shape, gradients[t], {}, squares + at, last + at, numbers + NUMBERS * t, values[t], rates[t], {}};
    for (int k = 0; k < MEANS; k++) tensor.means[k] = means + k * coordinates + at;
    float *row = static_cast<float*>(memory), *scratch = row + row_floats(net);
    if (record) {
      row = kept_row(record, coordinates, t, net);
      for (int k = 0; k < 5; k++) tensor.kept[k] = record + k * coordinates + at;
    }
    step(net, tensor, *reinterpret_cast<Row*>(row), row + sizeof(Row) / sizeof(float), scratch);
  });
}

// The same of tasks side by side on one axis: gradient and theta (coordinates).
int gradsmith_step_tasks(const float* weights, int64_t hidden, int64_t layers, float scale, int64_t tensors,
                               const int64_t* sizes, const float* gradient, float* theta, float* means, float* squares,
                               float* last, float* numbers, float* record, float*, int64_t threads) {
  std::vector<const float*> gradients(tensors);
  std::vector<float*> values(tensors);
  const std::vector<float> rates(tensors, 1.f);
  for (int64_t t = 0, at = 0; t < tensors; at += shape_of(sizes, t++).n) gradients[t] = gradient + at, values[t] = theta + at;
  return gradsmith_step(weights, hidden, layers, scale, tensors, sizes, gradients.data(), values.data(),
                              rates.data(), means, squares, last, numbers, record, nullptr, threads);
}

// Back through one recorded step. worth (coordinates): dL / d(update). worths (3 x coordinates): dL / d(means), after
// the step and then before it. q: null, or dL / d(gradient). The gradient of the weights is added to `total`. All on
// one thread: it is a few sums.
int gradsmith_back(const float* weights, int64_t hidden, int64_t layers, float scale, int64_t tensors,
                         const int64_t* sizes, float* record, const float* worth, float* worths, float* q,
                         double* total, int64_t) {
  const Net net{weights, hidden, layers, scale};
  const int64_t coordinates = total_of(tensors, sizes);
  int64_t most = 0;
  for (int64_t t = 0; t < tensors; t++) {
    const int64_t own = back_floats(shape_of(sizes, t));
    most = own > most ? own : most;
  }
  std::vector<float> scratch(2 * hidden + most);
  for (int64_t t = 0, at = 0; t < tensors; at += shape_of(sizes, t++).n) {
    const float* kept[5];
    float* of_means[MEANS] = {};
    for (int k = 0; k < 5; k++) kept[k] = record + k * coordinates + at;
    if (q)
      for (int k = 0; k < MEANS; k++) of_means[k] = worths + k * coordinates + at;
    const float* const row = kept_row(record, coordinates, t, net);
    back(net, shape_of(sizes, t), *reinterpret_cast<const Row*>(row), row + sizeof(Row) / sizeof(float), kept, worth + at,
         of_means, q ? q + at : nullptr, total, scratch.data());
  }
  return 0;
}
}
#pragma GCC visibility pop
