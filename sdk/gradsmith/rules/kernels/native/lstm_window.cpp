// The coordinatewise LSTM rule on blocks of coordinates: one inner step forward, and a whole window replayed and
// differentiated while a block's activations stay in the cache.
//
// A second telling of gradsmith/rules/lstm.py and features.py; tests/sdk/test_native.py holds the two equal.
//
// Compile-time constants: HIDDEN, LAYERS, INPUTS (2: log-sign, 1: raw), WIDTH (floats in a vector: 16 for AVX-512,
// 8 for AVX2, 4 elsewhere). Written in the vector extensions that GCC and Clang share.
//
// A block is BLOCK neighbouring coordinates, feature-major: row after row of BLOCK floats, so that a vector holds
// neighbouring coordinates and weights are broadcast. A block's state is, layer after layer, h (HIDDEN rows) and c
// (HIDDEN rows). Two vectors a row: a product then loads 7 vectors for 10 multiply-adds, and a 20-step window of the
// 2x20 LSTM takes 360 KB (AVX2) or 720 KB (AVX-512), within the L2 cache of such CPUs.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

namespace {

constexpr int BLOCK = 2 * WIDTH;
constexpr int GATES = 4 * HIDDEN;
constexpr int AREA = HIDDEN * BLOCK;
constexpr int STATE = 2 * LAYERS * AREA;
constexpr int REGISTER_SUMS = WIDTH == 16 ? 24 : 12;  // of 32 or 16 registers; the rest hold the factors

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef float VectorInMemory __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Vector load(const float* p) { return *reinterpret_cast<const VectorInMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<VectorInMemory*>(p) = v; }
inline Vector splat(float x) { return Vector{} + x; }
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

// 1 + 2^x, with x held within +-126. 2^x is 2^n 2^f, n a whole number and f within +-1/2: the low bits of x + magic are n + 127, the exponent of 2^n; 2^f
// is a minimax polynomial, relative error 8e-8.
inline Vector one_plus_exp2(Vector x) {
  const float magic = 12582912.f + 127.f;  // 1.5 * 2^23: one unit in the last place is 1
  x = at_least(splat(-126.f), at_most(splat(126.f), x));
  Vector shifted = x + magic, f = x - (shifted - magic);
  Vector y = splat(1.327647199e-3f);
  y = y * f + 9.675541334e-3f;
  y = y * f + 5.550713273e-2f;
  y = y * f + 2.402211972e-1f;
  y = y * f + 6.931469671e-1f;
  y = y * f + 1.000000072f;
  return y * reinterpret_cast<Vector>(reinterpret_cast<Ints>(shifted) << 23) + 1.f;
}

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

constexpr int inputs(int layer) { return layer == 0 ? INPUTS : HIDDEN; }
constexpr int columns(int layer) { return inputs(layer) + HIDDEN; }  // [the layer's input, its own h]
constexpr int padded(int layer) { return (columns(layer) + WIDTH - 1) / WIDTH * WIDTH; }
constexpr int WIDEST = columns(0) > 2 * HIDDEN || LAYERS == 1 ? columns(0) : 2 * HIDDEN;
constexpr int PADDED = (WIDEST + WIDTH - 1) / WIDTH * WIDTH;

// Weights are flat, in the order of the rule's matrices: for each layer [GATES][columns] and [GATES] biases; then
// the read-out's [HIDDEN] and [1].
constexpr int matrix_at(int layer) {
  int at = 0;
  for (int l = 0; l < layer; l++) at += GATES * columns(l) + GATES;
  return at;
}
constexpr int bias_at(int layer) { return matrix_at(layer) + GATES * columns(layer); }
constexpr int READ_OUT = matrix_at(LAYERS), READ_OUT_BIAS = READ_OUT + HIDDEN, WEIGHTS = READ_OUT_BIAS + 1;

// Rows of a product that stay in registers, two vectors each; the last tile takes what is left.
constexpr int ROW_TILE = WIDTH == 16 ? 10 : 5;

template <int L, typename Do>
inline void for_each_layer(const Do& run) {
  if constexpr (L < LAYERS) {
    run(std::integral_constant<int, L>());
    for_each_layer<L + 1>(run);
  }
}

// The weights as the loops read them, made once for each set of weights.
struct Prepared {
  float forward[LAYERS][GATES * WIDEST], bias[LAYERS][GATES];  // times the activations' scales
  float backward[LAYERS][GATES * WIDEST];
  float read_out[HIDDEN], read_out_bias;
  float p, threshold_scale, output_scale;
};

// Tile after tile of ROW_TILE rows, for each column the rows of the tile side by side.
inline void pack(const float* w, int rows, int depth, int row_stride, int column_stride, float* packed) {
  for (int first = 0; first < rows; first += ROW_TILE) {
    const int tile = rows - first < ROW_TILE ? rows - first : ROW_TILE;
    for (int k = 0; k < depth; k++)
      for (int r = 0; r < tile; r++) *packed++ = w[(first + r) * row_stride + k * column_stride];
  }
}

inline float gate_scale(int gate) { return gate / HIDDEN == 2 ? TANH_SCALE : SIGMOID_SCALE; }

void prepare(const float* weights, float p, float output_scale, Prepared& out) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer, K = columns(L);
    float scaled[GATES * K];
    for (int g = 0; g < GATES; g++) {
      for (int k = 0; k < K; k++) scaled[g * K + k] = weights[matrix_at(L) + g * K + k] * gate_scale(g);
      out.bias[L][g] = weights[bias_at(L) + g] * gate_scale(g);
    }
    pack(scaled, GATES, K, K, 1, out.forward[L]);
    // d(inputs) is W^T z; the features of layer 0 need none, the gradient being a constant.
    constexpr int skipped = L == 0 ? INPUTS : 0;
    pack(weights + matrix_at(L) + skipped, K - skipped, GATES, 1, K, out.backward[L]);
  });
  memcpy(out.read_out, weights + READ_OUT, sizeof out.read_out);
  out.read_out_bias = weights[READ_OUT_BIAS];
  out.p = p, out.threshold_scale = expf(p), out.output_scale = output_scale;
}

template <int ROWS, int DEPTH>
inline void multiply_add(Vector (&sum)[ROWS][2], const float* packed, const float* x) {
  for (int k = 0; k < DEPTH; k++, packed += ROWS, x += BLOCK) {
    const Vector left = load(x), right = load(x + WIDTH);
    UNROLLED for (int r = 0; r < ROWS; r++) sum[r][0] += packed[r] * left, sum[r][1] += packed[r] * right;
  }
}

template <int ROWS, int DEPTH, int OWN_DEPTH>
inline void product_tile(const float* packed, const float* bias, const float* x, const float* own, float* z) {
  Vector sum[ROWS][2];
  UNROLLED for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = splat(bias ? bias[r] : 0.f);
  multiply_add<ROWS, DEPTH>(sum, packed, x);
  multiply_add<ROWS, OWN_DEPTH>(sum, packed + ROWS * DEPTH, own);
  UNROLLED for (int r = 0; r < ROWS; r++) store(z + r * BLOCK, sum[r][0]), store(z + r * BLOCK + WIDTH, sum[r][1]);
}

// z (ROWS x BLOCK) = bias + packed (ROWS x (DEPTH + OWN_DEPTH)) * [x; own], x (DEPTH x BLOCK), own (OWN_DEPTH x BLOCK)
template <int ROWS, int DEPTH, int OWN_DEPTH>
inline void product(const float* packed, const float* bias, const float* x, const float* own, float* z) {
  constexpr int REST = ROWS % ROW_TILE, K = DEPTH + OWN_DEPTH;
  int r = 0;
  for (; r < ROWS - REST; r += ROW_TILE)
    product_tile<ROW_TILE, DEPTH, OWN_DEPTH>(packed + r * K, bias ? bias + r : bias, x, own, z + r * BLOCK);
  if constexpr (REST > 0)
    product_tile<REST, DEPTH, OWN_DEPTH>(packed + r * K, bias ? bias + r : bias, x, own, z + r * BLOCK);
}

inline void features(const Prepared& w, const float* gradient, float* x) {
  for (int v = 0; v < BLOCK; v += WIDTH) {
    const Vector g = load(gradient + v);
    if constexpr (INPUTS == 1) {
      store(x + v, g);
    } else {
      const Vector size = g < 0.f ? -g : g, normal = at_least(splat(1.17549435e-38f), size);
      const Vector log_size = normal < INFINITY ? log_of(normal) : normal;  // infinity and NaN are their own
      store(x + v, at_least(splat(-1.f), log_size / w.p));
      store(x + BLOCK + v, at_least(splat(-1.f), at_most(splat(1.f), g * w.threshold_scale)));
    }
  }
}

// Pre-activations in `gates` and c before -> c and h; in `gates` and `tanh_c` the activations. `c` may be `c_before`.
inline void cell(float* gates, const float* c_before, float* c, float* tanh_c, float* h) {
  // Two loops: one would wait for the cell's chain of latencies, these fill it with neighbours.
  for (int e = 0; e < AREA; e += WIDTH) {
    const Vector i = sigmoid_of(load(gates + e)), f = sigmoid_of(load(gates + AREA + e));
    const Vector g = tanh_of(load(gates + 2 * AREA + e)), o = sigmoid_of(load(gates + 3 * AREA + e));
    store(gates + e, i), store(gates + AREA + e, f), store(gates + 2 * AREA + e, g), store(gates + 3 * AREA + e, o);
    store(c + e, f * load(c_before + e) + i * g);
  }
  for (int e = 0; e < AREA; e += WIDTH) {
    const Vector t = tanh_of(load(c + e) * TANH_SCALE);
    store(tanh_c + e, t), store(h + e, load(gates + 3 * AREA + e) * t);
  }
}

// What the backward pass needs of one step of one block.
struct Record {
  float x[INPUTS * BLOCK], gates[LAYERS][GATES * BLOCK], c[LAYERS][AREA], tanh_c[LAYERS][AREA], h[LAYERS][AREA];
};

struct Sums {  // over one block's window; sums over coordinates stay vectors until they are added up
  float matrix[LAYERS][GATES * PADDED], bias[LAYERS][GATES * WIDTH], read_out[HIDDEN * WIDTH], read_out_bias[WIDTH];
};

template <int GROUP, int VECTORS>
inline void outer_tile(const float* z, const float* transposed, int stride, float* matrix) {
  Vector sum[GROUP][VECTORS];
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = load(matrix + r * stride + v * WIDTH);
  for (int n = 0; n < BLOCK; n++) {
    Vector x[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) x[v] = load(transposed + n * stride + v * WIDTH);
    UNROLLED for (int r = 0; r < GROUP; r++)
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] += z[r * BLOCK + n] * x[v];
  }
  UNROLLED for (int r = 0; r < GROUP; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) store(matrix + r * stride + v * WIDTH, sum[r][v]);
}

template <int VECTORS>
inline void outer_columns(const float* z, const float* transposed, int stride, float* matrix) {
  constexpr int GROUP = REGISTER_SUMS / VECTORS, REST = GATES % GROUP;
  int g = 0;
  for (; g < GATES - REST; g += GROUP)
    outer_tile<GROUP, VECTORS>(z + g * BLOCK, transposed, stride, matrix + g * stride);
  if constexpr (REST > 0) outer_tile<REST, VECTORS>(z + g * BLOCK, transposed, stride, matrix + g * stride);
}

// matrix (GATES x KP) += z (GATES x BLOCK) * transposed (BLOCK x KP)
template <int KP>
inline void outer(const float* z, const float* transposed, float* matrix) {
  constexpr int WIDE = KP / WIDTH % 5 == 0 ? 5 : 3, REST = KP / WIDTH % WIDE;
  int q = 0;
  for (; q < KP - REST * WIDTH; q += WIDE * WIDTH) outer_columns<WIDE>(z, transposed + q, KP, matrix + q);
  if constexpr (REST > 0) outer_columns<REST>(z, transposed + q, KP, matrix + q);
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

// [x; own] ((DEPTH + HIDDEN) x BLOCK) -> transposed (BLOCK x KP), zero beyond
template <int DEPTH, int KP>
inline void transpose(const float* x, const float* own, float* transposed) {
  for (int k = 0; k < KP; k += WIDTH)
    for (int n = 0; n < BLOCK; n += WIDTH) {
      Vector rows[WIDTH];
      UNROLLED for (int r = 0; r < WIDTH; r++) {
        const int row = k + r;
        rows[r] = row < DEPTH            ? load(x + row * BLOCK + n)
                  : row < DEPTH + HIDDEN ? load(own + (row - DEPTH) * BLOCK + n)
                                         : Vector{};
      }
      exchange_all<WIDTH / 2>(rows);
      UNROLLED for (int r = 0; r < WIDTH; r++) store(transposed + (n + r) * KP + k, rows[r]);
    }
}

// A thread's memory.
struct Workspace {
  Sums sums;
  float z[GATES * BLOCK], transposed[BLOCK * PADDED];
  float d_input[LAYERS][2 * AREA];  // what a layer returned: to the layer below (layer 0: nothing), to the step before
  float d_cell[LAYERS][AREA];
  float gradient[BLOCK], cotangent[BLOCK];
  Record records[];
};

constexpr int own_at(int layer) { return layer == 0 ? 0 : AREA; }

// From d/dh and d/dc of a step's result to z = d/d(pre-activations); d/dc of the step before replaces d/dc.
template <int L>
inline void cell_backward(const Prepared& w, const Record& r, const float* c_before, const float* du, Workspace& s) {
  const float *gates = r.gates[L], *carried_h = s.d_input[L] + own_at(L);
  float* z = s.z;
  for (int j = 0; j < HIDDEN; j++)
    for (int v = 0; v < BLOCK; v += WIDTH) {
      const int e = j * BLOCK + v;
      Vector d;
      if constexpr (L == LAYERS - 1) d = w.read_out[j] * load(du + v) + load(carried_h + e);
      else d = load(s.d_input[L + 1] + e) + load(carried_h + e);
      const Vector i = load(gates + e), f = load(gates + AREA + e), g = load(gates + 2 * AREA + e);
      const Vector o = load(gates + 3 * AREA + e), t = load(r.tanh_c[L] + e);
      const Vector carried = d * o * (1.f - t * t) + load(s.d_cell[L] + e);
      store(z + e, carried * g * (i - i * i));
      store(z + AREA + e, carried * load(c_before + e) * (f - f * f));
      store(z + 2 * AREA + e, carried * i * (1.f - g * g));
      store(z + 3 * AREA + e, d * t * (o - o * o));
      store(s.d_cell[L] + e, carried * f);
    }
}

template <int L>
inline void layer_backward(const Prepared& w, const Record& r, const float* const* h_before,
                           const float* const* c_before, const float* du, Workspace& s) {
  cell_backward<L>(w, r, c_before[L], du, s);
  const float* x = L == 0 ? r.x : r.h[L > 0 ? L - 1 : 0];
  transpose<inputs(L), padded(L)>(x, h_before[L], s.transposed);
  outer<padded(L)>(s.z, s.transposed, s.sums.matrix[L]);
  for (int g = 0; g < GATES; g++) {
    float* bias = s.sums.bias[L] + g * WIDTH;
    store(bias, load(bias) + (load(s.z + g * BLOCK) + load(s.z + g * BLOCK + WIDTH)));
  }
  product<columns(L) - (L == 0 ? INPUTS : 0), GATES, 0>(w.backward[L], nullptr, s.z, nullptr, s.d_input[L]);
  if constexpr (L > 0) layer_backward<L - 1>(w, r, h_before, c_before, du, s);
}

inline void forward(const Prepared& w, const float* const* h_before, const float* const* c_before, Record& r) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer;
    const float* x = L == 0 ? r.x : r.h[L > 0 ? L - 1 : 0];
    product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, h_before[L], r.gates[L]);
    cell(r.gates[L], c_before[L], r.c[L], r.tanh_c[L], r.h[L]);
  });
}

// Add the block's sums to the chunk's, in double: within a block float32 adds up no more than steps x BLOCK terms.
void add_up(const Sums& sums, double* out) {
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer, K = columns(L);
    for (int g = 0; g < GATES; g++) {
      for (int k = 0; k < K; k++) out[matrix_at(L) + g * K + k] += sums.matrix[L][g * padded(L) + k];
      for (int v = 0; v < WIDTH; v++) out[bias_at(L) + g] += sums.bias[L][g * WIDTH + v];
    }
  });
  for (int j = 0; j < HIDDEN; j++)
    for (int v = 0; v < WIDTH; v++) out[READ_OUT + j] += sums.read_out[j * WIDTH + v];
  for (int v = 0; v < WIDTH; v++) out[READ_OUT_BIAS] += sums.read_out_bias[v];
}

struct Window {
  int64_t steps, coordinates, gradient_stride, cotangent_stride;
  const float *gradients, *cotangents, *snapshot;
};

// BLOCK numbers of a row; where the row ends inside the block, zeros follow.
inline const float* whole_block(const float* row, int64_t block, int64_t coordinates, float* buffer) {
  const int64_t left = coordinates - block * BLOCK;
  if (left >= BLOCK) return row + block * BLOCK;
  memset(buffer, 0, sizeof(float) * BLOCK);
  memcpy(buffer, row + block * BLOCK, sizeof(float) * left);
  return buffer;
}

void window_of_block(const Prepared& w, const Window& window, int64_t block, Workspace& s, double* out) {
  const float* state = window.snapshot + block * STATE;
  const float *h[LAYERS], *c[LAYERS];
  auto before = [&](int64_t t) {
    for (int l = 0; l < LAYERS; l++) {
      h[l] = t ? s.records[t - 1].h[l] : state + 2 * l * AREA;
      c[l] = t ? s.records[t - 1].c[l] : state + (2 * l + 1) * AREA;
    }
  };
  for (int64_t t = 0; t < window.steps; t++) {
    before(t);
    const float* row = window.gradients + t * window.gradient_stride;
    features(w, whole_block(row, block, window.coordinates, s.gradient), s.records[t].x);
    forward(w, h, c, s.records[t]);
  }
  memset(&s.sums, 0, sizeof s.sums);
  memset(s.d_input, 0, sizeof s.d_input);
  memset(s.d_cell, 0, sizeof s.d_cell);
  for (int64_t t = window.steps - 1; t >= 0; t--) {
    before(t);
    const float* row = window.cotangents + t * window.cotangent_stride;
    const float *given = whole_block(row, block, window.coordinates, s.cotangent), *top = s.records[t].h[LAYERS - 1];
    const Vector left = load(given) * w.output_scale, right = load(given + WIDTH) * w.output_scale;
    store(s.cotangent, left), store(s.cotangent + WIDTH, right);
    store(s.sums.read_out_bias, load(s.sums.read_out_bias) + (left + right));
    for (int j = 0; j < HIDDEN; j++) {
      float* sum = s.sums.read_out + j * WIDTH;
      store(sum, load(sum) + left * load(top + j * BLOCK) + right * load(top + j * BLOCK + WIDTH));
    }
    layer_backward<LAYERS - 1>(w, s.records[t], h, c, s.cotangent, s);
  }
  add_up(s.sums, out);
}

// state <- next state, theta += update
void step_of_block(const Prepared& w, int64_t block, int64_t coordinates, const float* gradient, float* state,
                   float* theta, Record& r) {
  state += block * STATE;
  float padded[BLOCK];
  features(w, whole_block(gradient, block, coordinates, padded), r.x);
  const float* x = r.x;
  for_each_layer<0>([&](auto layer) {
    constexpr int L = layer;
    float *h = state + 2 * L * AREA, *c = h + AREA;
    product<GATES, inputs(L), HIDDEN>(w.forward[L], w.bias[L], x, h, r.gates[L]);
    cell(r.gates[L], c, c, r.tanh_c[L], h);
    x = h;
  });
  Vector left = splat(w.read_out_bias), right = left;
  for (int j = 0; j < HIDDEN; j++)
    left += w.read_out[j] * load(x + j * BLOCK), right += w.read_out[j] * load(x + j * BLOCK + WIDTH);
  store(padded, left * w.output_scale), store(padded + WIDTH, right * w.output_scale);
  const int64_t end = coordinates - block * BLOCK < BLOCK ? coordinates - block * BLOCK : BLOCK;
  for (int64_t n = 0; n < end; n++) theta[block * BLOCK + n] += padded[n];
}

// A helper thread costs some 30 us to start and to wait for: each shall find work for ten times as long.
inline int64_t worthwhile(int64_t threads, int64_t coordinate_steps) {
  const int64_t most = coordinate_steps / 1500;
  return threads < most ? threads : most;
}

// Each of `jobs` once, on at most `threads` threads; which thread takes which job is left to chance. A thread has
// `bytes` of memory of its own. False when no thread could have them.
template <typename Do>
bool in_parallel(int64_t jobs, int64_t threads, size_t bytes, const Do& run) {
  std::atomic<int64_t> next{0};
  auto work = [&] {
    void* memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory) return;  // others may do all of the work
    for (int64_t job; (job = next.fetch_add(1)) < jobs;) run(job, memory);
    free(memory);
  };
  std::vector<std::thread> helpers;
  try {
    while (static_cast<int64_t>(helpers.size()) + 1 < threads && static_cast<int64_t>(helpers.size()) + 1 < jobs)
      helpers.emplace_back(work);
  } catch (const std::system_error&) {  // the system gives no more threads: those that stand do all of the work
  } catch (const std::bad_alloc&) {
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  return next.load() >= jobs;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Whether this CPU has the instructions that the file was compiled for. To be asked before anything else.
int gradsmith_supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 1;
#endif
}

int64_t gradsmith_block() { return BLOCK; }
int64_t gradsmith_state_rows() { return 2 * LAYERS * HIDDEN; }
int64_t gradsmith_weights() { return WEIGHTS; }
int64_t gradsmith_prepared_bytes() { return sizeof(Prepared); }
int64_t gradsmith_workspace_bytes(int64_t steps) { return sizeof(Workspace) + steps * sizeof(Record); }

void gradsmith_prepare(const float* weights, float p, float output_scale, void* prepared) {
  prepare(weights, p, output_scale, *static_cast<Prepared*>(prepared));
}

// One inner step of `coordinates` coordinates, in place. Returns 1 when memory ran out.
int gradsmith_step(const void* prepared, int64_t coordinates, const float* gradient, float* state, float* theta,
                   int64_t threads) {
  const Prepared& w = *static_cast<const Prepared*>(prepared);
  const int64_t blocks = (coordinates + BLOCK - 1) / BLOCK, run_of = blocks < 256 ? (blocks + 15) / 16 : 16;
  const int64_t jobs = run_of ? (blocks + run_of - 1) / run_of : 0;
  return !in_parallel(jobs, worthwhile(threads, coordinates), sizeof(Record), [&](int64_t job, void* memory) {
    const int64_t last = (job + 1) * run_of < blocks ? (job + 1) * run_of : blocks;
    for (int64_t block = job * run_of; block < last; block++)
      step_of_block(w, block, coordinates, gradient, state, theta, *static_cast<Record*>(memory));
  });
}

// The gradient of a window, in `out` (WEIGHTS). `gradients` and `cotangents` are (steps x coordinates), their rows a
// stride apart. Blocks are cut into chunks by their number alone, and the chunks' sums added up in order, so that the
// bits are the same for any number of threads. Returns 1 when memory ran out.
int gradsmith_window_gradient(const void* prepared, int64_t coordinates, int64_t steps, const float* gradients,
                              int64_t gradient_stride, const float* cotangents, int64_t cotangent_stride,
                              const float* snapshot, float* out, int64_t threads) {
  const Prepared& w = *static_cast<const Prepared*>(prepared);
  const int64_t blocks = (coordinates + BLOCK - 1) / BLOCK, chunks = blocks < 256 ? (blocks + 3) / 4 : 64;
  const Window window{steps, coordinates, gradient_stride, cotangent_stride, gradients, cotangents, snapshot};
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
