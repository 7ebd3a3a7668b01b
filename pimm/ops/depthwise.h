// Depthwise convolution on the CPU: its tasks, and the operator. How it works is told in depthwise_geometry.h.

// Calls run(task, scratch) for every task; the scratch begins as zeros.
template <class T, class Run>
void for_each_task_with_scratch(const Geometry& g, int tasks, Run run) {
  const int scratch = g.scratch(), threads = worthwhile_threads(tasks, g.multiply_adds(), 200000);
  std::vector<T> memory(size_t(threads) * scratch + 64 / sizeof(T));
  T* const aligned = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  for_each_task(tasks, threads, [&](int task, int thread) { run(task, aligned + size_t(thread) * scratch); });
}

// Channels of a task: enough tasks to keep all threads busy to the end, yet neighbours in memory stay together.
int channels_per_task(const Geometry& g, int groups) {
  return std::max(1, std::min(16, g.channels * groups / (4 * max_threads())));
}

template <class T>
void depthwise(const Geometry& g, const std::string& isa, const paddle::Tensor& x, const paddle::Tensor& weight,
                 paddle::Tensor& out) {
  const auto run = kernels<T>(isa).depthwise;
  const T *x_data = x.data<T>(), *weight_data = weight.data<T>();
  T* out_data = out.data<T>();
  const int groups = (g.images + g.group - 1) / g.group;
  const int step = channels_per_task(g, groups), chunks = (g.channels + step - 1) / step;
  for_each_task_with_scratch<T>(g, groups * chunks, [&](int task, T* scratch) {
    const int channel = task % chunks * step;
    run(g, x_data, weight_data, out_data, task / chunks, channel, std::min(channel + step, g.channels), scratch);
  });
}

template <class T>
void depthwise_backward(const Geometry& g, const std::string& isa, const paddle::Tensor& x, const paddle::Tensor& weight,
                  const paddle::Tensor& out_grad, paddle::Tensor* x_grad, paddle::Tensor* weight_grad) {
  const auto run = kernels<T>(isa).depthwise_backward;
  const T *x_data = x.data<T>(), *weight_data = weight.data<T>(), *out_grad_data = out_grad.data<T>();
  T* x_grad_data = x_grad ? x_grad->data<T>() : nullptr;
  T* weight_grad_data = weight_grad ? weight_grad->data<T>() : nullptr;
  const int step = channels_per_task(g, 1);
  for_each_task_with_scratch<T>(g, (g.channels + step - 1) / step, [&](int task, T* scratch) {
    const int channel = task * step;
    run(g, x_data, weight_data, out_grad_data, x_grad_data, weight_grad_data, channel,
        std::min(channel + step, g.channels), scratch);
  });
}

Tensors depthwise_op(const paddle::Tensor& input, const paddle::Tensor& kernel, int stride,
                     const std::vector<int>& padding, int dilation, const std::string& isa, bool, bool) {
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel);
  const Geometry g = make_geometry(x.shape(), weight.shape(), {stride, dilation, padding}, int(phi::SizeOf(x.dtype())));
  paddle::Tensor out = paddle::empty({g.images, g.channels, g.output.height, g.output.width}, x.dtype(), x.place());
  with_type(x, [&](auto type) { depthwise<decltype(type)>(g, isa, x, weight, out); });
  return {out};
}

Tensors depthwise_grad_op(const paddle::Tensor& input, const paddle::Tensor& kernel, const paddle::Tensor& grad,
                          int stride, const std::vector<int>& padding, int dilation, const std::string& isa,
                          bool want_x, bool want_weight) {
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel), out_grad = contiguous(grad);
  const Geometry g = make_geometry(x.shape(), weight.shape(), {stride, dilation, padding}, int(phi::SizeOf(x.dtype())));
  // Paddle insists on memory for each gradient, also where it will drop it.
  const std::vector<int64_t> unwanted = {1};
  paddle::Tensor x_grad = paddle::empty(want_x ? x.shape() : unwanted, x.dtype(), x.place());
  paddle::Tensor weight_grad = paddle::empty(want_weight ? weight.shape() : unwanted, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    depthwise_backward<decltype(type)>(g, isa, x, weight, out_grad, want_x ? &x_grad : nullptr,
                                       want_weight ? &weight_grad : nullptr);
  });
  return {x_grad, weight_grad};
}
