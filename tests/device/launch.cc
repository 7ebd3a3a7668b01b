#include "launch.h"

#include <cstdlib>
#include <cstring>

#include "paddle/phi/backends/context_pool.h"
#include "paddle/phi/backends/cpu/cpu_context.h"
#include "paddle/phi/common/bfloat16.h"
#include "paddle/phi/common/float16.h"
#include "paddle/phi/core/generator.h"

namespace test_device {

namespace {

bool is_half(DataType dtype) { return dtype == DataType::FLOAT16 || dtype == DataType::BFLOAT16; }

template <typename From, typename To>
void convert_as(const DenseTensor& from, DenseTensor* to) {
  auto source = static_cast<const From*>(from.data());
  auto target = static_cast<To*>(const_cast<void*>(static_cast<const DenseTensor*>(to)->data()));
  for (int64_t i = 0; i < from.numel(); ++i) target[i] = static_cast<To>(source[i]);
}

void convert(const DenseTensor& from, DenseTensor* to) {
  using phi::dtype::bfloat16;
  using phi::dtype::float16;
  if (from.dtype() == DataType::FLOAT16) return convert_as<float16, float>(from, to);
  if (from.dtype() == DataType::BFLOAT16) return convert_as<bfloat16, float>(from, to);
  if (to->dtype() == DataType::FLOAT16) return convert_as<float, float16>(from, to);
  return convert_as<float, bfloat16>(from, to);
}

size_t bytes_of(const DenseTensor& tensor) { return tensor.numel() * phi::SizeOf(tensor.dtype()); }

void copy(const DenseTensor& from, DenseTensor* to) {
  void* target = const_cast<void*>(static_cast<const DenseTensor*>(to)->data());
  if (target != from.data()) std::memmove(target, from.data(), bytes_of(from));
}

// The context of a stream's kernels: the CPU's, with the random numbers of the device.
const phi::DeviceContext& cpu_context(C_Stream stream, const phi::CustomContext& context) {
  if (!stream->context) {
    const phi::DeviceContext* cpu = phi::DeviceContextPool::Instance().Get(phi::CPUPlace());
    stream->context = new phi::CPUContext(phi::CPUPlace());
    stream->context->SetAllocator(&cpu->GetAllocator());
    stream->context->SetHostAllocator(&cpu->GetHostAllocator());
    stream->context->SetZeroAllocator(&cpu->GetZeroAllocator());
    stream->context->SetHostZeroAllocator(&cpu->GetHostZeroAllocator());
    stream->context->SetGenerator(context.GetGenerator());
    stream->context->SetHostGenerator(context.GetGenerator());
  }
  return *stream->context;
}

bool is_on_device(const DenseTensor& tensor) { return tensor.place().GetType() == phi::AllocationType::CUSTOM; }

// Aligned alike each time: the order in which a kernel sums depends on it.
std::shared_ptr<phi::Allocation> host_memory(size_t size) {
  void* memory = std::aligned_alloc(kAlignment, (size / kAlignment + 1) * kAlignment);
  return std::shared_ptr<phi::Allocation>(
      new phi::Allocation(memory, size, phi::CPUPlace()), [memory](phi::Allocation* it) {
        std::free(memory);
        delete it;
      });
}

DenseTensor as_float(const DenseTensor& tensor) {
  phi::DenseTensorMeta meta = tensor.meta();
  meta.dtype = DataType::FLOAT32;
  meta.offset = 0;
  return DenseTensor(host_memory(tensor.numel() * sizeof(float)), meta);
}

}  // namespace

Job::Job(const Operator& op, DataType dtype, const phi::CustomContext& context)
    : op_(op), context_(context), stream_(reinterpret_cast<C_Stream>(context.stream())) {
  const auto& kernels = phi::KernelFactory::Instance().kernels().at(op.name);
  auto find = [&](DataType of) { return kernels.find({phi::Backend::CPU, phi::DataLayout::ALL_LAYOUT, of}); };
  auto found = find(dtype);
  if (found == kernels.end()) {
    found = find(DataType::FLOAT32);
    float_ = true;
  }
  kernel_ = found->second.GetVariadicKernelFn<void*>();
}

View* Job::add(const DenseTensor* tensor) {
  auto& view = views_[tensor];
  if (!view) view = std::make_unique<View>();
  return view.get();
}

View* Job::input(const DenseTensor* tensor) {
  View* view = add(tensor);
  view->device = *tensor;
  if (tensor->initialized() && !is_on_device(*tensor) && tensor->numel() > 0) {  // a small tensor that the host made
    auto taken = host_memory(bytes_of(*tensor));
    std::memcpy(taken->ptr(), tensor->data(), bytes_of(*tensor));
    phi::DenseTensorMeta meta = tensor->meta();
    meta.offset = 0;
    view->device = DenseTensor(taken, meta);
  }
  return view;
}

View* Job::output(DenseTensor* tensor) {
  View* view = add(tensor);
  view->output = tensor;
  if (tensor->initialized() && !is_on_device(*tensor)) waits_ = true;
  bool known = tensor->dtype() != DataType::UNDEFINED && tensor->numel() > 0;
  if (known && !(tensor->initialized() && tensor->Holder()->size() >= tensor->offset() + bytes_of(*tensor))) {
    context_.Alloc(tensor, tensor->dtype());
  }
  view->device = *tensor;
  return view;
}

// Tensors that share memory share what shows it: kernels ask for it.
std::shared_ptr<phi::Allocation> Job::shown(const std::shared_ptr<phi::Allocation>& holder) {
  auto& allocation = shown_[holder.get()];
  if (!allocation) {
    void* memory = is_device_address(holder->ptr()) ? host_view(holder->ptr()) : holder->ptr();
    allocation = std::make_shared<phi::Allocation>(memory, holder->size(), phi::CPUPlace());
  }
  return allocation;
}

void Job::show(View* view) {
  const DenseTensor& device = view->device;
  view->host = DenseTensor();
  auto holder = device.Holder();
  if (holder && holder->ptr() && holder->size() > 0) {
    view->host = device;
    view->host.ResetHolder(shown(holder));
  } else if (device.valid()) {  // of some inputs, a kernel needs the shape alone
    view->host.set_meta(device.meta());
  }
  view->half = float_ && is_half(device.dtype());
  if (!view->half) return;
  DenseTensor in_float = as_float(device);
  if (view->host.initialized() && device.numel() > 0) convert(view->host, &in_float);
  view->host = in_float;
}

void Job::keep(View* view) {
  if (op_.decides_shapes) return keep_what_the_kernel_decided(view);
  if (!view->device.initialized()) {
    if (view->host.initialized() && view->host.numel() > 0) fail(std::string(op_.name) + " made an output of its own");
    return;
  }
  if (view->host.dims() != view->device.dims()) fail(std::string(op_.name) + " changed the shape of an output");
  DenseTensor storage(shown(view->device.Holder()), view->device.meta());
  if (view->half) return convert(view->host, &storage);
  copy(view->host, &storage);  // some kernels let an output share the memory of an input
}

void Job::keep_what_the_kernel_decided(View* view) {
  phi::DenseTensorMeta meta = view->host.meta();
  if (!meta.valid()) return;
  if (view->half) meta.dtype = view->device.dtype();
  meta.offset = view->output->meta().offset;
  view->output->set_meta(meta);
  if (!view->host.initialized() || meta.dims.size() < 0 || view->host.numel() <= 0) return;
  context_.Alloc(view->output, meta.dtype);
  DenseTensor storage(shown(view->output->Holder()), meta);
  if (view->half) return convert(view->host, &storage);
  copy(view->host, &storage);
}

void Job::run(const std::function<void(const phi::DeviceContext&, void*)>& kernel) {
  for (auto& [tensor, view] : views_) show(view.get());
  kernel(cpu_context(stream_, context_), kernel_);
  for (auto& [tensor, view] : views_) {
    if (view->output) keep(view.get());
  }
}

void Job::launch(std::function<void()> run) {
  ++counters[kKernels];
  if (float_) ++counters[kHalfKernels];
  if (op_.decides_shapes || waits_) {
    stream_->wait();
    return run();
  }
  stream_->launch([run = std::move(run), name = op_.name] {
    try {
      run();
    } catch (const std::exception& error) {
      fail(std::string(name) + ": " + error.what());
    }
  });
}

}  // namespace test_device
