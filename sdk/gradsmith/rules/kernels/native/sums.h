// Sums over the coordinates of a tensor: in pieces of 4,096 in float32, the pieces added up in double.
#pragma once
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

constexpr int64_t PIECE = 4096;

// total[k] = sum of what `terms(lanes, at)` adds to lanes[k], where at(p) are the numbers of row p that it is called for.
template <int N, typename Terms>
inline void sums(int64_t n, double (&total)[N], const Terms& terms) {
  for (double& each : total) each = 0;
  for (int64_t first = 0; first < n; first += PIECE) {
    const int64_t end = n < first + PIECE ? n : first + PIECE;
    Vector lanes[N] = {};
    int64_t i = first;
    for (; i + WIDTH <= end; i += WIDTH) terms(lanes, [&](const float* p) { return load(p + i); });
    if (i < end) {
      float padded[WIDTH];
      terms(lanes, [&](const float* p) {
        memset(padded, 0, sizeof padded), memcpy(padded, p + i, sizeof(float) * (end - i));
        return load(padded);
      });
    }
    for (int k = 0; k < N; k++)
      for (int lane = 0; lane < WIDTH; lane++) total[k] += lanes[k][lane];
  }
}

}  // namespace
