// Multiplication of every map of images [N, C, H, W] by a factor [N, C, 1, 1] on the CPU. The backward operator makes
// both gradients while it reads the maps once.

constexpr int64_t SCALE_ELEMENTS = 8192;  // of a task, at least

// Calls run(map, offset of its first element) for every map.
template <class Run>
void for_each_map(const std::vector<int64_t>& shape, Run run) {
  const int64_t maps = shape[0] * shape[1], plane = shape[2] * shape[3], size = maps * plane;
  const int64_t step = div_up(SCALE_ELEMENTS, plane), tasks = div_up(maps, step);
  for_each_task(tasks, worthwhile_threads(tasks, size, 32768), [&](int64_t task, int) {
    for (int64_t map = task * step; map < std::min(maps, (task + 1) * step); ++map) run(map, map * plane);
  });
}

void check_scale_channels(const char* op, const paddle::Tensor& x, const paddle::Tensor& factors) {
  check_images(op, x);
  check_like(op, "Factors", factors, {x.shape()[0], x.shape()[1], 1, 1}, x);
}

Tensors scale_channels_op(const paddle::Tensor& input, const paddle::Tensor& factors, const std::string& isa) {
  const char* const op = "pimm_scale_channels";
  check_instruction_set(op, isa);
  check_scale_channels(op, input, factors);
  const paddle::Tensor x = contiguous(input), scales = contiguous(factors);
  paddle::Tensor out = paddle::empty_like(x);
  const int64_t plane = x.shape()[2] * x.shape()[3];
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto run = kernels<T>(isa).scale_map;
    const T *const from = x.data<T>(), *const factor = scales.data<T>();
    T* const to = out.data<T>();
    for_each_map(x.shape(), [&](int64_t map, int64_t offset) { run(from + offset, factor[map], plane, to + offset); });
  });
  return {out};
}

Tensors scale_channels_grad_op(const paddle::Tensor& input, const paddle::Tensor& factors, const paddle::Tensor& grad,
                               const std::string& isa) {
  const char* const op = "pimm_scale_channels_grad";
  check_instruction_set(op, isa);
  check_scale_channels(op, input, factors);
  check_like(op, "OutGradient", grad, input.shape(), input);
  const paddle::Tensor x = contiguous(input), scales = contiguous(factors), out_grad = contiguous(grad);
  paddle::Tensor x_grad = paddle::empty_like(x), factors_grad = paddle::empty_like(scales);
  const int64_t plane = x.shape()[2] * x.shape()[3];
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto run = kernels<T>(isa).scale_map_backward;
    const T *const from = x.data<T>(), *const factor = scales.data<T>(), *const gradient = out_grad.data<T>();
    T *const to = x_grad.data<T>(), *const sums = factors_grad.data<T>();
    for_each_map(x.shape(), [&](int64_t map, int64_t offset) {
      sums[map] = run(from + offset, gradient + offset, factor[map], plane, to + offset);
    });
  });
  return {x_grad, factors_grad};
}

// The backward operator's own gradients. Second derivatives are rare: Paddle's operators compute them.
Tensors scale_channels_second_op(const paddle::Tensor& input, const paddle::Tensor& factors,
                                 const paddle::Tensor& grad, const paddle::Tensor& x_second,
                                 const paddle::Tensor& factors_second) {
  const char* const op = "pimm_scale_channels_grad_grad";
  check_scale_channels(op, input, factors);
  check_like(op, "OutGradient", grad, input.shape(), input);
  const paddle::Tensor x = contiguous(input), scales = contiguous(factors), g = contiguous(grad);
  Tensors gradients = {paddle::experimental::zeros_like(x), paddle::experimental::zeros_like(scales),
                       paddle::experimental::zeros_like(g)};
  if (x_second.initialized()) {
    check_like(op, "XSecond", x_second, input.shape(), input);
    const paddle::Tensor second = contiguous(x_second);
    gradients[1] = paddle::experimental::sum(g * second, {2, 3}, x.dtype(), true);
    gradients[2] = gradients[2] + second * scales;
  }
  if (factors_second.initialized()) {
    check_like(op, "FactorsSecond", factors_second, factors.shape(), input);
    const paddle::Tensor second = contiguous(factors_second);
    gradients[0] = g * second;
    gradients[2] = gradients[2] + x * second;
  }
  return gradients;
}

// The mean of every map, [N, C, 1, 1].
Tensors map_means_op(const paddle::Tensor& input, const std::string& isa) {
  const char* const op = "pimm_map_means";
  check_instruction_set(op, isa);
  check_images(op, input);
  const paddle::Tensor x = contiguous(input);
  const std::vector<int64_t> shape = x.shape();
  const int64_t plane = shape[2] * shape[3];
  paddle::Tensor means = paddle::empty({shape[0], shape[1], 1, 1}, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto run = kernels<T>(isa).sum_map;
    const T* const from = x.data<T>();
    T* const to = means.data<T>();
    for_each_map(shape, [&](int64_t map, int64_t offset) { to[map] = run(from + offset, plane) / T(plane); });
  });
  return {means};
}

Tensors map_means_grad_op(const paddle::Tensor& x, const paddle::Tensor& grad, const std::string&) {
  const char* const op = "pimm_map_means_grad";
  check_images(op, x);
  check_like(op, "OutGradient", grad, {x.shape()[0], x.shape()[1], 1, 1}, x);
  const paddle::Tensor slopes = contiguous(grad);
  paddle::Tensor x_grad = paddle::empty_like(x);
  const int64_t plane = x.shape()[2] * x.shape()[3];
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const T* const slope = slopes.data<T>();
    T* const to = x_grad.data<T>();
    for_each_map(x.shape(), [&](int64_t map, int64_t offset) {
      std::fill_n(to + offset, plane, slope[map] / T(plane));
    });
  });
  return {x_grad};
}

// The gradient of X depends on that of Out alone. Paddle waits for a gradient of X all the same.
Tensors map_means_second_op(const paddle::Tensor& x, const paddle::Tensor&, const paddle::Tensor& x_second,
                            const std::string& isa) {
  const char* const op = "pimm_map_means_grad_grad";
  check_images(op, x);
  check_like(op, "XSecond", x_second, x.shape(), x);
  return {paddle::experimental::zeros_like(x), map_means_op(x_second, isa)[0]};
}
