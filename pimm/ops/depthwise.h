// Tasks and operators of the depthwise convolution on the CPU, which depthwise_geometry.h explains.

// Calls run(task, scratch) for every task; each thread's scratch is zero at first.
template <class T, class Run>
void for_each_task_with_scratch(const Geometry& g, int tasks, Run run) {
  const int64_t scratch = g.scratch();
  const int threads = worthwhile_threads(tasks, g.multiply_adds(), 200000);
  std::vector<T> memory = zeros<T>("depthwise convolution", size_t(threads) * scratch + 64 / sizeof(T));
  T* const aligned = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
  for_each_task(tasks, threads, [&](int task, int thread) { run(task, aligned + size_t(thread) * scratch); });
}

// Returns the channels of a task: few enough to keep all threads busy, but neighbours in memory stay together.
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
void depthwise_backward(const Geometry& g, const std::string& isa, const paddle::Tensor& x,
                        const paddle::Tensor& weight, const paddle::Tensor& out_grad, paddle::Tensor* x_grad,
                        paddle::Tensor* weight_grad) {
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

// Checks all that the kernels rely on, and returns the geometry.
Geometry check_depthwise(const char* op, const paddle::Tensor& x, const paddle::Tensor& weight, const Conv& conv,
                         const std::string& isa) {
  check_instruction_set(op, isa);
  check_images(op, x);
  check_tensor(op, "Weight", weight);
  const std::vector<int64_t> shape = x.shape(), kernel = weight.shape();
  if (kernel.size() != 4 || weight.numel() == 0) {
    fail(op, "Weight has shape ", text_of(kernel), " and must have [C, 1, kernel height, kernel width]");
  }
  check_like(op, "Weight", weight, {shape[1], 1, kernel[2], kernel[3]}, x);
  return make_geometry(op, shape, kernel, conv, int64_t(phi::SizeOf(x.dtype())));
}

Tensors depthwise_op(const paddle::Tensor& input, const paddle::Tensor& kernel, int stride,
                     const std::vector<int>& padding, int dilation, const std::string& isa, bool, bool) {
  const Geometry g = check_depthwise("pimm_depthwise_conv2d", input, kernel, {stride, dilation, padding}, isa);
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel);
  paddle::Tensor out = paddle::empty(g.output_shape(), x.dtype(), x.place());
  with_type(x, [&](auto type) { depthwise<decltype(type)>(g, isa, x, weight, out); });
  return {out};
}

Tensors depthwise_grad_op(const paddle::Tensor& input, const paddle::Tensor& kernel, const paddle::Tensor& grad,
                          int stride, const std::vector<int>& padding, int dilation, const std::string& isa,
                          bool want_x, bool want_weight) {
  const char* const op = "pimm_depthwise_conv2d_grad";
  const Geometry g = check_depthwise(op, input, kernel, {stride, dilation, padding}, isa);
  check_like(op, "OutGradient", grad, g.output_shape(), input);
  const paddle::Tensor x = contiguous(input), weight = contiguous(kernel), out_grad = contiguous(grad);
  // Paddle requires memory for every output, wanted or not.
  const std::vector<int64_t> unwanted = {1};
  paddle::Tensor x_grad = paddle::empty(want_x ? x.shape() : unwanted, x.dtype(), x.place());
  paddle::Tensor weight_grad = paddle::empty(want_weight ? weight.shape() : unwanted, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    depthwise_backward<decltype(type)>(g, isa, x, weight, out_grad, want_x ? &x_grad : nullptr,
                                       want_weight ? &weight_grad : nullptr);
  });
  return {x_grad, weight_grad};
}

// The backward operator's own gradients: each gradient is linear in two of the three tensors. Paddle gives an empty
// tensor for a gradient that was not used.
Tensors depthwise_second_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& grad,
                            const paddle::Tensor& x_second, const paddle::Tensor& weight_second, int stride,
                            const std::vector<int>& padding, int dilation, const std::string& isa, bool want_x,
                            bool want_weight) {
  want_x = want_x && x_second.initialized(), want_weight = want_weight && weight_second.initialized();
  Tensors gradients = depthwise_grad_op(want_x ? x_second : x, want_weight ? weight_second : weight, grad, stride,
                                        padding, dilation, isa, want_weight, want_x);
  if (!want_weight) gradients[0] = paddle::experimental::zeros_like(x);
  if (!want_x) gradients[1] = paddle::experimental::zeros_like(weight);
  paddle::Tensor out = paddle::experimental::zeros_like(grad);
  if (want_x) out = out + depthwise_op(x_second, weight, stride, padding, dilation, isa, true, true)[0];
  if (want_weight) out = out + depthwise_op(x, weight_second, stride, padding, dilation, isa, true, true)[0];
  return {gradients[0], gradients[1], out};
}
