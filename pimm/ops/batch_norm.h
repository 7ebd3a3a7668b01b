// Training-mode batch normalisation on the CPU (NCHW), and swish after it if asked for: forward and backward.
//
// An image of [N, C, H, W] is treated as a row of C * H * W columns. A task takes whole channels of up to COLUMNS
// columns together, and keeps a sum for each column while it reads the images, so that all vectors are full even for
// 2x2 maps; larger maps are folded to COLUMNS. The task then normalises what it has just read, which lies in the cache.
// If a task would be too large for that, the images are split too, and all sums are made before anything is normalised.
// The split depends on the shape alone, and sums are added in one order, so the number of threads changes no bit.

constexpr int COLUMNS = 256;
constexpr int ROWS = 4;  // that are summed up together, to load and store the sums once
constexpr int64_t TASK_ELEMENTS = 1 << 18;  // a mebibyte of float32, about a level-2 cache

struct NormTask {
  int64_t channel, channels, image, images, group;  // group: index among the splits of the images
};

struct NormLayout {
  int64_t images, channels, plane;
  int64_t width;           // columns of one channel
  int64_t task_channels, task_images;
  int64_t blocks, groups;  // number of tasks side by side, and of splits of the images

  explicit NormLayout(const std::vector<int64_t>& shape)
      : images(shape[0]), channels(shape[1]), plane(shape[2] * shape[3]) {
    width = std::min<int64_t>(plane, COLUMNS);
    task_channels = std::max<int64_t>(1, std::min(channels, COLUMNS / plane));
    task_images = std::max<int64_t>(1, std::min(images, TASK_ELEMENTS / (task_channels * plane)));
    blocks = div_up(channels, task_channels), groups = div_up(images, task_images);
  }

  int64_t count() const { return images * plane; }  // of the values of a channel
  int64_t size() const { return channels * count(); }

  NormTask task(int64_t index) const {
    const int64_t channel = index % blocks * task_channels, group = index / blocks, image = group * task_images;
    return {channel, std::min(task_channels, channels - channel), image, std::min(task_images, images - image), group};
  }

  int64_t distance() const { return channels * plane; }  // of the same column in two images

  // Calls rows(offset in the tensor, number of rows, columns) for all of a task: up to ROWS rows, one of each image.
  template <class Rows>
  void for_each_rows(const NormTask& task, Rows rows) const {
    const int64_t columns = task.channels * plane, end = task.image + task.images;
    for (int64_t image = task.image; image < end; image += ROWS) {
      const int64_t begin = (image * channels + task.channel) * plane;
      const int count = int(std::min<int64_t>(ROWS, end - image));
      for (int64_t i = 0; i < columns; i += COLUMNS) {
        rows(begin + i, count, int(std::min<int64_t>(columns - i, COLUMNS)));
      }
    }
  }

  // Calls row(offset in the tensor, columns) for all of a task.
  template <class Row>
  void for_each_row(const NormTask& task, Row row) const {
    for_each_rows(task, [&](int64_t offset, int rows, int columns) {
      for (int i = 0; i < rows; ++i) row(offset + i * distance(), columns);
    });
  }

  // Sets all columns of each channel of a task to value(channel).
  template <class T, class Value>
  void spread(const NormTask& task, T* columns, Value value) const {
    for (int64_t c = 0; c < task.channels; ++c) std::fill_n(columns + c * width, width, T(value(task.channel + c)));
  }
};

struct Sums {
  double first = 0, second = 0;
};

// The two sums of every channel for each group of images, of what add(offset, rows, columns, first, second) adds by
// column.
class NormSums {
 public:
  explicit NormSums(const NormLayout& layout)
      : layout_(layout), sums_(zeros<Sums>("pimm_batch_norm", layout.groups * layout.channels)) {}

  template <class Add>
  void make(const NormTask& task, Add add) {
    double first[COLUMNS] = {}, second[COLUMNS] = {};
    layout_.for_each_rows(task, [&](int64_t offset, int rows, int columns) {
      add(offset, rows, columns, first, second);
    });
    for (int64_t c = 0; c < task.channels; ++c) {
      Sums& sums = sums_[task.group * layout_.channels + task.channel + c];
      for (int64_t i = c * layout_.width; i < (c + 1) * layout_.width; ++i) {
        sums.first += first[i], sums.second += second[i];
      }
    }
  }

  Sums total(int64_t channel) const {
    Sums total;
    for (int64_t group = 0; group < layout_.groups; ++group) {
      const Sums& part = sums_[group * layout_.channels + channel];
      total.first += part.first, total.second += part.second;
    }
    return total;
  }

 private:
  const NormLayout& layout_;
  std::vector<Sums> sums_;
};

// Calls reduce(task) for every task, and apply(task) after reduce has seen all images of its channels. Where there are
// channels enough for all threads, a thread does all tasks of its channels, which then lie in a cache, if not in the
// nearest one.
template <class Reduce, class Apply>
void reduce_and_apply(const NormLayout& layout, Reduce reduce, Apply apply) {
  const int64_t tasks = layout.blocks * layout.groups;
  const int threads = worthwhile_threads(tasks, layout.size(), 32768);
  if (layout.groups == 1 || layout.blocks >= 4 * threads) {
    for_each_task(layout.blocks, threads, [&](int64_t block, int) {
      for (int64_t index = block; index < tasks; index += layout.blocks) reduce(layout.task(index));
      for (int64_t index = block; index < tasks; index += layout.blocks) apply(layout.task(index));
    });
  } else {
    for_each_task(tasks, threads, [&](int64_t index, int) { reduce(layout.task(index)); });
    for_each_task(tasks, threads, [&](int64_t index, int) { apply(layout.task(index)); });
  }
}

// What normalise needs for each column of a task.
template <class T>
struct NormColumns {
  T means[COLUMNS], scales[COLUMNS], shifts[COLUMNS];

  void set(int64_t first, int64_t count, T mean, T scale, T shift) {
    std::fill_n(means + first, count, mean), std::fill_n(scales + first, count, scale);
    std::fill_n(shifts + first, count, shift);
  }
};

template <class T>
void batch_norm(const NormLayout& layout, const std::string& isa, double eps, bool then_swish, const T* x,
                const T* weight, const T* bias, T* out, T* mean, T* variance) {
  const Kernels<T> kernel = kernels<T>(isa);
  const double count = double(layout.count());
  NormSums sums(layout);
  // Values are measured from each channel's first one, since the squares of a large mean would hide the variance.
  const auto origin = [&](int64_t channel) { return double(x[channel * layout.plane]); };
  const auto reduce = [&](const NormTask& task) {
    double origins[COLUMNS];
    layout.spread(task, origins, origin);
    sums.make(task, [&](int64_t offset, int rows, int columns, double* sum, double* square) {
      kernel.add_moments(x + offset, origins, rows, layout.distance(), columns, sum, square);
    });
  };
  const auto apply = [&](const NormTask& task) {
    NormColumns<T> norm;
    for (int64_t c = 0; c < task.channels; ++c) {
      const int64_t channel = task.channel + c;
      const Sums total = sums.total(channel);
      const double offset = total.first / count, exact_mean = origin(channel) + offset;
      const double exact_variance = std::max(total.second / count - offset * offset, 0.0);
      const double scale = weight[channel] / std::sqrt(exact_variance + eps);
      const T rounded = T(exact_mean);
      if (task.group == 0) mean[channel] = rounded, variance[channel] = T(exact_variance);
      // The shift corrects the rounding of the mean.
      const T shift = T(bias[channel] - (exact_mean - rounded) * scale);
      norm.set(c * layout.width, layout.width, rounded, T(scale), shift);
    }
    layout.for_each_row(task, [&](int64_t offset, int columns) {
      const auto finish = then_swish ? kernel.normalise_swish : kernel.normalise;
      finish(x + offset, norm.means, norm.scales, norm.shifts, columns, out + offset);
    });
  };
  reduce_and_apply(layout, reduce, apply);
}

// The tensors of the backward operator.
template <class T>
struct NormGradients {
  const T *x, *weight, *bias, *mean, *variance, *out;
  T *x_grad, *weight_grad, *bias_grad;
};

template <class T>
void batch_norm_backward(const NormLayout& layout, const std::string& isa, double eps, bool then_swish,
                         const NormGradients<T>& g) {
  const Kernels<T> kernel = kernels<T>(isa);
  const double count = double(layout.count());
  const auto scale_of = [&](int64_t channel) { return g.weight[channel] / std::sqrt(g.variance[channel] + eps); };
  const T* const out_grad = then_swish ? g.x_grad : g.out;  // the gradient before swish stays where x_grad will be
  NormSums sums(layout);
  const auto reduce = [&](const NormTask& task) {
    double means[COLUMNS];
    NormColumns<T> norm;
    layout.spread(task, means, [&](int64_t channel) { return g.mean[channel]; });
    for (int64_t c = 0; then_swish && c < task.channels; ++c) {
      const int64_t channel = task.channel + c;
      norm.set(c * layout.width, layout.width, g.mean[channel], T(scale_of(channel)), g.bias[channel]);
    }
    sums.make(task, [&](int64_t offset, int rows, int columns, double* sum, double* product) {
      for (int64_t i = offset; then_swish && i < offset + rows * layout.distance(); i += layout.distance()) {
        kernel.normalise_swish_backward(g.x + i, norm.means, norm.scales, norm.shifts, g.out + i, columns,
                                        g.x_grad + i);
      }
      kernel.add_products(g.x + offset, out_grad + offset, means, rows, layout.distance(), columns, sum, product);
    });
  };
  const auto apply = [&](const NormTask& task) {
    NormColumns<T> norm;
    T grad_scales[COLUMNS];
    for (int64_t c = 0; c < task.channels; ++c) {
      const int64_t channel = task.channel + c;
      const Sums total = sums.total(channel);
      const double inverse = 1 / std::sqrt(g.variance[channel] + eps), scale = g.weight[channel] * inverse;
      if (task.group == 0) g.bias_grad[channel] = T(total.first), g.weight_grad[channel] = T(total.second * inverse);
      std::fill_n(grad_scales + c * layout.width, layout.width, T(scale));
      norm.set(c * layout.width, layout.width, g.mean[channel], T(-scale * inverse * inverse * total.second / count),
               T(-scale * total.first / count));
    }
    layout.for_each_row(task, [&](int64_t offset, int columns) {
      kernel.normalise_backward(g.x + offset, out_grad + offset, norm.means, grad_scales, norm.scales, norm.shifts,
                                columns, g.x_grad + offset);
    });
  };
  reduce_and_apply(layout, reduce, apply);
}

Tensors batch_norm_op(const paddle::Tensor& input, const paddle::Tensor& weight, const paddle::Tensor& bias, double eps,
                      bool then_swish, const std::string& isa) {
  const char* const op = "pimm_batch_norm";
  check_instruction_set(op, isa);
  check_images(op, input);
  check_like(op, "Weight", weight, {input.shape()[1]}, input);
  check_like(op, "Bias", bias, {input.shape()[1]}, input);
  const paddle::Tensor x = contiguous(input), scale = contiguous(weight), shift = contiguous(bias);
  paddle::Tensor out = paddle::empty_like(x), mean = paddle::empty_like(scale), variance = paddle::empty_like(scale);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    batch_norm<T>(NormLayout(x.shape()), isa, eps, then_swish, x.data<T>(), scale.data<T>(), shift.data<T>(),
                  out.data<T>(), mean.data<T>(), variance.data<T>());
  });
  return {out, mean, variance};
}

Tensors batch_norm_grad_op(const paddle::Tensor& input, const paddle::Tensor& weight, const paddle::Tensor& bias,
                           const paddle::Tensor& mean, const paddle::Tensor& variance, const paddle::Tensor& grad,
                           double eps, bool then_swish, const std::string& isa) {
  const char* const op = "pimm_batch_norm_grad";
  check_instruction_set(op, isa);
  check_images(op, input);
  const std::vector<int64_t> channels = {input.shape()[1]};
  check_like(op, "Weight", weight, channels, input);
  check_like(op, "Bias", bias, channels, input);
  check_like(op, "Mean", mean, channels, input);
  check_like(op, "Variance", variance, channels, input);
  check_like(op, "OutGradient", grad, input.shape(), input);
  const paddle::Tensor x = contiguous(input), scale = contiguous(weight), shift = contiguous(bias);
  const paddle::Tensor out_grad = contiguous(grad), means = contiguous(mean), variances = contiguous(variance);
  paddle::Tensor x_grad = paddle::empty_like(x);
  paddle::Tensor weight_grad = paddle::empty_like(scale), bias_grad = paddle::empty_like(scale);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    batch_norm_backward<T>(NormLayout(x.shape()), isa, eps, then_swish,
                           {x.data<T>(), scale.data<T>(), shift.data<T>(), means.data<T>(), variances.data<T>(),
                            out_grad.data<T>(), x_grad.data<T>(), weight_grad.data<T>(), bias_grad.data<T>()});
  });
  return {x_grad, weight_grad, bias_grad};
}

// The backward operator's own gradients. Second derivatives are rare: Paddle's operators compute them.
Tensors batch_norm_second_op(const paddle::Tensor& input, const paddle::Tensor& weight, const paddle::Tensor& bias,
                             const paddle::Tensor& grad, const paddle::Tensor& x_second,
                             const paddle::Tensor& weight_second, const paddle::Tensor& bias_second, double eps,
                             bool then_swish) {
  const char* const op = "pimm_batch_norm_grad_grad";
  check_images(op, input);
  const std::vector<int64_t> shape = input.shape(), wide = {1, shape[1], 1, 1};
  check_like(op, "OutGradient", grad, shape, input);
  const auto or_zeros = [](const paddle::Tensor& tensor, const paddle::Tensor& like) {
    return tensor.initialized() ? tensor : paddle::experimental::zeros_like(like);  // of a gradient that was not used
  };
  const auto per_channel = [&](const char* name, const paddle::Tensor& tensor) {
    check_like(op, name, tensor, {shape[1]}, input);
    return paddle::experimental::reshape(contiguous(tensor), wide);
  };
  const auto mean = [](const paddle::Tensor& tensor) { return paddle::experimental::mean(tensor, {0, 2, 3}, true); };
  const auto channel_sum = [&](const paddle::Tensor& tensor) {
    const double count = double(shape[0] * shape[2] * shape[3]);
    return paddle::experimental::reshape(mean(tensor) * paddle::Scalar(count), {shape[1]});
  };

  const paddle::Tensor w = per_channel("Weight", weight), b = per_channel("Bias", bias);
  const paddle::Tensor x = contiguous(input), out_grad = contiguous(grad), a = contiguous(or_zeros(x_second, input));
  check_like(op, "XSecond", a, shape, input);
  const paddle::Tensor a_weight = per_channel("WeightSecond", or_zeros(weight_second, weight));
  const paddle::Tensor a_bias = per_channel("BiasSecond", or_zeros(bias_second, weight));
  const paddle::Tensor centred = x - mean(x);
  const paddle::Tensor inverse = paddle::experimental::rsqrt(mean(centred * centred) + paddle::Scalar(eps));
  const paddle::Tensor normal = centred * inverse;  // y = w * normal + bias, and out = y or swish(y)
  const SwishDerivatives swish = then_swish ? swish_derivatives(w * normal + b) : SwishDerivatives();
  const paddle::Tensor g = then_swish ? out_grad * swish.slope : out_grad;  // for y
  const paddle::Tensor g_normal = mean(g * normal), a_normal = mean(a * normal);

  // Gradient for g: x_gradient = w * inverse * (g - mean(g) - normal * g_normal), and the sums of g * normal and of g.
  paddle::Tensor g_grad = w * inverse * (a - mean(a) - normal * a_normal) + a_weight * normal + a_bias;
  // Gradient for w, and for x through the inverse deviation: sum(a * x_gradient) = w * inverse * count * product.
  const paddle::Tensor product = mean(a * g) - mean(a) * mean(g) - a_normal * g_normal;
  paddle::Tensor n_grad = a_weight * g - w * inverse * (a * g_normal + g * a_normal);
  paddle::Tensor w_grad = channel_sum(inverse * product);
  paddle::Tensor b_grad = paddle::experimental::zeros_like(w_grad);
  if (then_swish) {  // g depends on y
    const paddle::Tensor y_grad = g_grad * out_grad * swish.curve;
    w_grad = w_grad + channel_sum(y_grad * normal), b_grad = channel_sum(y_grad), n_grad = n_grad + w * y_grad;
    g_grad = g_grad * swish.slope;
  }
  // Gradient for x through `normal`, which is a batch norm without weight and bias.
  const paddle::Tensor through_normal = inverse * (n_grad - mean(n_grad) - normal * mean(n_grad * normal));
  const paddle::Tensor x_grad = through_normal - w * product * inverse * inverse * normal;
  // Here, mean and variance are functions of x. Paddle waits for gradients of both all the same.
  const paddle::Tensor none = paddle::experimental::zeros_like(w_grad);
  return {x_grad, w_grad, b_grad, none, none, g_grad};
}
