// The operators that the test device has: each in the types that the CPU has, and in half precision where float32 is.
#include <utility>

#include "kernel_headers.h"
#include "launch.h"
#include "paddle/phi/core/kernel_utils.h"
#include "paddle/phi/backends/cpu/cpu_context.h"

namespace test_device {
namespace {

// Without whole numbers of 8 and 16 bits with a sign, which no job has: each type costs seconds of compilation.
constexpr DataType kTypes[] = {DataType::BOOL,    DataType::UINT8,   DataType::INT32,   DataType::INT64,
                               DataType::FLOAT32, DataType::FLOAT64, DataType::FLOAT16, DataType::BFLOAT16};
constexpr size_t kTypesCount = sizeof(kTypes) / sizeof(DataType);

// What Paddle calls: it knows the operator, the type of its numbers and the types of its arguments.
template <const Operator& op, DataType dtype, typename Signature>
struct Entry;

template <const Operator& op, DataType dtype, typename... Args>
struct Entry<op, dtype, void (*)(const phi::CPUContext&, Args...)> {
  static void call(const phi::DeviceContext& context, Args... args) {
    launch<Args...>(op, dtype, context, args...);
  }
  static void traced(const phi::CustomContext& context, Args... args) { call(context, args...); }
};

void not_traced(phi::KernelContext*) { fail("an operator that Paddle Inference or the tracer runs must be listed as TRACED"); }

void add(const char* name, DataType dtype, void* call, phi::KernelFn traced, phi::Backend backend) {
  auto& all = phi::KernelFactory::Instance().kernels();
  if (all.find(name) == all.end()) fail(std::string("Paddle has no operator ") + name);
  auto& kernels = all.at(name);
  auto find = [&](DataType of) { return kernels.find({phi::Backend::CPU, phi::DataLayout::ALL_LAYOUT, of}); };
  bool half = dtype == DataType::FLOAT16 || dtype == DataType::BFLOAT16;
  auto found = find(dtype);
  if (found == kernels.end() && half) found = find(DataType::FLOAT32);
  if (found == kernels.end()) return;
  phi::Kernel kernel(traced, call);
  *kernel.mutable_args_def() = found->second.args_def();
  // The optimizers that keep the powers of their betas on the host, as they do beside a GPU.
  bool mixed = std::string(name).rfind("adam", 0) == 0 || std::string(name) == "lamb";
  auto adopt = [&](auto& definitions) {
    for (auto& definition : definitions) {
      if (definition.backend == phi::Backend::CPU) definition.backend = mixed ? phi::Backend::ALL_BACKEND : backend;
      if (half && definition.dtype == DataType::FLOAT32 && found->first.dtype() == DataType::FLOAT32) {
        definition.dtype = dtype;
      }
    }
  };
  adopt(kernel.mutable_args_def()->input_defs());
  adopt(kernel.mutable_args_def()->output_defs());
  kernels[{backend, phi::DataLayout::ALL_LAYOUT, dtype}] = kernel;
}

template <const Operator& op, DataType dtype, typename Signature, bool traced>
void add_one(phi::Backend backend) {
  using Its = Entry<op, dtype, Signature>;
  phi::KernelFn run = not_traced;
  if constexpr (traced) run = phi::KernelImpl<decltype(&Its::traced), &Its::traced>::Compute;
  add(op.name, dtype, reinterpret_cast<void*>(&Its::call), run, backend);
}

template <const Operator& op, typename Signature, bool traced, size_t... types>
void add_all(phi::Backend backend, std::index_sequence<types...>) {
  (add_one<op, kTypes[types], Signature, traced>(backend), ...);
}

#define FORWARD(NAME, KERNEL) constexpr Operator op_##NAME{#NAME, false};
#define DECIDES(NAME, KERNEL) constexpr Operator op_##NAME{#NAME, true};
#define TRACED(NAME, KERNEL) FORWARD(NAME, KERNEL)
#define DECIDES_TRACED(NAME, KERNEL) DECIDES(NAME, KERNEL)
#define UNTYPED(NAME, KERNEL) FORWARD(NAME, KERNEL)
#include "kernels.def"
#undef FORWARD
#undef DECIDES
#undef TRACED
#undef DECIDES_TRACED
#undef UNTYPED

}  // namespace

void add_kernels(const char* device_type) {
  phi::Backend backend = phi::TransToPhiBackend(phi::CustomPlace(device_type, 0));
  auto types = std::make_index_sequence<kTypesCount>();
#define ADD(NAME, IS_TRACED, ...) add_all<op_##NAME, decltype(&phi::__VA_ARGS__), IS_TRACED>(backend, types);
#define FORWARD(NAME, KERNEL) ADD(NAME, false, KERNEL<float, phi::CPUContext>)
#define DECIDES(NAME, KERNEL) FORWARD(NAME, KERNEL)
#define TRACED(NAME, KERNEL) ADD(NAME, true, KERNEL<float, phi::CPUContext>)
#define DECIDES_TRACED(NAME, KERNEL) TRACED(NAME, KERNEL)
#define UNTYPED(NAME, KERNEL) ADD(NAME, false, KERNEL<phi::CPUContext>)
#include "kernels.def"
}

}  // namespace test_device
