// 1x1 convolution on the CPU as one product of matrices for each image, which Paddle's own product computes. It is an
// operator since the second derivatives of Paddle's product of one matrix with many end the process.

paddle::Tensor product(const paddle::Tensor& a, const paddle::Tensor& b, bool transpose_a, bool transpose_b) {
  return paddle::experimental::matmul(a, b, transpose_a, transpose_b);
}

constexpr int64_t kFewPixels = 100;  // as measured

struct Pointwise {
  std::vector<int64_t> shape, kernel, out;  // shapes of X, of Weight and of Out

  Pointwise(const char* op, const paddle::Tensor& x, const paddle::Tensor& weight) {
    check_images(op, x);
    check_tensor(op, "Weight", weight);
    shape = x.shape(), kernel = weight.shape();
    if (kernel.size() != 4) fail(op, "Weight has shape ", text_of(kernel), " and must have [O, C, 1, 1]");
    check_like(op, "Weight", weight, {kernel[0], shape[1], 1, 1}, x);
    out = {shape[0], kernel[0], shape[2], shape[3]};
  }

  paddle::Tensor matrix(const paddle::Tensor& weight) const {
    return paddle::experimental::view_shape(contiguous(weight), {kernel[0], kernel[1]});
  }

  static paddle::Tensor matrices(const paddle::Tensor& images) {
    const std::vector<int64_t> size = images.shape();
    return paddle::experimental::view_shape(contiguous(images), {size[0], size[1], size[2] * size[3]});
  }

  paddle::Tensor convolve(const paddle::Tensor& x, const paddle::Tensor& weight) const {
    return paddle::experimental::view_shape(product(matrix(weight), matrices(x), false, false), out);
  }

  paddle::Tensor x_gradient(const paddle::Tensor& weight, const paddle::Tensor& grad) const {
    return paddle::experimental::view_shape(product(matrix(weight), matrices(grad), true, false), shape);
  }

  // The channels of all images in one matrix, [C, N * H * W].
  static paddle::Tensor rows(const paddle::Tensor& images) {
    const std::vector<int64_t> size = images.shape();
    const paddle::Tensor first = contiguous(paddle::experimental::transpose(matrices(images), {1, 0, 2}));
    return paddle::experimental::view_shape(first, {size[1], size[0] * size[2] * size[3]});
  }

  // One product for all images of few pixels, whose products alone are too small to be fast.
  paddle::Tensor weight_gradient(const paddle::Tensor& x, const paddle::Tensor& grad) const {
    if (shape[2] * shape[3] <= kFewPixels) {
      return paddle::experimental::view_shape(product(rows(grad), rows(x), false, true), kernel);
    }
    const paddle::Tensor each = product(matrices(grad), matrices(x), false, true);  // [N, O, C]
    const paddle::Tensor list = paddle::experimental::view_shape(each, {shape[0], kernel[0] * kernel[1]});
    // A product with ones takes a fraction of the time of Paddle's sum
    const paddle::Tensor ones = paddle::experimental::full({1, shape[0]}, 1, x.dtype(), x.place());
    return paddle::experimental::view_shape(product(ones, list, false, false), kernel);
  }
};

Tensors pointwise_op(const paddle::Tensor& x, const paddle::Tensor& weight, bool, bool) {
  return {Pointwise("pimm_pointwise_conv2d", x, weight).convolve(x, weight)};
}

Tensors pointwise_grad_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& grad,
                          bool want_x, bool want_weight) {
  const char* const op = "pimm_pointwise_conv2d_grad";
  const Pointwise conv(op, x, weight);
  check_like(op, "OutGradient", grad, conv.out, x);
  const paddle::Tensor unwanted = paddle::empty({1}, x.dtype(), x.place());  // Paddle requires memory for every output
  return {want_x ? conv.x_gradient(weight, grad) : unwanted, want_weight ? conv.weight_gradient(x, grad) : unwanted};
}

// The backward operator's own gradients, as in depthwise.h.
Tensors pointwise_second_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& grad,
                            const paddle::Tensor& x_second, const paddle::Tensor& weight_second, bool want_x,
                            bool want_weight) {
  const char* const op = "pimm_pointwise_conv2d_grad_grad";
  const Pointwise conv(op, x, weight);
  check_like(op, "OutGradient", grad, conv.out, x);
  Tensors gradients = {paddle::experimental::zeros_like(x), paddle::experimental::zeros_like(weight),
                       paddle::experimental::zeros_like(grad)};
  if (want_x && x_second.initialized()) {
    check_like(op, "XSecond", x_second, conv.shape, x);
    gradients[1] = conv.weight_gradient(x_second, grad);
    gradients[2] = gradients[2] + conv.convolve(x_second, weight);
  }
  if (want_weight && weight_second.initialized()) {
    check_like(op, "WeightSecond", weight_second, conv.kernel, x);
    gradients[0] = conv.x_gradient(weight_second, grad);
    gradients[2] = gradients[2] + conv.convolve(x, weight_second);
  }
  return gradients;
}
