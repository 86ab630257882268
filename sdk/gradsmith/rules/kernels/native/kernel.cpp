// The coordinatewise LSTM rule on blocks of coordinates: one inner step forward, and a window of steps differentiated.
//
// A second telling of gradsmith/rules/lstm.py and features.py; tests/sdk/test_native.py holds the two equal.
//
// Compile-time constants: HIDDEN, LAYERS, INPUTS (2: log-sign, 1: raw), BFLOAT16 (1: factors of products in bfloat16),
// WIDTH (floats in a vector: 16 for AVX-512, 8 for AVX2, 4 elsewhere).
#include "axis.h"
#include "parallel.h"
#include "step.h"
#include "supported.h"
#include "window.h"

#pragma GCC visibility push(default)
extern "C" {

// Whether this CPU has the instructions that the file was compiled for. To be asked before anything else.
int gradsmith_supported() { return supported(); }

int64_t gradsmith_block() { return BLOCK; }
int64_t gradsmith_state_rows() { return 2 * LAYERS * HIDDEN; }
int64_t gradsmith_weights() { return WEIGHTS; }
int64_t gradsmith_prepared_bytes() { return sizeof(Prepared); }
int64_t gradsmith_workspace_bytes(int64_t steps) { return workspace_bytes(steps); }

void gradsmith_prepare(const float* weights, float p, float output_scale, void* prepared) {
  prepare(weights, p, output_scale, *static_cast<Prepared*>(prepared));
}

// One inner step of `coordinates` coordinates, in place; its records go to row `row` of the tape, which has
// `tape_blocks` blocks (0: no tape) of the layers from `first_layer` on. Returns 1 when memory ran out.
int gradsmith_step(const void* prepared, int64_t coordinates, const float* gradient, float* state, float* theta,
                   float* tape_data, int64_t tape_blocks, int64_t first_layer, int64_t row, int64_t threads) {
  const Tape tape{tape_data, tape_blocks, first_layer};
  const Prepared& w = *static_cast<const Prepared*>(prepared);
  const int64_t blocks = (coordinates + BLOCK - 1) / BLOCK, run_of = blocks < 256 ? (blocks + 15) / 16 : 16;
  const int64_t jobs = run_of ? (blocks + run_of - 1) / run_of : 0;
  return !in_parallel(jobs, worthwhile(threads, coordinates), sizeof(Scratch), [&](int64_t job, void* memory) {
    const int64_t last = (job + 1) * run_of < blocks ? (job + 1) * run_of : blocks;
    for (int64_t block = job * run_of; block < last; block++)
      step_of_block(w, block, coordinates, gradient, state, theta, *static_cast<Scratch*>(memory), tape, row);
  });
}

// One inner step of many tensors, in place; see axis.h. `memory` is float32, or bfloat16 where `halves` is set. Returns
// 1 when memory ran out.
int gradsmith_step_axis(const void* prepared, int64_t tensors, const int64_t* ends, const float* const* gradients,
                        float* const* values, const float* rates, void* memory, int64_t halves, int64_t threads) {
  const Prepared& w = *static_cast<const Prepared*>(prepared);
  const Axis axis{tensors, ends, gradients, values, rates};
  return !(halves ? step_axis(w, axis, static_cast<Bfloat16*>(memory), threads)
                  : step_axis(w, axis, static_cast<float*>(memory), threads));
}

// The gradient of a window, in `out` (WEIGHTS). `gradients` and `cotangents` are (steps x coordinates), their rows a
// stride apart. Blocks are cut into chunks by their number alone, and the chunks' sums added up in order, so that the
// bits are the same for any number of threads. The tape holds what the window's steps left there; the bits are those
// without one. Returns 1 when memory ran out.
int gradsmith_window_gradient(const void* prepared, int64_t coordinates, int64_t steps, const float* gradients,
                              int64_t gradient_stride, const float* cotangents, int64_t cotangent_stride,
                              const float* snapshot, float* tape, int64_t tape_blocks, int64_t first_layer,
                              float* out, int64_t threads) {
  const Prepared& w = *static_cast<const Prepared*>(prepared);
  const int64_t blocks = (coordinates + BLOCK - 1) / BLOCK, chunks = blocks < 256 ? (blocks + 3) / 4 : 64;
  const Window window{steps,     coordinates, gradient_stride, cotangent_stride,
                      gradients, cotangents,  snapshot,        Tape{tape, tape_blocks, first_layer}};
  double* sums = static_cast<double*>(calloc(chunks ? chunks : 1, sizeof(double) * WEIGHTS));
  if (!sums) return 1;
  const int64_t work = worthwhile(threads, 3 * coordinates * steps);
  const bool done = in_parallel(chunks, work, gradsmith_workspace_bytes(steps), [&](int64_t chunk, void* memory) {
    for (int64_t block = chunk * blocks / chunks; block < (chunk + 1) * blocks / chunks; block++)
      window_of_block(w, window, block, *static_cast<Workspace*>(memory), sums + chunk * WEIGHTS);
  });
  for (int64_t chunk = 1; chunk < chunks; chunk++)
    for (int i = 0; i < WEIGHTS; i++) sums[i] += sums[chunk * WEIGHTS + i];
  for (int i = 0; i < WEIGHTS; i++) out[i] = static_cast<float>(sums[i]);
  free(sums);
  return !done;
}
}
#pragma GCC visibility pop
