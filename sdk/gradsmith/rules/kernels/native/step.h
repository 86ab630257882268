// One inner step: features, LSTM, update, in place.
#pragma once
#include "lstm.h"

namespace {

struct Scratch {
  float x[INPUTS * BLOCK], record[RECORD];
};

// One step of a block: state <- next state, and the scaled update goes to `update`. A layer's record is left where
// `record_of` says, given the layer's number.
template <typename RecordOf>
inline void advance_block(const Prepared& w, const float* gradient, float* state, float* update, Scratch& r,
                          const RecordOf& record_of) {
  features(w, gradient, r.x);
  const float* x = r.x;
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer;
    float *h = state + 2 * L * AREA, *c = h + AREA;
    float* const record = record_of(L);
    product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, h, record);
    cell(record, c, h);
    memcpy(c, record + GATES * BLOCK, sizeof(float) * AREA);
    x = h;
  });
  Vector left = splat(w.read_out_bias), right = left;
  for (int j = 0; j < HIDDEN; j++)
    left += w.read_out[j] * load(x + j * BLOCK), right += w.read_out[j] * load(x + j * BLOCK + WIDTH);
  store(update, left * w.output_scale), store(update + WIDTH, right * w.output_scale);
}

// One step of block number `block` of one tensor: state <- next state, theta += update; the records go to row
// `step` of the tape.
inline void step_of_block(const Prepared& w, int64_t block, int64_t coordinates, const float* gradient, float* state,
                          float* theta, Scratch& r, const Tape& tape, int64_t step) {
  float padded[BLOCK], update[BLOCK];
  const float* const own = whole_block(gradient, block, coordinates, padded);
  advance_block(w, own, state + block * STATE, update, r, [&](int layer) {
    float* const kept = tape.record(step, block, layer);
    return kept ? kept : r.record;
  });
  const int64_t end = coordinates - block * BLOCK < BLOCK ? coordinates - block * BLOCK : BLOCK;
  for (int64_t n = 0; n < end; n++) theta[block * BLOCK + n] += update[n];
}

}  // namespace
