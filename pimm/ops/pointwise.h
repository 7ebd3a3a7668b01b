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

  // The channels of all images in one matrix, [C, N * H * W]. Paddle's transposition copies number by number.
  static paddle::Tensor rows(const paddle::Tensor& images) {
    const std::vector<int64_t> size = images.shape();
    const int64_t count = size[0], channels = size[1], plane = size[2] * size[3];
    const paddle::Tensor x = contiguous(images);
    paddle::Tensor out = paddle::empty({channels, count * plane}, x.dtype(), x.place());
    with_type(x, [&](auto type) {
      using T = decltype(type);
      const T* const from = x.data<T>();
      T* const to = out.data<T>();
      for_each_task(channels, worthwhile_threads(channels, x.numel(), 65536), [&](int64_t channel, int) {
        for (int64_t image = 0; image < count; ++image) {
          const T* const map = from + (image * channels + channel) * plane;
          std::copy_n(map, plane, to + (channel * count + image) * plane);
        }
      });
    });
    return out;
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

// 1x1 convolution of images of one pixel, with a bias: for gates and heads, as one operator where Paddle needs six.
struct Dense {
  int64_t images, ins, outs;

  Dense(const char* op, const paddle::Tensor& x, const paddle::Tensor& weight) {
    check_images(op, x);
    check_tensor(op, "Weight", weight);
    const std::vector<int64_t> shape = x.shape(), kernel = weight.shape();
    if (kernel.size() != 4 || kernel[0] < 1) fail(op, "Weight has shape ", text_of(kernel), " and must have [O, C, 1, 1]");
    images = shape[0], ins = shape[1], outs = kernel[0];
    check_like(op, "X", x, {images, ins, 1, 1}, x);
    check_like(op, "Weight", weight, {outs, ins, 1, 1}, x);
  }

  static paddle::Tensor matrix(const paddle::Tensor& tensor) {
    return paddle::experimental::view_shape(contiguous(tensor), {tensor.shape()[0], tensor.shape()[1]});
  }

  static paddle::Tensor wide(const paddle::Tensor& matrix) {
    return paddle::experimental::view_shape(matrix, {matrix.shape()[0], matrix.shape()[1], 1, 1});
  }

  // x times weight, transposed
  static paddle::Tensor multiply(const paddle::Tensor& x, const paddle::Tensor& weight) {
    return product(matrix(x), matrix(weight), false, true);
  }

  static paddle::Tensor x_gradient(const paddle::Tensor& weight, const paddle::Tensor& grad) {
    return wide(product(matrix(grad), matrix(weight), false, false));
  }

  static paddle::Tensor weight_gradient(const paddle::Tensor& x, const paddle::Tensor& grad) {
    return wide(product(matrix(grad), matrix(x), true, false));
  }

  void add(const paddle::Tensor& bias, paddle::Tensor& out) const {
    const paddle::Tensor addend = contiguous(bias);
    with_type(out, [&](auto type) {
      using T = decltype(type);
      const T* const from = addend.data<T>();
      T* to = out.data<T>();
      for (int64_t image = 0; image < images; ++image, to += outs) {
        for (int64_t i = 0; i < outs; ++i) to[i] += from[i];
      }
    });
  }

  paddle::Tensor bias_gradient(const paddle::Tensor& gradient) const {
    const paddle::Tensor grad = contiguous(gradient);
    paddle::Tensor out = paddle::experimental::full({outs}, 0, grad.dtype(), grad.place());
    with_type(out, [&](auto type) {
      using T = decltype(type);
      const T* from = grad.data<T>();
      T* const to = out.data<T>();
      for (int64_t image = 0; image < images; ++image, from += outs) {
        for (int64_t i = 0; i < outs; ++i) to[i] += from[i];
      }
    });
    return out;
  }
};

Tensors dense_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& bias) {
  const char* const op = "pimm_dense";
  const Dense dense(op, x, weight);
  check_like(op, "Bias", bias, {dense.outs}, x);
  paddle::Tensor out = dense.multiply(x, weight);
  dense.add(bias, out);
  return {dense.wide(out)};
}

Tensors dense_grad_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& grad) {
  const char* const op = "pimm_dense_grad";
  const Dense dense(op, x, weight);
  check_like(op, "OutGradient", grad, {dense.images, dense.outs, 1, 1}, x);
  return {dense.x_gradient(weight, grad), dense.weight_gradient(x, grad), dense.bias_gradient(grad)};
}

// The backward operator's own gradients, as in depthwise.h.
Tensors dense_second_op(const paddle::Tensor& x, const paddle::Tensor& weight, const paddle::Tensor& grad,
                        const paddle::Tensor& x_second, const paddle::Tensor& weight_second,
                        const paddle::Tensor& bias_second) {
  const char* const op = "pimm_dense_grad_grad";
  const Dense dense(op, x, weight);
  check_like(op, "OutGradient", grad, {dense.images, dense.outs, 1, 1}, x);
  Tensors gradients = {paddle::experimental::zeros_like(x), paddle::experimental::zeros_like(weight),
                       paddle::experimental::zeros_like(grad)};
  if (x_second.initialized()) {
    check_like(op, "XSecond", x_second, x.shape(), x);
    gradients[1] = dense.weight_gradient(x_second, grad);
    gradients[2] = gradients[2] + dense.wide(dense.multiply(x_second, weight));
  }
  if (weight_second.initialized()) {
    check_like(op, "WeightSecond", weight_second, weight.shape(), x);
    gradients[0] = dense.x_gradient(weight_second, grad);
    gradients[2] = gradients[2] + dense.wide(dense.multiply(x, weight_second));
  }
  if (bias_second.initialized()) {
    check_like(op, "BiasSecond", bias_second, {dense.outs}, x);
    dense.add(bias_second, gradients[2]);
  }
  return gradients;
}
