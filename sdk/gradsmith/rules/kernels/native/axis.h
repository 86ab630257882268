// One inner step of many tensors at once, which lie end to end on one axis of coordinates.
//
// Blocks are cut from the axis, not from the tensors: a block may hold the end of one tensor and all of several small
// ones, so that small tensors cost what their coordinates cost. Most blocks lie within one tensor and read its gradient
// and write its values where they are; the others are gathered and scattered.
#pragma once
#include <algorithm>
#include <type_traits>

#include "parallel.h"
#include "step.h"

namespace {

// `ends[t]`: the coordinate behind the last of tensor t. A tensor without a gradient (null) rests: neither its values
// nor its memory change.
struct Axis {
  int64_t tensors;
  const int64_t* ends;
  const float* const* gradients;
  float* const* values;
  const float* rates;  // factors on the updates, one for each tensor

  int64_t begin(int64_t t) const { return t ? ends[t - 1] : 0; }
  int64_t coordinates() const { return begin(tensors); }
  int64_t tensor_at(int64_t coordinate) const { return std::upper_bound(ends, ends + tensors, coordinate) - ends; }
};

// Memory is computed with in float32 where it lies, or, kept as bfloat16, in `state`.
template <typename Memory>
struct AxisScratch {
  Scratch step;
  float gradient[BLOCK], update[BLOCK], before[STATE];
  bool untouched[BLOCK];
  float state[std::is_same_v<Memory, float> ? WIDTH : STATE];
};

template <typename Memory>
inline float* unpacked(Memory* memory, AxisScratch<Memory>& r) {
  if constexpr (std::is_same_v<Memory, float>) {
    return memory;
  } else {
    for (int e = 0; e < STATE; e += WIDTH) store(r.state + e, load(memory + e));
    return r.state;
  }
}

template <typename Memory>
inline void packed(const float* state, Memory* memory) {
  if constexpr (!std::is_same_v<Memory, float>)
    for (int e = 0; e < STATE; e += WIDTH) store(memory + e, load(state + e));
}

// Marks the coordinates that have never had a gradient: this one is zero, and so is all of their memory.
template <typename Memory>
inline bool find_untouched(const float* gradient, const float* state, AxisScratch<Memory>& r) {
  bool any = false;
  for (int n = 0; n < BLOCK; n++) any |= r.untouched[n] = gradient[n] == 0.f;
  if (!any) return false;
  any = false;
  for (int n = 0; n < BLOCK; n++) {
    for (int row = 0; row < STATE && r.untouched[n]; row += BLOCK) r.untouched[n] = state[row + n] == 0.f;
    any |= r.untouched[n];
  }
  return any;
}

// One step of a block. A coordinate that has never had a gradient does not move and remembers nothing.
template <typename Memory>
inline void advance_touched(const Prepared& w, const float* gradient, float* state, AxisScratch<Memory>& r) {
  const bool any = find_untouched(gradient, state, r);
  advance_block(w, gradient, state, r.update, r.step, [&](int) { return r.step.record; });
  if (!any) return;
  for (int n = 0; n < BLOCK; n++)
    if (r.untouched[n]) {
      r.update[n] = 0.f;
      for (int row = 0; row < STATE; row += BLOCK) state[row + n] = 0.f;
    }
}

// A block within tensor t.
template <typename Memory>
inline void step_within(const Prepared& w, const Axis& axis, int64_t t, int64_t first, Memory* memory,
                        AxisScratch<Memory>& r) {
  if (!axis.gradients[t]) return;
  float *const state = unpacked(memory, r), *const values = axis.values[t] + (first - axis.begin(t));
  advance_touched(w, axis.gradients[t] + (first - axis.begin(t)), state, r);
  packed(state, memory);
  const Vector rate = splat(axis.rates[t]);
  for (int v = 0; v < BLOCK; v += WIDTH) store(values + v, load(values + v) + rate * load(r.update + v));
}

// A block that holds parts of several tensors, t the first of them, or the end of the axis.
template <typename Memory>
void step_across(const Prepared& w, const Axis& axis, int64_t t, int64_t first, Memory* memory,
                 AxisScratch<Memory>& r) {
  const int64_t last = std::min(first + BLOCK, axis.coordinates());
  const auto each_part = [&](auto run) {  // tensor, its first coordinate in the block, their number
    int64_t at = first;
    for (int64_t u = t; at < last; at = std::min(last, axis.ends[u++])) run(u, at, std::min(last, axis.ends[u]) - at);
  };
  bool any = false, rests = false;
  memset(r.gradient, 0, sizeof r.gradient);
  each_part([&](int64_t u, int64_t at, int64_t count) {
    if (!count) return;
    (axis.gradients[u] ? any : rests) = true;
    if (axis.gradients[u])
      memcpy(r.gradient + (at - first), axis.gradients[u] + (at - axis.begin(u)), sizeof(float) * count);
  });
  if (!any) return;
  float* const state = unpacked(memory, r);
  if (rests) memcpy(r.before, state, sizeof r.before);
  advance_touched(w, r.gradient, state, r);
  each_part([&](int64_t u, int64_t at, int64_t count) {
    if (axis.gradients[u]) {
      for (int64_t n = 0; n < count; n++) axis.values[u][at - axis.begin(u) + n] += axis.rates[u] * r.update[at - first + n];
    } else {
      for (int row = 0; row < STATE; row += BLOCK)
        memcpy(state + row + (at - first), r.before + row + (at - first), sizeof(float) * count);
    }
  });
  packed(state, memory);
}

// One step of the whole axis; memory is (blocks, state rows, BLOCK). False when there was no room for scratch.
template <typename Memory>
bool step_axis(const Prepared& w, const Axis& axis, Memory* memory, int64_t threads) {
  const int64_t coordinates = axis.coordinates(), blocks = (coordinates + BLOCK - 1) / BLOCK;
  const int64_t run_of = blocks < 256 ? (blocks + 15) / 16 : 16, jobs = run_of ? (blocks + run_of - 1) / run_of : 0;
  return in_parallel(jobs, worthwhile(threads, coordinates), sizeof(AxisScratch<Memory>), [&](int64_t job, void* own) {
    AxisScratch<Memory>& r = *static_cast<AxisScratch<Memory>*>(own);
    const int64_t last = std::min((job + 1) * run_of, blocks);
    int64_t t = axis.tensor_at(job * run_of * BLOCK);
    for (int64_t block = job * run_of; block < last; block++) {
      const int64_t first = block * BLOCK;
      while (axis.ends[t] <= first) t++;
      if (axis.ends[t] - first >= BLOCK)
        step_within(w, axis, t, first, memory + block * STATE, r);
      else
        step_across(w, axis, t, first, memory + block * STATE, r);
    }
  });
}

}  // namespace
