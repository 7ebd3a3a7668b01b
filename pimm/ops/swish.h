// Swish on the CPU, x * sigmoid(x), and its gradient, which needs x alone.

constexpr int64_t SWISH_CHUNK = 8192;

// Calls run(offset, count) for chunks of a tensor.
template <class Run>
void for_each_chunk(int64_t size, Run run) {
  const int64_t tasks = div_up(size, SWISH_CHUNK);
  for_each_task(tasks, worthwhile_threads(tasks, size, 16384), [&](int64_t task, int) {
    const int64_t offset = task * SWISH_CHUNK;
    run(offset, int(std::min(SWISH_CHUNK, size - offset)));
  });
}

Tensors swish_op(const paddle::Tensor& input, const std::string& isa) {
  check_instruction_set("pimm_swish", isa);
  check_tensor("pimm_swish", "X", input);
  const paddle::Tensor x = contiguous(input);
  paddle::Tensor out = paddle::empty_like(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const T* const from = x.data<T>();
    T* const to = out.data<T>();
    const auto run = kernels<T>(isa).swish;
    for_each_chunk(x.numel(), [&](int64_t offset, int count) { run(from + offset, count, to + offset); });
  });
  return {out};
}

Tensors swish_grad_op(const paddle::Tensor& input, const paddle::Tensor& grad, const std::string& isa) {
  const char* const op = "pimm_swish_grad";
  check_instruction_set(op, isa);
  check_tensor(op, "X", input);
  check_like(op, "OutGradient", grad, input.shape(), input);
  const paddle::Tensor x = contiguous(input), out_grad = contiguous(grad);
  paddle::Tensor x_grad = paddle::empty_like(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const T *const from = x.data<T>(), *const gradient = out_grad.data<T>();
    T* const to = x_grad.data<T>();
    const auto run = kernels<T>(isa).swish_backward;
    for_each_chunk(x.numel(), [&](int64_t offset, int count) {
      run(from + offset, gradient + offset, count, to + offset);
    });
  });
  return {x_grad};
}

struct SwishDerivatives {
  paddle::Tensor slope, curve;  // the first and the second derivative
};

// Second derivatives are rare: Paddle's operators compute them.
SwishDerivatives swish_derivatives(const paddle::Tensor& x) {
  const paddle::Tensor one = paddle::experimental::full_like(x, 1), sigmoid = paddle::experimental::sigmoid(x);
  const paddle::Tensor rest = one - sigmoid;  // sigmoid of -x
  return {sigmoid * (one + x * rest), sigmoid * rest * (one + one + x * (rest - sigmoid))};
}

// The backward operator's own gradients.
Tensors swish_second_op(const paddle::Tensor& input, const paddle::Tensor& grad, const paddle::Tensor& x_second) {
  const char* const op = "pimm_swish_grad_grad";
  check_tensor(op, "X", input);
  check_like(op, "OutGradient", grad, input.shape(), input);
  check_like(op, "XSecond", x_second, input.shape(), input);
  const SwishDerivatives swish = swish_derivatives(contiguous(input));
  const paddle::Tensor second = contiguous(x_second);
  return {second * contiguous(grad) * swish.curve, second * swish.slope};
}
