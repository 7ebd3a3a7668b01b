// Depthwise 2-D convolution on the CPU (NCHW, one filter a channel): forward and both gradients, for Paddle.
//
// Every channel's plane is copied into scratch memory with its zero padding, and from there on is one long row: output
// i is the sum over the taps of weight[t] * plane[i + offset[t]], whatever the kernel, the dilation and the map's size,
// so all vectors are full even for 2x2 maps. Neighbouring rows share one gap of zeros, and several images lie one below
// another in the same way, which makes small maps as fast as large ones. With stride 2 the plane is first split into
// its four phases (even or odd row, even or odd column); a tap then is an offset into one of them and nothing else
// changes. The gradient of the input is the same sum with the offsets turned round, that of the weight one dot product
// for each tap.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <pthread.h>

#include "paddle/phi/api/ext/op_meta_info.h"
#include "paddle/phi/api/ext/tensor_compat.h"

namespace {

constexpr int BLOCK = 128;                // no kernel touches more elements than this past its count
constexpr int SCRATCH_BYTES = 32 * 1024;  // images are grouped until their planes fill this much: a level-1 cache

int round_up(int n) { return (n + 15) / 16 * 16; }

// How the planes of a tensor lie in scratch: pixel (y, x) is at ((y + top) / stride, (x + left) / stride) of its phase.
struct Map {
  int height, width, stride, top, left;
};

struct Geometry {
  int images, channels;
  Map input, output;
  int rows, pitch;  // of one padded image, of one phase
  int group;        // images that lie one below another
  int plane;        // elements of one phase of a group
  int margin;       // the furthest that a tap looks ahead within its phase
  std::vector<int> tap, offset, back_offset;  // the taps sorted by phase: index in the kernel, where they look and back
  std::vector<int> phase_begin;               // the first tap of each phase

  int phases() const { return input.stride * input.stride; }
  int taps() const { return int(tap.size()); }

  // Where the pixels x, x + stride, x + 2 * stride... of a row begin.
  int place(const Map& map, int image, int y, int x) const {
    y += map.top, x += map.left;
    const int phase = y % map.stride * map.stride + x % map.stride;
    return phase * plane + (image * rows + y / map.stride) * pitch + x / map.stride;
  }

  int64_t multiply_adds() const { return int64_t(images) * channels * output.height * output.width * taps(); }

  // Scratch elements of a task: planes of the input and of the result, those of the output's gradient, the taps.
  int scratch() const { return 2 * phases() * plane + margin + plane + round_up(taps()); }
};

// The distance between rows (or images) so that what looks beyond one finds the zeros at the start of the next.
int spacing(int size, int before, int out_size, int stride, int reach) {
  const int first = before / stride, last = (before + size - 1) / stride;
  return std::max({out_size, last + 1, out_size + reach - first});
}

struct Conv {  // the operator's attributes
  int stride, dilation;
  std::vector<int> padding;  // top, bottom, left, right

  int out_size(int size, int kernel, int before, int after) const {
    return (size + before + after - dilation * (kernel - 1) - 1) / stride + 1;
  }
};

Geometry make_geometry(const std::vector<int64_t>& x, const std::vector<int64_t>& kernel, const Conv& conv, int bytes) {
  Geometry g;
  const int s = conv.stride, d = conv.dilation, top = conv.padding[0], left = conv.padding[2];
  const int kernel_h = int(kernel[2]), kernel_w = int(kernel[3]), height = int(x[2]), width = int(x[3]);
  g.images = int(x[0]), g.channels = int(x[1]);
  g.input = {height, width, s, top, left};
  g.output = {conv.out_size(height, kernel_h, top, conv.padding[1]),
              conv.out_size(width, kernel_w, left, conv.padding[3]), 1, 0, 0};
  const int reach_y = (kernel_h - 1) * d / s, reach_x = (kernel_w - 1) * d / s;
  g.rows = spacing(height, top, g.output.height, s, reach_y);
  g.pitch = spacing(width, left, g.output.width, s, reach_x);
  g.margin = round_up(reach_y * g.pitch + reach_x);
  const int64_t image_bytes = int64_t(g.phases()) * g.rows * g.pitch * bytes;
  g.group = int(std::max<int64_t>(1, std::min<int64_t>(g.images, SCRATCH_BYTES / image_bytes)));
  g.plane = round_up(g.group * g.rows * g.pitch + g.margin + BLOCK);

  for (int phase = 0; phase < g.phases(); ++phase) {
    g.phase_begin.push_back(g.taps());
    for (int t = 0; t < kernel_h * kernel_w; ++t) {
      const int y = t / kernel_w * d, x = t % kernel_w * d;
      if (y % s * s + x % s != phase) continue;
      const int ahead = y / s * g.pitch + x / s;
      g.tap.push_back(t);
      g.offset.push_back(phase * g.plane + ahead);
      g.back_offset.push_back(-ahead);
    }
  }
  g.phase_begin.push_back(g.taps());
  return g;
}

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Mask{__VA_ARGS__})
#endif

#define VECTOR_BYTES 16  // SSE2 on x86-64, NEON on ARM: what every processor of the kind has
namespace portable {
#include "depthwise_kernels.h"
}
#undef VECTOR_BYTES

#ifdef __x86_64__
#define VECTOR_BYTES 32
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#include "depthwise_kernels.h"
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef VECTOR_BYTES

#define VECTOR_BYTES 64
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#include "depthwise_kernels.h"
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef VECTOR_BYTES
#endif

template <class T>
struct Kernels {
  decltype(&portable::forward<T>) forward;
  decltype(&portable::backward<T>) backward;
};

bool supports(const std::string& isa) {
#ifdef __x86_64__
  if (isa == "avx512") {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma");
  }
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == "portable";
}

Kernels<float> kernels(const std::string& isa, float) {
#ifdef __x86_64__
  if (isa == "avx512") return {avx512::forward<float>, avx512::backward<float>};
  if (isa == "avx2") return {avx2::forward<float>, avx2::backward<float>};
#endif
  return {portable::forward<float>, portable::backward<float>};
}

// float64 is for checking gradients by finite differences: portable code is enough.
Kernels<double> kernels(const std::string&, double) { return {portable::forward<double>, portable::backward<double>}; }

// GNU's OpenMP hangs in a child forked after its threads were used, so such a child works alone.
std::atomic<bool> used_threads{false}, work_alone{false};
const int fork_handler = pthread_atfork(nullptr, nullptr, [] { work_alone = used_threads.load(); });

int max_threads() {
#ifdef _OPENMP
  return work_alone ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Calls run(task, scratch) for every task, on Paddle's number of threads; the scratch begins as zeros.
template <class T, class Run>
void for_each_task(const Geometry& g, int tasks, Run run) {
  const int scratch = g.scratch();
  const int worth_waking = int(std::min<int64_t>(1 + g.multiply_adds() / 200000, tasks));
  const int threads = std::max(1, std::min(worth_waking, max_threads()));
  std::vector<T> memory(size_t(threads) * scratch + 64 / sizeof(T));
  T* const aligned = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  std::atomic<int> next_task{0}, next_scratch{0};
  const auto work = [&] {
    T* mine = aligned + size_t(next_scratch++) * scratch;
    for (int task; (task = next_task++) < tasks;) run(task, mine);
  };
  if (threads == 1) return work();
  used_threads = true;
#pragma omp parallel num_threads(threads)
  work();
}

// Channels of a task: enough tasks to keep all threads busy to the end, yet neighbours in memory stay together.
int channels_per_task(const Geometry& g, int groups) {
  return std::max(1, std::min(16, g.channels * groups / (4 * max_threads())));
}

template <class T>
void run_forward(const Geometry& g, const std::string& isa, const paddle::Tensor& x, const paddle::Tensor& weight,
                 paddle::Tensor& out) {
  const auto run = kernels(isa, T()).forward;
  const T *x_data = x.data<T>(), *weight_data = weight.data<T>();
  T* out_data = out.data<T>();
  const int groups = (g.images + g.group - 1) / g.group;
  const int step = channels_per_task(g, groups), chunks = (g.channels + step - 1) / step;
  for_each_task<T>(g, groups * chunks, [&](int task, T* scratch) {
    const int channel = task % chunks * step;
    run(g, x_data, weight_data, out_data, task / chunks, channel, std::min(channel + step, g.channels), scratch);
  });
}

template <class T>
void run_backward(const Geometry& g, const std::string& isa, const paddle::Tensor& x, const paddle::Tensor& weight,
                  const paddle::Tensor& out_grad, paddle::Tensor* x_grad, paddle::Tensor* weight_grad) {
  const auto run = kernels(isa, T()).backward;
  const T *x_data = x.data<T>(), *weight_data = weight.data<T>(), *out_grad_data = out_grad.data<T>();
  T* x_grad_data = x_grad ? x_grad->data<T>() : nullptr;
  T* weight_grad_data = weight_grad ? weight_grad->data<T>() : nullptr;
  const int step = channels_per_task(g, 1);
  for_each_task<T>(g, (g.channels + step - 1) / step, [&](int task, T* scratch) {
    const int channel = task * step;
    run(g, x_data, weight_data, out_grad_data, x_grad_data, weight_grad_data, channel,
        std::min(channel + step, g.channels), scratch);
  });
}

using Tensors = std::vector<paddle::Tensor>;

paddle::Tensor contiguous(paddle::Tensor tensor) { return tensor.contiguous(); }  // not const in Paddle 3.0

Tensors op_forward(const paddle::Tensor& input, const paddle::Tensor& kernel, int stride,
                   const std::vector<int>& padding, int dilation, const std::string& isa, bool, bool) {
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel);
  const bool is_float = x.dtype() == paddle::DataType::FLOAT32;
  const Geometry g = make_geometry(x.shape(), weight.shape(), {stride, dilation, padding}, is_float ? 4 : 8);
  paddle::Tensor out = paddle::empty({g.images, g.channels, g.output.height, g.output.width}, x.dtype(), x.place());
  (is_float ? run_forward<float> : run_forward<double>)(g, isa, x, weight, out);
  return {out};
}

Tensors op_backward(const paddle::Tensor& input, const paddle::Tensor& kernel, const paddle::Tensor& grad, int stride,
                    const std::vector<int>& padding, int dilation, const std::string& isa, bool want_x,
                    bool want_weight) {
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel), out_grad = contiguous(grad);
  const bool is_float = x.dtype() == paddle::DataType::FLOAT32;
  const Geometry g = make_geometry(x.shape(), weight.shape(), {stride, dilation, padding}, is_float ? 4 : 8);
  // Paddle insists on memory for each gradient, also where it will drop it.
  const std::vector<int64_t> unwanted = {1};
  paddle::Tensor x_grad = paddle::empty(want_x ? x.shape() : unwanted, x.dtype(), x.place());
  paddle::Tensor weight_grad = paddle::empty(want_weight ? weight.shape() : unwanted, x.dtype(), x.place());
  (is_float ? run_backward<float> : run_backward<double>)(g, isa, x, weight, out_grad, want_x ? &x_grad : nullptr,
                                                          want_weight ? &weight_grad : nullptr);
  return {x_grad, weight_grad};
}

}  // namespace

extern "C" int pimm_depthwise_supports(const char* isa) { return supports(isa); }

PD_BUILD_OP(pimm_depthwise_conv2d)
    .Inputs({"X", "Weight"})
    .Outputs({"Out"})
    .Attrs({"stride: int", "padding: std::vector<int>", "dilation: int", "isa: std::string", "want_x: bool",
            "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(op_forward));

PD_BUILD_GRAD_OP(pimm_depthwise_conv2d)
    .Inputs({"X", "Weight", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Weight")})
    .Attrs({"stride: int", "padding: std::vector<int>", "dilation: int", "isa: std::string", "want_x: bool",
            "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(op_backward));
