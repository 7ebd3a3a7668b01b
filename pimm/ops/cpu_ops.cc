// Operators of pimm for Paddle on the CPU, compiled as one file. The arithmetic (simd.h, *_kernels.h) is compiled once
// for every instruction set, and the caller names the one to use. All else is the same for every instruction set.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <pthread.h>

#include "paddle/phi/api/all.h"
#include "paddle/phi/api/ext/op_meta_info.h"
#include "paddle/phi/api/ext/tensor_compat.h"

namespace {

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

#include "checks.h"
#include "depthwise_geometry.h"
#include "channels_last_geometry.h"
#include "resize_taps.h"

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Mask{__VA_ARGS__})
#endif

#define VECTOR_BYTES 16  // SSE2 on x86-64 and NEON on ARM, which every such processor has
namespace portable {
#include "simd.h"
#include "depthwise_kernels.h"
#include "batch_norm_kernels.h"
#include "swish_kernels.h"
#include "channels_last_kernels.h"
#include "resize_kernels.h"
#include "scale_channels_kernels.h"
#include "updates_kernels.h"
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
#include "simd.h"
#include "depthwise_kernels.h"
#include "batch_norm_kernels.h"
#include "swish_kernels.h"
#include "channels_last_kernels.h"
#include "resize_kernels.h"
#include "scale_channels_kernels.h"
#include "updates_kernels.h"
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
#include "simd.h"
#include "depthwise_kernels.h"
#include "batch_norm_kernels.h"
#include "swish_kernels.h"
#include "channels_last_kernels.h"
#include "resize_kernels.h"
#include "scale_channels_kernels.h"
#include "updates_kernels.h"
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
  decltype(&portable::depthwise_forward<T>) depthwise;
  decltype(&portable::depthwise_backward<T>) depthwise_backward;
  decltype(&portable::add_moments<T>) add_moments;
  decltype(&portable::normalise<T>) normalise;
  decltype(&portable::add_products<T>) add_products;
  decltype(&portable::normalise_backward<T>) normalise_backward;
  decltype(&portable::swish_forward<T>) swish;
  decltype(&portable::swish_backward<T>) swish_backward;
  decltype(&portable::normalise_swish<T>) normalise_swish;
  decltype(&portable::normalise_swish_backward<T>) normalise_swish_backward;
  decltype(&portable::scale_map<T>) scale_map;
  decltype(&portable::scale_map_backward<T>) scale_map_backward;
  decltype(&portable::sum_map<T>) sum_map;
  decltype(&portable::find_pixels<T>) find_pixels;
  decltype(&portable::copy_patches<T>) copy_patches;
  decltype(&portable::interleave_channels<T>) interleave_channels;
  decltype(&portable::gate_pixels<T>) gate_pixels;
  decltype(&portable::convolve_pixels<T>) convolve_pixels;
  decltype(&portable::convolve_depthwise<T>) convolve_depthwise;
  decltype(&portable::normalise_pixels<T>) normalise_pixels;
  decltype(&portable::add_pixels<T>) add_pixels;
};

#define KERNELS(isa, T)                                                                                            \
  {                                                                                                                \
    isa::depthwise_forward<T>, isa::depthwise_backward<T>, isa::add_moments<T>, isa::normalise<T>,                 \
        isa::add_products<T>, isa::normalise_backward<T>, isa::swish_forward<T>, isa::swish_backward<T>,           \
        isa::normalise_swish<T>, isa::normalise_swish_backward<T>, isa::scale_map<T>,                              \
        isa::scale_map_backward<T>, isa::sum_map<T>, isa::find_pixels<T>, isa::copy_patches<T>,                    \
        isa::interleave_channels<T>, isa::gate_pixels<T>, isa::convolve_pixels<T>, isa::convolve_depthwise<T>,     \
        isa::normalise_pixels<T>, isa::add_pixels<T>                                                               \
  }

template <class T>
Kernels<T> kernels(const std::string& isa) {
#ifdef __x86_64__
  if (isa == "avx512") return KERNELS(avx512, T);
  if (isa == "avx2") return KERNELS(avx2, T);
#endif
  return KERNELS(portable, T);
}

// float64 serves to check gradients by finite differences, for which portable code is fast enough.
template <>
Kernels<double> kernels<double>(const std::string&) {
  return KERNELS(portable, double);
}

struct ResizeKernels {
  decltype(&portable::scale_row) scale_row;
  decltype(&portable::sum_rows) sum_rows;
};

ResizeKernels resize_kernels(const std::string& isa) {
#ifdef __x86_64__
  if (isa == "avx512") return {avx512::scale_row, avx512::sum_rows};
  if (isa == "avx2") return {avx2::scale_row, avx2::sum_rows};
#endif
  return {portable::scale_row, portable::sum_rows};
}

struct UpdateKernels {
  decltype(&portable::move_average) average;
  decltype(&portable::momentum_step) momentum;
  decltype(&portable::rmsprop_step) rmsprop;
};

UpdateKernels update_kernels(const std::string& isa) {
#ifdef __x86_64__
  if (isa == "avx512") return {avx512::move_average, avx512::momentum_step, avx512::rmsprop_step};
  if (isa == "avx2") return {avx2::move_average, avx2::momentum_step, avx2::rmsprop_step};
#endif
  return {portable::move_average, portable::momentum_step, portable::rmsprop_step};
}

using Tensors = std::vector<paddle::Tensor>;

paddle::Tensor contiguous(paddle::Tensor tensor) { return tensor.contiguous(); }  // not const in Paddle 3.0

// Calls `run` with a value of the type of the tensor's elements.
template <class Run>
void with_type(const paddle::Tensor& tensor, Run run) {
  tensor.dtype() == paddle::DataType::FLOAT32 ? run(float()) : run(double());
}

#include "threads.h"

#include "swish.h"
#include "batch_norm.h"
#include "depthwise.h"
#include "patches.h"
#include "pointwise.h"
#include "resize.h"
#include "scale_channels.h"
#include "channels_last.h"
#include "net.h"
#include "updates.h"

// Names the second gradient of a tensor, which the double-backward operators take or return.
std::string second(const char* name) { return paddle::Grad(paddle::Grad(name)); }

}  // namespace

extern "C" int pimm_cpu_ops_support(const char* isa) { return supports(isa); }

extern "C" void pimm_resize_part(const uint8_t* pixels, int64_t stride, const int* size, const int* scaled,
                                 const int* part, int is_cubic, const char* isa, uint8_t* out) {
  resize_part(pixels, stride, size, scaled, part, is_cubic != 0, isa, out);
}

PD_BUILD_OP(pimm_depthwise_conv2d)
    .Inputs({"X", "Weight"})
    .Outputs({"Out"})
    .Attrs({"stride: int", "padding: std::vector<int>", "dilation: int", "isa: std::string", "want_x: bool",
            "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(depthwise_op));

PD_BUILD_GRAD_OP(pimm_depthwise_conv2d)
    .Inputs({"X", "Weight", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Weight")})
    .Attrs({"stride: int", "padding: std::vector<int>", "dilation: int", "isa: std::string", "want_x: bool",
            "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(depthwise_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_depthwise_conv2d)
    .Inputs({"X", "Weight", paddle::Grad("Out"), second("X"), second("Weight")})
    .Outputs({paddle::New(paddle::Grad("X")), paddle::New(paddle::Grad("Weight")), second("Out")})
    .Attrs({"stride: int", "padding: std::vector<int>", "dilation: int", "isa: std::string", "want_x: bool",
            "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(depthwise_second_op));

PD_BUILD_OP(pimm_pointwise_conv2d)
    .Inputs({"X", "Weight"})
    .Outputs({"Out"})
    .Attrs({"want_x: bool", "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(pointwise_op));

PD_BUILD_GRAD_OP(pimm_pointwise_conv2d)
    .Inputs({"X", "Weight", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Weight")})
    .Attrs({"want_x: bool", "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(pointwise_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_pointwise_conv2d)
    .Inputs({"X", "Weight", paddle::Grad("Out"), second("X"), second("Weight")})
    .Outputs({paddle::New(paddle::Grad("X")), paddle::New(paddle::Grad("Weight")), second("Out")})
    .Attrs({"want_x: bool", "want_weight: bool"})
    .SetKernelFn(PD_KERNEL(pointwise_second_op));

PD_BUILD_OP(pimm_dense).Inputs({"X", "Weight", "Bias"}).Outputs({"Out"}).SetKernelFn(PD_KERNEL(dense_op));

PD_BUILD_GRAD_OP(pimm_dense)
    .Inputs({"X", "Weight", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Weight"), paddle::Grad("Bias")})
    .SetKernelFn(PD_KERNEL(dense_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_dense)
    .Inputs({"X", "Weight", paddle::Grad("Out"), second("X"), second("Weight"), second("Bias")})
    .Outputs({paddle::New(paddle::Grad("X")), paddle::New(paddle::Grad("Weight")), second("Out")})
    .SetKernelFn(PD_KERNEL(dense_second_op));

PD_BUILD_OP(pimm_patches)
    .Inputs({"X"})
    .Outputs({"Out"})
    .Attrs({"kernel: std::vector<int>", "stride: std::vector<int>", "padding: std::vector<int>",
            "dilation: std::vector<int>"})
    .SetKernelFn(PD_KERNEL(patches_op));

PD_BUILD_OP(pimm_batch_norm)
    .Inputs({"X", "Weight", "Bias"})
    .Outputs({"Out", "Mean", "Variance"})
    .Attrs({"eps: double", "then_swish: bool", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(batch_norm_op));

PD_BUILD_GRAD_OP(pimm_batch_norm)
    .Inputs({"X", "Weight", "Bias", "Mean", "Variance", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Weight"), paddle::Grad("Bias")})
    .Attrs({"eps: double", "then_swish: bool", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(batch_norm_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_batch_norm)
    .Inputs({"X", "Weight", "Bias", paddle::Grad("Out"), second("X"), second("Weight"), second("Bias")})
    .Outputs({paddle::New(paddle::Grad("X")), paddle::New(paddle::Grad("Weight")), paddle::New(paddle::Grad("Bias")),
              paddle::New(paddle::Grad("Mean")), paddle::New(paddle::Grad("Variance")), second("Out")})
    .Attrs({"eps: double", "then_swish: bool"})
    .SetKernelFn(PD_KERNEL(batch_norm_second_op));

PD_BUILD_OP(pimm_swish)
    .Inputs({"X"})
    .Outputs({"Out"})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(swish_op));

PD_BUILD_GRAD_OP(pimm_swish)
    .Inputs({"X", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X")})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(swish_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_swish)
    .Inputs({"X", paddle::Grad("Out"), second("X")})
    .Outputs({paddle::New(paddle::Grad("X")), second("Out")})
    .SetKernelFn(PD_KERNEL(swish_second_op));

PD_BUILD_OP(pimm_scale_channels)
    .Inputs({"X", "Factors"})
    .Outputs({"Out"})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(scale_channels_op));

PD_BUILD_GRAD_OP(pimm_scale_channels)
    .Inputs({"X", "Factors", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X"), paddle::Grad("Factors")})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(scale_channels_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_scale_channels)
    .Inputs({"X", "Factors", paddle::Grad("Out"), second("X"), second("Factors")})
    .Outputs({paddle::New(paddle::Grad("X")), paddle::New(paddle::Grad("Factors")), second("Out")})
    .SetKernelFn(PD_KERNEL(scale_channels_second_op));

PD_BUILD_OP(pimm_map_means)
    .Inputs({"X"})
    .Outputs({"Out"})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(map_means_op));

PD_BUILD_GRAD_OP(pimm_map_means)
    .Inputs({"X", paddle::Grad("Out")})
    .Outputs({paddle::Grad("X")})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(map_means_grad_op));

PD_BUILD_DOUBLE_GRAD_OP(pimm_map_means)
    .Inputs({"X", paddle::Grad("Out"), second("X")})
    .Outputs({paddle::New(paddle::Grad("X")), second("Out")})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(map_means_second_op));

PD_BUILD_OP(pimm_channels_last_conv)
    .Inputs({"X", "Weight", "Scale", "Shift", paddle::Optional("Gate"), paddle::Optional("Shortcut")})
    .Outputs({"Out"})
    .Attrs({"outs: int", "kernel: std::vector<int>", "stride: std::vector<int>", "padding: std::vector<int>",
            "dilation: std::vector<int>", "act: std::string", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(channels_last_conv_op));

PD_BUILD_OP(pimm_channels_last_depthwise)
    .Inputs({"X", "Weight", "Scale", "Shift"})
    .Outputs({"Out"})
    .Attrs({"kernel: std::vector<int>", "stride: std::vector<int>", "padding: std::vector<int>",
            "dilation: std::vector<int>", "act: std::string", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(channels_last_depthwise_op));

PD_BUILD_OP(pimm_channels_last_norm)
    .Inputs({"X", "Weight", "Bias", paddle::Optional("Shortcut")})
    .Outputs({"Out", "Mean", "Variance"})
    .Attrs({"eps: double", "act: std::string", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(channels_last_norm_op));

PD_BUILD_OP(pimm_channels_last_mean)
    .Inputs({"X"})
    .Outputs({"Out"})
    .Attrs({"isa: std::string"})
    .SetKernelFn(PD_KERNEL(channels_last_mean_op));

PD_BUILD_OP(pimm_net)
    .Inputs({"X", paddle::Vec("Weights")})
    .Outputs({"Out"})
    .Attrs({"steps: std::vector<int>", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(net_op));

PD_BUILD_OP(pimm_move_averages)
    .Inputs({paddle::Vec("Averages"), paddle::Vec("Values")})
    .Outputs({"Nothing"})
    .Attrs({"keeps: std::vector<float>", "shares: std::vector<float>", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(move_averages_op));

PD_BUILD_OP(pimm_momentum)
    .Inputs({paddle::Vec("Params"), paddle::Vec("Grads"), paddle::Vec("Velocities")})
    .Outputs({"Nothing"})
    .Attrs({"rate: float", "l2: float", "momentum: float", "nesterov: bool", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(momentum_op));

PD_BUILD_OP(pimm_rmsprop)
    .Inputs({paddle::Vec("Params"), paddle::Vec("Grads"), paddle::Vec("Squares"), paddle::Vec("Velocities"),
             paddle::Vec("Means")})
    .Outputs({"Nothing"})
    .Attrs({"rate: float", "l2: float", "keep: float", "rate_inside: bool", "alpha: float", "eps: float",
            "momentum: float", "centered: bool", "isa: std::string"})
    .SetKernelFn(PD_KERNEL(rmsprop_op));
