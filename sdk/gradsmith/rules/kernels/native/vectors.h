// Vectors of WIDTH floats in the extensions that GCC and Clang share, and the elementary functions of the rule.
#pragma once
#include <cmath>
#include <cstdint>
#include <utility>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

// Not to be inlined: a whole window in one function is more than GCC keeps in registers, and costs an eighth more.
#define APART __attribute__((noinline))

namespace {

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef float VectorInMemory __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Vector load(const float* p) { return *reinterpret_cast<const VectorInMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<VectorInMemory*>(p) = v; }
inline Vector splat(float x) { return Vector{} + x; }

// Keeps the compiler from reading x from memory again wherever it is used: loads, not sums, would be the bottleneck.
inline void hold(Vector& x) {
#if WIDTH == 16 && defined(__AVX512F__)
  asm("" : "+v"(x));
#elif (WIDTH == 8 && defined(__AVX__)) || (WIDTH == 4 && defined(__SSE__))
  asm("" : "+x"(x));
#elif WIDTH == 4 && defined(__aarch64__)
  asm("" : "+w"(x));
#else
  (void)x;
#endif
}

// bfloat16 is the upper half of a float32; numbers are rounded to the nearest when stored, ties to even, as torch does.
typedef uint16_t Bfloat16;
typedef uint32_t Words __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 2)));
typedef uint16_t HalvesInMemory __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

inline Vector load(const Bfloat16* p) {
  const Halves upper = *reinterpret_cast<const HalvesInMemory*>(p);
  return reinterpret_cast<Vector>(__builtin_convertvector(upper, Words) << 16);
}
inline Words upper_half(Vector v) {
  const Words bits = reinterpret_cast<Words>(v), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return v == v ? rounded : Words{} + 0x7fc0;  // rounding could carry a NaN into another number
}
inline void store(Bfloat16* p, Vector v) {
  *reinterpret_cast<HalvesInMemory*>(p) = __builtin_convertvector(upper_half(v), Halves);
}

// The smaller and the larger; in this order of operands a NaN in `x` stays. GCC makes two instructions of the general
// form where x86 has one.
#if WIDTH == 16 && defined(__AVX512F__)
inline Vector at_most(Vector limit, Vector x) { return _mm512_min_ps(limit, x); }
inline Vector at_least(Vector limit, Vector x) { return _mm512_max_ps(limit, x); }
#elif WIDTH == 8 && defined(__AVX2__)
inline Vector at_most(Vector limit, Vector x) { return _mm256_min_ps(limit, x); }
inline Vector at_least(Vector limit, Vector x) { return _mm256_max_ps(limit, x); }
#else
inline Vector at_most(Vector limit, Vector x) { return limit < x ? limit : x; }
inline Vector at_least(Vector limit, Vector x) { return limit > x ? limit : x; }
#endif

#if WIDTH == 16 && defined(__AVX512F__)
inline Vector root_of(Vector x) { return _mm512_sqrt_ps(x); }
#elif WIDTH == 8 && defined(__AVX2__)
inline Vector root_of(Vector x) { return _mm256_sqrt_ps(x); }
#else
inline Vector root_of(Vector x) {
  for (int lane = 0; lane < WIDTH; lane++) x[lane] = sqrtf(x[lane]);
  return x;
}
#endif

// 2^x for x within +-126. 2^x is 2^n 2^f, n a whole number and f within +-1/2: the low bits of x + magic are n + 127, the
// exponent of 2^n; 2^f is a minimax polynomial, relative error 8e-8.
inline Vector exp2_of(Vector x) {
  const float magic = 12582912.f + 127.f;  // 1.5 * 2^23: one unit in the last place is 1
  Vector shifted = x + magic, f = x - (shifted - magic);
  Vector y = splat(1.327647199e-3f);
  y = y * f + 9.675541334e-3f;
  y = y * f + 5.550713273e-2f;
  y = y * f + 2.402211972e-1f;
  y = y * f + 6.931469671e-1f;
  y = y * f + 1.000000072f;
  return y * reinterpret_cast<Vector>(reinterpret_cast<Ints>(shifted) << 23);
}

// 1 + 2^x, with x held within +-126.
inline Vector one_plus_exp2(Vector x) { return exp2_of(at_least(splat(-126.f), at_most(splat(126.f), x))) + 1.f; }

constexpr float LOG2_E = 1.44269504089f;
inline Vector exp_of(Vector x) { return exp2_of(x * LOG2_E); }  // for x within +-87

// x, or e^x - 1 below 0. The larger of the two for every x, for e^x - 1 >= x, and 0 is less than what is positive.
inline Vector elu_of(Vector x) { return at_least(exp_of(at_least(splat(-87.f), at_most(Vector{}, x))) - 1.f, x); }

// Activations take their argument already times these, which the packed weights hold. Dividing costs less than a
// Newton step from an approximate inverse, or than one division for two.
constexpr float SIGMOID_SCALE = -1.44269504089f, TANH_SCALE = -2.88539008178f;
inline Vector sigmoid_of(Vector scaled) { return 1.f / one_plus_exp2(scaled); }
inline Vector tanh_of(Vector scaled) { return 2.f / one_plus_exp2(scaled) - 1.f; }

// Cephes' logf, for positive, normal, finite x.
inline Vector log_of(Vector x) {
  Ints bits = reinterpret_cast<Ints>(x), exponent = (bits - 0x3f3504f3) >> 23;
  Vector m = reinterpret_cast<Vector>(bits - (exponent << 23)) - 1.f;
  Vector e = __builtin_convertvector(exponent, Vector), square = m * m, y = splat(7.0376836292e-2f);
  y = y * m - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * square + e * -2.12194440e-4f - .5f * square;
  return m + y + e * 0.693359375f;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLEVECTOR 1
#endif
#endif

// Lanes with a zero bit S of their index: a's own; the others: b's lane S below. And the other way about.
template <int S, int... LANE>
inline void exchange(Vector& a, Vector& b, std::integer_sequence<int, LANE...>) {
#ifdef HAS_SHUFFLEVECTOR
  const Vector low = __builtin_shufflevector(a, b, (LANE & S ? WIDTH + LANE - S : LANE)...);
  b = __builtin_shufflevector(a, b, (LANE & S ? WIDTH + LANE : LANE + S)...);
#else
  const Vector low = __builtin_shuffle(a, b, Ints{(LANE & S ? WIDTH + LANE - S : LANE)...});
  b = __builtin_shuffle(a, b, Ints{(LANE & S ? WIDTH + LANE : LANE + S)...});
#endif
  a = low;
}

template <int S>
inline void exchange_all(Vector (&rows)[WIDTH]) {
  if constexpr (S > 0) {
    UNROLLED for (int r = 0; r < WIDTH; r++)
      if (!(r & S)) exchange<S>(rows[r], rows[r + S], std::make_integer_sequence<int, WIDTH>());
    exchange_all<S / 2>(rows);
  }
}

}  // namespace
