// What one core can do at best: fused multiply-adds that never leave the registers, and sigmoids at the accuracy of
// the training kernel (relative error 2e-7: a polynomial of degree 5 for 2^x, then a division, or the processor's
// reciprocal estimate and Newton's step; and in the kernel's own form: whichever is fastest here). Prints one JSON object.
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

typedef float Vector __attribute__((vector_size(WIDTH * 4), aligned(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile float sink;
static void keep(Vector v) {
  float sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += v[i];
  sink = sum;
}

// Twelve independent chains hide the latency of the fused multiply-add (4 cycles, two or fewer a cycle).
static double multiply_adds(long rounds) {
  Vector a[12], scale = {0}, shift = {0};
  scale += 0.999999f;
  shift += 1e-6f;
  for (int i = 0; i < 12; i++) a[i] = scale * (float)i;
  double begun = now();
  for (long r = 0; r < rounds; r++) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++) a[i] = a[i] * scale + shift;
  }
  double seconds = now() - begun;
  Vector total = {0};
  for (int i = 0; i < 12; i++) total += a[i];
  keep(total);
  return 2.0 * 12 * WIDTH * (double)rounds / seconds;
}

// Lane by lane; C, unlike C++, has no ?: of vectors in every compiler.
static inline Vector chosen(Ints where, Vector then, Vector otherwise) {
  return (Vector)((where & (Ints)then) | (~where & (Ints)otherwise));
}

static inline Vector floor_of(Vector x) {
#if defined(__AVX512F__)
  return (Vector)_mm512_roundscale_ps((__m512)x, 1);
#elif defined(__AVX2__)
  return (Vector)_mm256_floor_ps((__m256)x);
#else
  Vector t = __builtin_convertvector(__builtin_convertvector(x, Ints), Vector);
  return t - chosen(t > x, (Vector){0} + 1.f, (Vector){0});
#endif
}

static inline Vector exp2_of(Vector x) {
  Vector whole = floor_of(x), part = x - whole;
  Vector y = part * 1.8775767e-3f + 8.9893397e-3f;
  y = y * part + 5.5826318e-2f;
  y = y * part + 2.4015361e-1f;
  y = y * part + 6.9315308e-1f;
  y = y * part + 9.9999994e-1f;
  Ints bits = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return y * (Vector)bits;
}

static inline Vector by_division(Vector x) { return 1.f / (1.f + exp2_of(x * -1.44269504f)); }

static inline Vector by_estimate(Vector x) {
  Vector d = 1.f + exp2_of(x * -1.44269504f);
#if defined(__AVX512F__)
  Vector r = (Vector)_mm512_rcp14_ps((__m512)d);
#elif defined(__AVX2__)
  Vector r = (Vector)_mm256_rcp_ps((__m256)d);
#else
  Vector r = 1.f / d;
#endif
  return r * (2.f - d * r);
}

// As one_plus_exp2 and sigmoid_of in sdk/gradsmith/rules/kernels/native/vectors.h: the argument comes scaled, is held
// within +-126, and is rounded by adding a number whose last place is 1.
static inline Vector at_most(float limit, Vector x) {
  Vector l = (Vector){0} + limit;
#if defined(__AVX512F__)
  return (Vector)_mm512_min_ps((__m512)l, (__m512)x);
#elif defined(__AVX2__)
  return (Vector)_mm256_min_ps((__m256)l, (__m256)x);
#else
  return chosen(l < x, l, x);
#endif
}

static inline Vector at_least(float limit, Vector x) {
  Vector l = (Vector){0} + limit;
#if defined(__AVX512F__)
  return (Vector)_mm512_max_ps((__m512)l, (__m512)x);
#elif defined(__AVX2__)
  return (Vector)_mm256_max_ps((__m256)l, (__m256)x);
#else
  return chosen(l > x, l, x);
#endif
}

static inline Vector as_kernel(Vector x) {
  const float magic = 12582912.f + 127.f;
  x = at_least(-126.f, at_most(126.f, x));
  Vector shifted = x + magic, part = x - (shifted - magic);
  Vector y = part * 1.327647199e-3f + 9.675541334e-3f;
  y = y * part + 5.550713273e-2f;
  y = y * part + 2.402211972e-1f;
  y = y * part + 6.931469671e-1f;
  y = y * part + 1.000000072f;
  return 1.f / (y * (Vector)((Ints)shifted << 23) + 1.f);
}

enum { FLOATS = 2048 };  // 8 KB: stays in the first cache

// Vectors do not wait for each other, and one a turn leaves the constants in registers. Without the barrier GCC merges
// rounds, and each vector's next sigmoid then waits for its last: 20 % slower.
#define RATE(name)                                      \
  static double rate_##name(float *data, long rounds) { \
    double begun = now();                               \
    for (long r = 0; r < rounds; r++) {                 \
      __asm__ volatile("" ::: "memory");                \
      for (int i = 0; i < FLOATS; i += WIDTH) {         \
        Vector *v = (Vector *)(data + i);               \
        *v = name(*v);                                  \
      }                                                 \
    }                                                   \
    double seconds = now() - begun;                     \
    keep(*(Vector *)data);                              \
    return FLOATS * (double)rounds / seconds;           \
  }
RATE(by_division)
RATE(by_estimate)
RATE(as_kernel)

static double best(double a, double b) { return a > b ? a : b; }

int main(void) {
  static float data[FLOATS] __attribute__((aligned(64)));
  for (int i = 0; i < FLOATS; i++) data[i] = (float)(i % 64) / 16.f - 2.f;
  double fma = 0, division = 0, estimate = 0, kernel = 0;
  for (int i = 0; i < 500; i++) {  // the best of many moments of a millisecond: others may use this core too
    fma = best(fma, multiply_adds(200000));
    division = best(division, rate_by_division(data, 400));
    estimate = best(estimate, rate_by_estimate(data, 400));
    kernel = best(kernel, rate_as_kernel(data, 400));
  }
  printf("{\"width\": %d, \"fma_flops\": %.6g, ", WIDTH, fma);
  printf("\"sigmoids_by_division\": %.6g, \"sigmoids_by_estimate\": %.6g, ", division, estimate);
  printf("\"sigmoids_as_kernel\": %.6g}\n", kernel);
  return 0;
}
