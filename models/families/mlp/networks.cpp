// Losses and gradients of small networks that classify images, and products with their Hessians: a second telling of
// tasks.py, task by task, so that a step costs what its products cost. tests/models/test_networks.py holds them equal.
//
// Compile-time constant: WIDTH (floats in a vector: 16 for AVX-512, 8 for AVX2, 4 elsewhere).
#include <cstring>

#include "parallel.h"
#include "product.h"
#include "supported.h"

namespace {

constexpr int64_t padded(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }

// c (ROWS x VECTORS vectors, rows `columns` apart) += a (ROWS x depth) b (depth x VECTORS vectors, rows `columns` apart).
// a's numbers are `row` and `along` apart.
template <int ROWS, int VECTORS>
inline void tile(int64_t depth, int64_t columns, const float* a, int64_t row, int64_t along, const float* b, float* c) {
  Vector sum[ROWS][VECTORS];
  UNROLLED for (int r = 0; r < ROWS; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = load(c + r * columns + v * WIDTH);
  for (int64_t k = 0; k < depth; k++, a += along, b += columns) {
    Vector x[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) x[v] = load(b + v * WIDTH), hold(x[v]);
    UNROLLED for (int r = 0; r < ROWS; r++)
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] += a[r * row] * x[v];
  }
  UNROLLED for (int r = 0; r < ROWS; r++)
    UNROLLED for (int v = 0; v < VECTORS; v++) store(c + r * columns + v * WIDTH, sum[r][v]);
}

template <int VECTORS>
APART void tiles(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t row, int64_t along,
                 const float* b, float* c) {
  constexpr int GROUP = REGISTER_SUMS / VECTORS;
  int64_t r = 0;
  for (; r + GROUP <= rows; r += GROUP) tile<GROUP, VECTORS>(depth, columns, a + r * row, row, along, b, c + r * columns);
  for (; r + 4 <= rows; r += 4) tile<4, VECTORS>(depth, columns, a + r * row, row, along, b, c + r * columns);
  for (; r < rows; r++) tile<1, VECTORS>(depth, columns, a + r * row, row, along, b, c + r * columns);
}

// c (rows x columns) += a (rows x depth) b (depth x columns); columns: whole vectors
inline void add_product(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t row, int64_t along,
                        const float* b, float* c) {
  int64_t left = columns / WIDTH;
  for (; left >= 3; left -= 3, b += 3 * WIDTH, c += 3 * WIDTH) tiles<3>(rows, depth, columns, a, row, along, b, c);
  if (left == 2) tiles<2>(rows, depth, columns, a, row, along, b, c);
  if (left == 1) tiles<1>(rows, depth, columns, a, row, along, b, c);
}

struct Problem {
  int64_t layers, batch, inputs;  // layers: of weights
  const int64_t* sizes;           // (layers + 1)
  bool relu;
  const uint8_t* pixels;  // (images x inputs), or null
  const float* numbers;   // the same of a table
  const int64_t* labels;
  float scale;

  int64_t coordinates() const {
    int64_t total = 0;
    for (int64_t l = 0; l < layers; l++) total += (sizes[l] + 1) * sizes[l + 1];
    return total;
  }
};

// The numbers of one layer; rows of outputs are padded to whole vectors, with zeros where weights are.
struct Layer {
  int64_t fan_in, fan_out, wide;  // wide: fan_out, padded
  float *weights, *bias;          // (fan_in x wide), (wide)
  float* transposed;              // (fan_out x padded fan_in); layer 0 has none
  float* sum;                     // (fan_in x wide), of the weights' gradient
};

// A layer's weights and biases from theta, or from a direction v.
inline const float* unpack(const float* from, const Layer& layer) {
  const int64_t I = layer.fan_in, O = layer.fan_out, W = layer.wide, below = padded(I);
  for (int64_t i = 0; i < I; i++, from += O) {
    memset(layer.weights + i * W, 0, sizeof(float) * W), memcpy(layer.weights + i * W, from, sizeof(float) * O);
    if (layer.transposed)
      for (int64_t o = 0; o < O; o++) layer.transposed[o * below + i] = from[o];
  }
  if (layer.transposed)
    for (int64_t o = 0; o < O; o++)
      memset(layer.transposed + o * below + I, 0, sizeof(float) * (below - I));
  memset(layer.bias, 0, sizeof(float) * W), memcpy(layer.bias, from, sizeof(float) * O);
  return from + O;
}

// Memory cut from one run.
struct Arena {
  float* at;
  float* take(int64_t floats) {
    float* const taken = at;
    at += (floats + 15) / 16 * 16;
    return taken;
  }
};

// What a layer's outputs are: activations (or logits), and their derivatives where the layers move along v.
struct Outputs {
  float *own, *moved;     // (batch x wide)
  float *delta, *change;  // of the loss by the inputs of the activation, and their derivatives along v
};

struct Worker {
  float* images;  // (batch x inputs)
  std::vector<Layer> layers, along;
  std::vector<Outputs> outputs;

  static int64_t floats(const Problem& p, bool moves) {
    int64_t total = p.batch * p.inputs + 16;
    for (int64_t l = 0; l < p.layers; l++) {
      const int64_t I = p.sizes[l], O = p.sizes[l + 1], W = padded(O);
      const int64_t of_layer = I * W + W + O * padded(I) + 48;
      total += (1 + moves) * (of_layer + 2 * p.batch * W + 32) + I * W + 16;
    }
    return total;
  }

  Worker(const Problem& p, bool moves, float* memory) {
    Arena arena{memory};
    images = arena.take(p.batch * p.inputs);
    for (int64_t l = 0; l < p.layers; l++) {
      const int64_t I = p.sizes[l], O = p.sizes[l + 1], W = padded(O);
      float* const sum = arena.take(I * W);
      for (std::vector<Layer>* const each : {&layers, &along}) {
        if (each == &along && !moves) continue;
        float* const weights = arena.take(I * W);
        float* const bias = arena.take(W);
        each->push_back({I, O, W, weights, bias, l ? arena.take(O * padded(I)) : nullptr, sum});
      }
      Outputs made{};
      made.own = arena.take(p.batch * W), made.delta = arena.take(p.batch * W);
      if (moves) made.moved = arena.take(p.batch * W), made.change = arena.take(p.batch * W);
      outputs.push_back(made);
    }
  }
};

template <typename Number>
inline void take_images(const Problem& p, const Number* all, const int64_t* rows, float* images) {
  for (int64_t b = 0; b < p.batch; b++) {
    const Number* const from = all + rows[b] * p.inputs;
    float* const to = images + b * p.inputs;
    for (int64_t i = 0; i < p.inputs; i++) to[i] = from[i] * p.scale;
  }
}

inline void repeat(const float* row, int64_t wide, int64_t batch, float* out) {
  for (int64_t b = 0; b < batch; b++) memcpy(out + b * wide, row, sizeof(float) * wide);
}

inline Vector slope_of(bool relu, Vector a) {
  return relu ? reinterpret_cast<Vector>((a > 0.f) & reinterpret_cast<Ints>(splat(1.f))) : a - a * a;
}

void forward(const Problem& p, Worker& w, bool moves) {
  const float *below = w.images, *below_moved = nullptr;
  int64_t apart = p.inputs;
  for (int64_t l = 0; l < p.layers; l++) {
    const Layer& layer = w.layers[l];
    const Outputs& out = w.outputs[l];
    repeat(layer.bias, layer.wide, p.batch, out.own);
    add_product(p.batch, layer.fan_in, layer.wide, below, apart, 1, layer.weights, out.own);
    if (moves) {
      repeat(w.along[l].bias, layer.wide, p.batch, out.moved);
      add_product(p.batch, layer.fan_in, layer.wide, below, apart, 1, w.along[l].weights, out.moved);
      if (l) add_product(p.batch, layer.fan_in, layer.wide, below_moved, apart, 1, layer.weights, out.moved);
    }
    if (l < p.layers - 1)
      for (int64_t e = 0; e < p.batch * layer.wide; e += WIDTH) {
        const Vector z = load(out.own + e), a = p.relu ? at_least(Vector{}, z) : sigmoid_of(z * SIGMOID_SCALE);
        store(out.own + e, a);
        if (moves) store(out.moved + e, load(out.moved + e) * slope_of(p.relu, a));
      }
    below = out.own, below_moved = out.moved, apart = layer.wide;
  }
}

// From the logits to the mean loss, and to delta and change of the last layer.
double cross_entropy(const Problem& p, const int64_t* rows, int64_t classes, int64_t wide, const Outputs& out, bool moves) {
  double loss = 0;
  const float share = 1.f / p.batch;
  for (int64_t b = 0; b < p.batch; b++) {
    const float* const z = out.own + b * wide;
    float *const delta = out.delta + b * wide, most = z[0], sum = 0;
    const int64_t label = p.labels[rows[b]];
    for (int64_t k = 1; k < classes; k++) most = z[k] > most ? z[k] : most;
    for (int64_t k = 0; k < wide; k += WIDTH) store(delta + k, exp_of(at_least(splat(-87.f), load(z + k) - most)));
    for (int64_t k = classes; k < wide; k++) delta[k] = 0;
    for (int64_t k = 0; k < classes; k++) sum += delta[k];
    loss -= z[label] - most - logf(sum);
    for (int64_t k = 0; k < wide; k += WIDTH) store(delta + k, load(delta + k) * (1.f / sum));
    if (moves) {
      const float* const moved = out.moved + b * wide;
      float* const change = out.change + b * wide;
      float mean = 0;
      for (int64_t k = 0; k < classes; k++) mean += delta[k] * moved[k];
      for (int64_t k = 0; k < wide; k++) change[k] = delta[k] * (moved[k] - mean) * share;
    }
    delta[label] -= 1;
    for (int64_t k = 0; k < wide; k++) delta[k] *= share;
  }
  return loss / p.batch;
}

// The gradient by a layer's weights and biases, or its derivative along v, goes to `out`.
float* gather(const Problem& p, const Layer& layer, const float* below, int64_t apart, const float* delta,
              const float* below_moved, const float* delta_beside, float* out) {
  const int64_t I = layer.fan_in, O = layer.fan_out, W = layer.wide;
  memset(layer.sum, 0, sizeof(float) * I * W);
  add_product(I, p.batch, W, below, 1, apart, delta, layer.sum);
  if (below_moved) add_product(I, p.batch, W, below_moved, 1, apart, delta_beside, layer.sum);
  for (int64_t i = 0; i < I; i++, out += O) memcpy(out, layer.sum + i * W, sizeof(float) * O);
  float* const bias = layer.sum;
  memset(bias, 0, sizeof(float) * W);
  for (int64_t b = 0; b < p.batch; b++)
    for (int64_t k = 0; k < W; k += WIDTH) store(bias + k, load(bias + k) + load(delta + b * W + k));
  memcpy(out, bias, sizeof(float) * O);
  return out + O;
}

void backward(const Problem& p, Worker& w, bool moves, float* result) {
  float* end = result + p.coordinates();
  for (int64_t l = p.layers - 1; l >= 0; l--) {
    const Layer& layer = w.layers[l];
    const Outputs& out = w.outputs[l];
    const int64_t apart = l ? w.layers[l - 1].wide : p.inputs, I = layer.fan_in, O = layer.fan_out;
    const float* const below = l ? w.outputs[l - 1].own : w.images;
    end -= (I + 1) * O;
    if (moves) gather(p, layer, below, apart, out.change, l ? w.outputs[l - 1].moved : nullptr, out.delta, end);
    else gather(p, layer, below, apart, out.delta, nullptr, nullptr, end);
    if (!l) break;
    const Outputs& next = w.outputs[l - 1];
    const int64_t size = p.batch * apart;
    memset(next.delta, 0, sizeof(float) * size);
    add_product(p.batch, O, apart, out.delta, layer.wide, 1, layer.transposed, next.delta);
    if (moves) {
      memset(next.change, 0, sizeof(float) * size);
      add_product(p.batch, O, apart, out.change, layer.wide, 1, layer.transposed, next.change);
      add_product(p.batch, O, apart, out.delta, layer.wide, 1, w.along[l].transposed, next.change);
    }
    for (int64_t e = 0; e < size; e += WIDTH) {
      const Vector a = load(below + e), slope = slope_of(p.relu, a), delta = load(next.delta + e);
      store(next.delta + e, delta * slope);
      if (!moves) continue;
      Vector change = load(next.change + e) * slope;
      if (!p.relu) change += delta * load(next.moved + e) * (1.f - 2.f * a);  // the slope moves too
      store(next.change + e, change);
    }
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// To be asked before anything else.
int gradsmith_supported() { return supported(); }

// Of networks of one shape side by side: sizes (layers + 1); pixels (images x inputs), or null and numbers, and the
// labels of all images; rows: the images of each task's minibatch, (tasks, `apart` numbers apart, x batch); theta (tasks x coordinates). To `result` goes
// the gradient at theta, or where v is not null the Hessian's product with it; to `losses` (tasks), unless it is null, the
// mean losses. Returns 1 when memory ran out.
int gradsmith_networks(const int64_t* sizes, int64_t layers, int64_t relu, int64_t tasks, int64_t batch,
                       const uint8_t* pixels, const float* numbers, const int64_t* labels, float scale,
                       const int64_t* rows, int64_t apart, const float* theta, const float* v, float* losses,
                       float* result, int64_t threads) {
  const Problem p{layers, batch, sizes[0], sizes, relu != 0, pixels, numbers, labels, scale};
  const int64_t coordinates = p.coordinates();
  const size_t bytes = sizeof(float) * Worker::floats(p, v);
  return !in_parallel(tasks, worthwhile(threads, tasks * batch * coordinates / 2000), bytes, [&](int64_t t, void* memory) {
    Worker w(p, v, static_cast<float*>(memory));
    const float* own = theta + t * coordinates;
    for (const Layer& layer : w.layers) own = unpack(own, layer);
    if (v) own = v + t * coordinates;
    for (const Layer& layer : w.along) own = unpack(own, layer);
    if (pixels) take_images(p, pixels, rows + t * apart, w.images);
    else take_images(p, numbers, rows + t * apart, w.images);
    forward(p, w, v);
    const Layer& last = w.layers.back();
    const double loss = cross_entropy(p, rows + t * apart, last.fan_out, last.wide, w.outputs.back(), v);
    if (losses) losses[t] = loss;
    backward(p, w, v, result + t * coordinates);
  });
}
}
#pragma GCC visibility pop
