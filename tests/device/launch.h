// Runs Paddle's own CPU kernels on a stream of the test device.
//
// A launch takes the arguments of a kernel, allocates its outputs as their shapes say, and leaves a job on the stream
// that calls the CPU's kernel with views of the device's memory. Numbers are therefore those of the CPU, to the bit.
#pragma once

#include <exception>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "paddle/phi/backends/custom/custom_context.h"
#include "paddle/phi/core/dense_tensor.h"
#include "paddle/phi/core/kernel_factory.h"
#include "paddle/utils/optional.h"
#include "runtime.h"

namespace test_device {

using phi::DataType;
using phi::DenseTensor;
using Tensors = std::vector<const DenseTensor*>;

struct Operator {
  const char* name;
  bool decides_shapes;  // or draws random numbers: the launch waits until the kernel has run
};

// One tensor of a job: what Paddle holds, and the same memory as the host sees it.
struct View {
  DenseTensor device;
  DenseTensor host;
  DenseTensor* output = nullptr;
  bool half = false;  // the host's side is a copy in float32
};

class Job {
 public:
  Job(const Operator& op, DataType dtype, const phi::CustomContext& context);

  View* input(const DenseTensor* tensor);
  View* output(DenseTensor* tensor);

  // Shows the memory to the host, calls `kernel`, and checks that the outputs are where they were.
  void run(const std::function<void(const phi::DeviceContext&, void*)>& kernel);
  void launch(std::function<void()> run);

  bool computes_in_float() const { return float_; }

 private:
  View* add(const DenseTensor* tensor);
  void show(View* view);
  std::shared_ptr<phi::Allocation> shown(const std::shared_ptr<phi::Allocation>& holder);
  void keep(View* view);
  void keep_what_the_kernel_decided(View* view);

  const Operator op_;
  const phi::CustomContext& context_;
  C_Stream stream_;
  void* kernel_;  // the function: as the process ends, Paddle destroys its table of kernels under unfinished streams
  bool float_ = false;
  bool waits_ = false;  // an output is on the host, such as Adam's powers of beta
  std::map<const DenseTensor*, std::unique_ptr<View>> views_;
  std::map<const phi::Allocation*, std::shared_ptr<phi::Allocation>> shown_;
};

// How an argument of a kernel is kept until the kernel runs; attributes are copied.
template <typename Arg>
struct Kept {
  using Type = std::decay_t<Arg>;
  static_assert(!std::is_pointer_v<Type> && !std::is_base_of_v<phi::TensorBase, Type>, "keep this kind of tensor");
  static Type take(Job* job, Arg arg) {
    if constexpr (std::is_same_v<Type, DataType>) {
      bool half = arg == DataType::FLOAT16 || arg == DataType::BFLOAT16;
      if (job->computes_in_float() && half) return DataType::FLOAT32;
    }
    return arg;
  }
  static Type& give(Type& kept) { return kept; }
};

template <>
struct Kept<const DenseTensor&> {
  using Type = View*;
  static Type take(Job* job, const DenseTensor& tensor) { return job->input(&tensor); }
  static const DenseTensor& give(Type& view) { return view->host; }
};

template <>
struct Kept<DenseTensor*> {
  using Type = View*;
  static Type take(Job* job, DenseTensor* tensor) { return tensor ? job->output(tensor) : nullptr; }
  static DenseTensor* give(Type& view) { return view ? &view->host : nullptr; }
};

template <>
struct Kept<const paddle::optional<DenseTensor>&> {
  struct Type {
    View* view;
    paddle::optional<DenseTensor> host;
  };
  static Type take(Job* job, const paddle::optional<DenseTensor>& tensor) {
    return {tensor ? job->input(tensor.get_ptr()) : nullptr, paddle::none};
  }
  static const paddle::optional<DenseTensor>& give(Type& kept) {
    if (kept.view) kept.host = kept.view->host;
    return kept.host;
  }
};

template <>
struct Kept<const Tensors&> {
  struct Type {
    std::vector<View*> views;
    Tensors hosts;
  };
  static Type take(Job* job, const Tensors& tensors) {
    Type kept;
    for (auto tensor : tensors) kept.views.push_back(job->input(tensor));
    return kept;
  }
  static const Tensors& give(Type& kept) {
    kept.hosts.clear();
    for (auto view : kept.views) kept.hosts.push_back(&view->host);
    return kept.hosts;
  }
};

template <>
struct Kept<const std::vector<const phi::TensorBase*>&> {
  struct Type {
    std::vector<View*> views;
    std::vector<const phi::TensorBase*> hosts;
  };
  static Type take(Job* job, const std::vector<const phi::TensorBase*>& tensors) {
    Type kept;
    for (auto tensor : tensors) kept.views.push_back(job->input(&dynamic_cast<const DenseTensor&>(*tensor)));
    return kept;
  }
  static const std::vector<const phi::TensorBase*>& give(Type& kept) {
    kept.hosts.clear();
    for (auto view : kept.views) kept.hosts.push_back(&view->host);
    return kept.hosts;
  }
};

template <>
struct Kept<const paddle::optional<Tensors>&> {
  struct Type {
    bool given;
    Kept<const Tensors&>::Type kept;
    paddle::optional<Tensors> hosts;
  };
  static Type take(Job* job, const paddle::optional<Tensors>& tensors) {
    if (!tensors) return {false, {}, paddle::none};
    return {true, Kept<const Tensors&>::take(job, tensors.get()), paddle::none};
  }
  static const paddle::optional<Tensors>& give(Type& kept) {
    if (kept.given) kept.hosts = Kept<const Tensors&>::give(kept.kept);
    return kept.hosts;
  }
};

template <>
struct Kept<std::vector<DenseTensor*>> {
  using Type = std::vector<View*>;
  static Type take(Job* job, const std::vector<DenseTensor*>& tensors) {
    Type views;
    for (auto tensor : tensors) views.push_back(tensor ? job->output(tensor) : nullptr);
    return views;
  }
  static std::vector<DenseTensor*> give(Type& views) {
    std::vector<DenseTensor*> hosts;
    for (auto view : views) hosts.push_back(view ? &view->host : nullptr);
    return hosts;
  }
};

template <typename... Args>
void launch(const Operator& op, DataType dtype, const phi::DeviceContext& context, Args... args) {
  auto job = std::make_shared<Job>(op, dtype, static_cast<const phi::CustomContext&>(context));
  using Arguments = std::tuple<typename Kept<Args>::Type...>;
  auto kept = std::make_shared<Arguments>(Arguments{Kept<Args>::take(job.get(), args)...});
  job->launch([job, kept] {
    job->run([&](const phi::DeviceContext& cpu, void* kernel) {
      auto call = reinterpret_cast<void (*)(const phi::DeviceContext&, Args...)>(kernel);
      std::apply([&](auto&... each) { call(cpu, Kept<Args>::give(each)...); }, *kept);
    });
  });
}

}  // namespace test_device
