// One inner step: features, LSTM, update, in place.
#pragma once
#include "lstm.h"

namespace {

struct Scratch {
  float x[INPUTS * BLOCK], gates[GATES * BLOCK], tanh_c[AREA];
};

// state <- next state, theta += update
void step_of_block(const Prepared& w, int64_t block, int64_t coordinates, const float* gradient, float* state,
                   float* theta, Scratch& r) {
  state += block * STATE;
  float padded[BLOCK];
  features(w, whole_block(gradient, block, coordinates, padded), r.x);
  const float* x = r.x;
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer;
    float *h = state + 2 * L * AREA, *c = h + AREA;
    product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, h, r.gates);
    cell(r.gates, c, c, r.tanh_c, h);
    x = h;
  });
  Vector left = splat(w.read_out_bias), right = left;
  for (int j = 0; j < HIDDEN; j++)
    left += w.read_out[j] * load(x + j * BLOCK), right += w.read_out[j] * load(x + j * BLOCK + WIDTH);
  store(padded, left * w.output_scale), store(padded + WIDTH, right * w.output_scale);
  const int64_t end = coordinates - block * BLOCK < BLOCK ? coordinates - block * BLOCK : BLOCK;
  for (int64_t n = 0; n < end; n++) theta[block * BLOCK + n] += padded[n];
}

}  // namespace
