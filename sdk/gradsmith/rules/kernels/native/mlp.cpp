// The mlp rule on the CPU: inner steps of all tensors of many tasks, and windows gone back through step by step.
//
// Compile-time constants: WIDTH (floats in a vector: 16 for AVX-512, 8 for AVX2, 4 elsewhere), HIDDEN, LAYERS, and
// WITH_MOMENTA and the like, 1 for each input that there is.
#include <memory>

#include "mlp_back.h"
#include "parallel.h"
#include "supported.h"

namespace {

// Tensors end to end on one axis, cut into pieces of whole blocks, the last of each tensor shorter.
struct Piece {
  int64_t tensor, first, count;  // its first coordinate, within the tensor
};

struct Axis {
  std::vector<int64_t> starts, blocks;  // of each tensor: its first coordinate, and the blocks of all before it
  std::vector<Piece> pieces;
  int64_t coordinates = 0;

  template <typename Moves>
  Axis(int64_t tensors, const int64_t* sizes, const Moves& moves) {
    int64_t before = 0;
    for (int64_t t = 0; t < tensors; coordinates += sizes[t], before += (sizes[t] + BLOCK - 1) / BLOCK, t++) {
      starts.push_back(coordinates), blocks.push_back(before);
      if (moves(t))
        for (int64_t at = 0; at < sizes[t]; at += PIECE)
          pieces.push_back({t, at, sizes[t] - at < PIECE ? sizes[t] - at : PIECE});
    }
  }
};

// What a recorded step leaves: the features of each tensor's blocks, then for each tensor a Row.
constexpr int64_t ROW_FLOATS = sizeof(Row) / sizeof(float);
inline int64_t most_blocks(int64_t coordinates, int64_t tensors) { return coordinates / BLOCK + tensors; }  // padded ones too
inline int64_t reading_floats(int64_t coordinates, int64_t tensors) { return most_blocks(coordinates, tensors) * READING; }

inline Span span_of(const Axis& axis, const Piece& piece, const float* readings, const float* worth, float* worths, float* q) {
  const int64_t place = axis.starts[piece.tensor] + piece.first;
  Span span{piece.count, readings + (axis.blocks[piece.tensor] + piece.first / BLOCK) * READING, worth + place, {}, nullptr};
  if (q) {
    span.q = q + place;
    for (int k = 0; k < MEANS; k++) span.worths[k] = worths + k * axis.coordinates + place;
  }
  return span;
}

// The gradient of the weights is added to `total`; q, unless it is null, and the worths are computed. False: out of memory.
bool weigh(const float* weights, float scale, const Axis& axis, const float* readings, const Row* rows, const float* worth,
           float* worths, float* q, double* total, int64_t threads) {
  const int64_t coordinates = axis.coordinates, pieces = axis.pieces.size();
  const auto made = std::unique_ptr<Prepared>(new Prepared);
  Prepared& w = *made;
  prepare(weights, scale, true, w);
  // Sums over coordinates are added up in an order that does not depend on threads.
  const int64_t jobs = pieces < 1 ? 0 : coordinates < 2 * PIECE ? 1 : coordinates < 32 * PIECE ? coordinates / PIECE / 2 : 16;
  std::vector<double> of_jobs(jobs * WEIGHTS);
  const bool done = in_parallel(jobs, worthwhile(threads, coordinates / 2), sizeof(Back), [&](int64_t job, void* memory) {
    Back& r = *static_cast<Back*>(memory);
    double* const own = &of_jobs[job * WEIGHTS];
    begin(r);
    for (int64_t p = job * pieces / jobs; p < (job + 1) * pieces / jobs; p++) {
      const Piece& piece = axis.pieces[p];
      back(w, rows[piece.tensor], span_of(axis, piece, readings, worth, worths, q), r, own);
    }
    add_up(r, own);
  });
  if (!done) return false;
  for (int64_t job = 0; job < jobs; job++)
    for (int k = 0; k < WEIGHTS; k++) total[k] += of_jobs[job * WEIGHTS + k];
  return true;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// To be asked before anything else.
int gradsmith_supported() { return supported(); }

// The number of weights; 0 for a network that this file was not compiled for.
int64_t gradsmith_weights(int64_t hidden, int64_t layers) { return hidden == HIDDEN && layers == LAYERS ? WEIGHTS : 0; }

int64_t gradsmith_record_floats(int64_t coordinates, int64_t tensors, int64_t, int64_t) {
  return reading_floats(coordinates, tensors) + tensors * ROW_FLOATS;
}

// One inner step, in place, of tensors one after another; memory as the rule's, feature-major: means (MEANS x coordinates),
// squares (SQUARES x coordinates), last (coordinates, or null) and numbers (tensors x NUMBERS). `gradients` and `values` hold a
// pointer for each tensor, or null for one that does not move. record: null, or where to leave what the way back needs;
// outputs: null, or where to leave those of the network, for `gradsmith_back_sampled`. Returns 1 when memory ran out.
int gradsmith_step(const float* weights, int64_t, int64_t, float scale, int64_t tensors, const int64_t* sizes,
                   const float* const* gradients, float* const* values, const float* rates, float* means,
                   float* squares, float* last, float* numbers, float* record, float* outputs, int64_t threads) {
  const Axis axis(tensors, sizes, [&](int64_t t) { return values[t] != nullptr; });
  const int64_t coordinates = axis.coordinates, jobs = axis.pieces.size();
  std::vector<double> sums_of(3 * jobs);
  const bool looked = in_parallel(jobs, worthwhile(threads, coordinates / 200), 64, [&](int64_t job, void*) {
    const Piece& piece = axis.pieces[job];
    const float* const g = gradients[piece.tensor] + piece.first;
    const float* const u = ALIGNMENT ? last + axis.starts[piece.tensor] + piece.first : g;
    double sum[3];
    sums<3>(piece.count, sum, [&](Vector (&lanes)[3], const auto& at) {
      const Vector a = at(g), b = at(u);
      lanes[0] += a * a, lanes[1] += b * b, lanes[2] += a * b;
    });
    memcpy(&sums_of[3 * job], sum, sizeof sum);
  });
  if (!looked) return 1;
  std::vector<Row> own(record ? 0 : tensors);
  Row* const rows = record ? reinterpret_cast<Row*>(record + reading_floats(coordinates, tensors)) : own.data();
  const auto made = std::unique_ptr<Prepared>(new Prepared);
  Prepared& w = *made;
  prepare(weights, scale, false, w);
  for (int64_t job = 0; job < jobs;) {
    const int64_t t = axis.pieces[job].tensor;
    double sum[3] = {};
    for (; job < jobs && axis.pieces[job].tensor == t; job++)
      for (int k = 0; k < 3; k++) sum[k] += sums_of[3 * job + k];
    look(w, sizes[t], sum, numbers + NUMBERS * t, rows[t]);
  }
  return !in_parallel(jobs, worthwhile(threads, coordinates / 4), sizeof(Scratch), [&](int64_t job, void* memory) {
    Scratch& r = *static_cast<Scratch*>(memory);
    const Piece& piece = axis.pieces[job];
    const int64_t t = piece.tensor, end = piece.first + piece.count;
    for (int64_t at = piece.first; at < end; at += BLOCK) {
      const int64_t place = axis.starts[t] + at;
      Lines lines{gradients[t] + at, {}, {}, ALIGNMENT ? last + place : nullptr, values[t] + at, rates[t]};
      for (int k = 0; k < MEANS; k++) lines.means[k] = means + k * coordinates + place;
      for (int k = 0; k < SQUARES; k++) lines.squares[k] = squares + k * coordinates + place;
      const int64_t block = axis.blocks[t] + at / BLOCK;
      float* const x = record ? record + block * READING : r.x;
      float* const out = outputs ? outputs + block * OUTPUTS * BLOCK : r.out;
      if (end - at >= BLOCK) step(w, rows[t], lines, x, out, r);
      else step_padded(w, rows[t], lines, x, out, r, end - at);
    }
  });
}

// The same of tasks side by side on one axis: gradient and theta (coordinates).
int gradsmith_step_tasks(const float* weights, int64_t hidden, int64_t layers, float scale, int64_t tensors,
                         const int64_t* sizes, const float* gradient, float* theta, float* means, float* squares,
                         float* last, float* numbers, float* record, float* outputs, int64_t threads) {
  std::vector<const float*> gradients(tensors);
  std::vector<float*> values(tensors);
  const std::vector<float> rates(tensors, 1.f);
  for (int64_t t = 0, at = 0; t < tensors; at += sizes[t++]) gradients[t] = gradient + at, values[t] = theta + at;
  return gradsmith_step(weights, hidden, layers, scale, tensors, sizes, gradients.data(), values.data(), rates.data(),
                        means, squares, last, numbers, record, outputs, threads);
}

// Back through one recorded step. worth (coordinates): dL / d(update). worths (MEANS x coordinates): dL / d(means), after
// the step and then before it. q: null, or dL / d(gradient). The gradient of the weights is added to `total`.
// Returns 1 when memory ran out.
int gradsmith_back(const float* weights, int64_t, int64_t, float scale, int64_t tensors, const int64_t* sizes,
                   const float* record, const float* worth, float* worths, float* q, double* total, int64_t threads) {
  const Axis axis(tensors, sizes, [](int64_t) { return true; });
  const Row* const rows = reinterpret_cast<const Row*>(record + reading_floats(axis.coordinates, tensors));
  return !weigh(weights, scale, axis, record, rows, worth, worths, q, total, threads);
}

int64_t gradsmith_outputs_floats(int64_t coordinates, int64_t tensors) {
  return most_blocks(coordinates, tensors) * OUTPUTS * BLOCK;
}

// The same, where the weights learn from `chosen` coordinates alone: `places`, rising, of which each tensor has chosen_of,
// each counted `counts` times. outputs: what the step left there.
int gradsmith_back_sampled(const float* weights, int64_t, int64_t, float scale, int64_t tensors, const int64_t* sizes,
                           const float* record, const float* outputs, const float* worth, float* worths, float* q,
                           const int64_t* chosen_of, const int64_t* places, const float* counts, double* total,
                           int64_t threads) {
  const Axis axis(tensors, sizes, [](int64_t) { return true; });
  const Axis chosen(tensors, chosen_of, [](int64_t) { return true; });
  const Row* const rows = reinterpret_cast<const Row*>(record + reading_floats(axis.coordinates, tensors));
  std::vector<float> readings(reading_floats(chosen.coordinates, tensors)), worth_of(chosen.coordinates);
  for (int64_t t = 0; t < tensors; t++)
    for (int64_t c = 0; c < chosen_of[t]; c++) {
      const int64_t number = chosen.starts[t] + c, within = places[number] - axis.starts[t];
      const float* const from = record + (axis.blocks[t] + within / BLOCK) * READING + within % BLOCK;
      float* const to = readings.data() + (chosen.blocks[t] + c / BLOCK) * READING + c % BLOCK;
      for (int feature = 0; feature <= EACH; feature++) to[feature * BLOCK] = from[feature * BLOCK];
      worth_of[number] = worth[places[number]] * counts[number];
    }
  if (!weigh(weights, scale, chosen, readings.data(), rows, worth_of.data(), nullptr, nullptr, total, threads)) return 1;
  if (!q) return 0;
  const auto made = std::unique_ptr<Prepared>(new Prepared);
  Prepared& w = *made;
  w.weights = weights, w.scale = scale;
  const int64_t jobs = axis.pieces.size();
  return !in_parallel(jobs, worthwhile(threads, axis.coordinates / 20), sizeof(Ends), [&](int64_t job, void* memory) {
    const Piece& piece = axis.pieces[job];
    const float* const own = outputs + (axis.blocks[piece.tensor] + piece.first / BLOCK) * OUTPUTS * BLOCK;
    back_without_weights(w, rows[piece.tensor], span_of(axis, piece, record, worth, worths, q), own, *static_cast<Ends*>(memory));
  });
}
}
#pragma GCC visibility pop
