// Operators on images [N, H, W, C], for evaluation: convolutions, the mean of each channel, and a batch norm that
// normalises by the batch. They have no gradients. channels_last_geometry.h explains the convolutions.

using MaybeTensor = paddle::optional<paddle::Tensor>;

constexpr int64_t BLOCK_BYTES = 128 * 1024;  // of input pixels that a task of a plain convolution reads for each panel
constexpr int64_t WORTH = 400000;            // multiply-adds for which another thread is woken

// The vectors of a Finish, padded with zeros to whole panels.
template <class T>
struct Affine {
  std::vector<T> scale, shift;
  paddle::Tensor shortcut;
  Finish<T> finish;

  Affine(const char* op, int64_t outs, const MaybeTensor& added, Act act)
      : scale(zeros<T>(op, size_t(div_up(outs, PANEL) * PANEL))), shift(scale) {
    if (added) shortcut = contiguous(*added);
    finish = {scale.data(), shift.data(), added ? shortcut.data<T>() : nullptr, act};
  }

  Affine(const Affine&) = delete;

  void set(const paddle::Tensor& scales, const paddle::Tensor& shifts) {
    std::copy_n(contiguous(scales).data<T>(), scales.numel(), scale.begin());
    std::copy_n(contiguous(shifts).data<T>(), shifts.numel(), shift.begin());
  }
};

// Checks what convolutions share. `panels` is the expected shape of Weight.
void check_channels_last(const char* op, const Window& w, const paddle::Tensor& x, const paddle::Tensor& weight,
                         const std::vector<int64_t>& panels, const paddle::Tensor& scale, const paddle::Tensor& shift,
                         const MaybeTensor& shortcut, int64_t outs) {
  check_like(op, "Weight", weight, panels, x);
  check_like(op, "Scale", scale, {outs}, x);
  check_like(op, "Shift", shift, {outs}, x);
  if (shortcut) check_like(op, "Shortcut", *shortcut, {w.images, w.out_height, w.out_width, outs}, x);
}

// Calls run(first, count) for blocks of pixels.
template <class Run>
void for_each_block(int64_t pixels, int64_t block, int64_t work, Run run) {
  const int64_t tasks = div_up(pixels, block);
  for_each_task(tasks, worthwhile_threads(tasks, work, WORTH), [&](int64_t task, int) {
    run(task * block, std::min(block, pixels - task * block));
  });
}

// Returns how many pixels of a plain convolution are computed at a time.
template <class T>
int64_t pixels_of_block(const Window& w) {
  const int64_t fitting = BLOCK_BYTES / int64_t(sizeof(T)) / (w.channels * w.taps()) / ACCUMULATORS * ACCUMULATORS;
  return std::max<int64_t>(ACCUMULATORS, std::min<int64_t>(fitting, 384));
}

// Memory of a thread for blocks of pixels of up to `channels` channels.
template <class T>
struct Scratch {
  std::vector<T> nothing, copied;
  std::vector<const T*> from;

  explicit Scratch(int64_t channels) : nothing(channels) {}
};

template <class T>
void convolve_block(const Kernels<T>& kernel, const Window& w, const T* x, const T* panels, int64_t outs,
                    const Finish<T>& finish, const T* gate, int64_t first, int64_t count, Scratch<T>& scratch, T* out) {
  const int64_t depth = w.channels, plane = w.out_height * w.out_width;
  if (depth <= FEW_CHANNELS && !w.is_pointwise()) {
    const Window patches = w.of_patches();
    if (scratch.copied.size() < size_t(count * patches.channels)) scratch.copied.resize(count * patches.channels);
    kernel.copy_patches(w, x, first, count, scratch.copied.data());
    const T* const from = scratch.copied.data() - first * patches.channels;
    return convolve_block(kernel, patches, from, panels, outs, finish, gate, first, count, scratch, out);
  }
  const size_t pointers = size_t((count + ACCUMULATORS) * w.taps());
  if (scratch.from.size() < pointers) scratch.from.resize(pointers);
  if (gate) {
    if (scratch.copied.size() < size_t(count * depth)) scratch.copied.resize(count * depth);
    kernel.gate_pixels(x, gate, first, count, plane, depth, scratch.copied.data());
    x = scratch.copied.data() - first * depth;
  }
  kernel.find_pixels(w, x, scratch.nothing.data(), first, count, scratch.from.data());
  kernel.convolve_pixels(w, scratch.from.data(), panels, outs, finish, first, count, out);
}

template <class T>
void convolve(const Window& w, const std::string& isa, const T* x, const T* panels, int64_t outs,
              const Finish<T>& finish, const T* gate, T* out) {
  const Kernels<T> kernel = kernels<T>(isa);
  const int64_t work = w.out_pixels() * outs * w.channels * w.taps();
  for_each_block(w.out_pixels(), pixels_of_block<T>(w), work, [&](int64_t first, int64_t count) {
    Scratch<T> scratch(w.channels);
    convolve_block(kernel, w, x, panels, outs, finish, gate, first, count, scratch, out);
  });
}

Tensors channels_last_conv_op(const paddle::Tensor& input, const paddle::Tensor& weight, const paddle::Tensor& scale,
                              const paddle::Tensor& shift, const MaybeTensor& gate, const MaybeTensor& shortcut,
                              int outs, const std::vector<int>& kernel, const std::vector<int>& stride,
                              const std::vector<int>& padding, const std::vector<int>& dilation,
                              const std::string& act, const std::string& isa) {
  const char* const op = "pimm_channels_last_conv";
  check_instruction_set(op, isa);
  check_images(op, input);
  const Window w = make_window(op, input.shape(), kernel, stride, padding, dilation);
  if (outs < 1 || outs > MOST_OF_A_SIZE) fail(op, "there are ", outs, " output channels");
  check_channels_last(op, w, input, weight, {div_up(outs, PANEL), w.taps(), w.channels, PANEL}, scale, shift, shortcut,
                      outs);
  if (gate) {
    if (!w.is_pointwise()) fail(op, "a gate needs a kernel of one pixel, without stride or padding");
    check_like(op, "Gate", *gate, {w.images, w.channels}, input);
  }
  const paddle::Tensor x = contiguous(input), panels = contiguous(weight);
  const paddle::Tensor factors = gate ? contiguous(*gate) : paddle::Tensor();
  paddle::Tensor out = paddle::empty({w.images, w.out_height, w.out_width, outs}, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    Affine<T> affine(op, outs, shortcut, act_of(op, act));
    affine.set(scale, shift);
    convolve<T>(w, isa, x.data<T>(), panels.data<T>(), outs, affine.finish, gate ? factors.data<T>() : nullptr,
                out.data<T>());
  });
  return {out};
}

Tensors channels_last_depthwise_op(const paddle::Tensor& input, const paddle::Tensor& weight,
                                   const paddle::Tensor& scale, const paddle::Tensor& shift,
                                   const std::vector<int>& kernel, const std::vector<int>& stride,
                                   const std::vector<int>& padding, const std::vector<int>& dilation,
                                   const std::string& act, const std::string& isa) {
  const char* const op = "pimm_channels_last_depthwise";
  check_instruction_set(op, isa);
  check_images(op, input);
  const Window w = make_window(op, input.shape(), kernel, stride, padding, dilation);
  check_channels_last(op, w, input, weight, {w.taps(), w.channels}, scale, shift, {}, w.channels);
  const paddle::Tensor x = contiguous(input), taps = contiguous(weight);
  paddle::Tensor out = paddle::empty({w.images, w.out_height, w.out_width, w.channels}, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    Affine<T> affine(op, w.channels, {}, act_of(op, act));
    affine.set(scale, shift);
    const auto run = kernels<T>(isa).convolve_depthwise;
    const T *const from = x.data<T>(), *const filters = taps.data<T>();
    T* const to = out.data<T>();
    for_each_block(w.images, 1, out.numel() * w.taps(), [&](int64_t image, int64_t) {
      run(w, from, filters, affine.finish, image, to);
    });
  });
  return {out};
}

constexpr int64_t NORM_PIXELS = 512;  // that one task sums up: the split changes no bit with the number of threads

// Normalises by the batch: out = act((x - mean) / sqrt(variance + eps) * weight + bias + shortcut).
template <class T>
void normalise_batch(const std::string& isa, double eps, int64_t pixels, int channels, const T* x, const T* weight,
                     const T* bias, Affine<T>& affine, T* out, T* mean, T* variance) {
  const Kernels<T> kernel = kernels<T>(isa);
  const int64_t groups = div_up(pixels, NORM_PIXELS), work = 16 * pixels * channels;
  // Values are measured from each channel's first one, since the squares of a large mean would hide the variance.
  const std::vector<double> origin(x, x + channels);
  std::vector<double> sums = zeros<double>("pimm_channels_last_norm", size_t(groups * 2 * channels));
  for_each_block(pixels, NORM_PIXELS, work, [&](int64_t first, int64_t count) {
    double* const sum = sums.data() + first / NORM_PIXELS * 2 * channels;
    for (int64_t i = first; i < first + count; i += ROWS) {
      const int rows = int(std::min<int64_t>(ROWS, first + count - i));
      kernel.add_moments(x + i * channels, origin.data(), rows, channels, channels, sum, sum + channels);
    }
  });
  for (int c = 0; c < channels; ++c) {
    double sum = 0, square = 0;
    for (int64_t group = 0; group < groups; ++group) {
      sum += sums[group * 2 * channels + c], square += sums[(group * 2 + 1) * channels + c];
    }
    const double offset = sum / double(pixels), exact_mean = origin[c] + offset;
    const double exact_variance = std::max(square / double(pixels) - offset * offset, 0.0);
    const double scale = weight[c] / std::sqrt(exact_variance + eps);
    mean[c] = T(exact_mean), variance[c] = T(exact_variance);
    affine.scale[c] = T(scale), affine.shift[c] = T(bias[c] - (exact_mean - mean[c]) * scale);
  }
  for_each_block(pixels, NORM_PIXELS, work, [&](int64_t first, int64_t count) {
    kernel.normalise_pixels(x, mean, affine.finish, first, count, channels, out);
  });
}

Tensors channels_last_norm_op(const paddle::Tensor& input, const paddle::Tensor& weight, const paddle::Tensor& bias,
                              const MaybeTensor& shortcut, double eps, const std::string& act,
                              const std::string& isa) {
  const char* const op = "pimm_channels_last_norm";
  check_instruction_set(op, isa);
  check_images(op, input);
  const std::vector<int64_t> shape = input.shape();
  check_like(op, "Weight", weight, {shape[3]}, input);
  check_like(op, "Bias", bias, {shape[3]}, input);
  if (shortcut) check_like(op, "Shortcut", *shortcut, shape, input);
  const paddle::Tensor x = contiguous(input), scale = contiguous(weight), shift = contiguous(bias);
  paddle::Tensor out = paddle::empty_like(x), mean = paddle::empty_like(scale), variance = paddle::empty_like(scale);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    Affine<T> affine(op, shape[3], shortcut, act_of(op, act));
    normalise_batch<T>(isa, eps, x.numel() / shape[3], int(shape[3]), x.data<T>(), scale.data<T>(), shift.data<T>(),
                       affine, out.data<T>(), mean.data<T>(), variance.data<T>());
  });
  return {out, mean, variance};
}

Tensors channels_last_mean_op(const paddle::Tensor& input, const std::string& isa) {
  const char* const op = "pimm_channels_last_mean";
  check_instruction_set(op, isa);
  check_images(op, input);
  const std::vector<int64_t> shape = input.shape();
  const int64_t pixels = shape[1] * shape[2], channels = shape[3];
  const paddle::Tensor x = contiguous(input);
  paddle::Tensor out = paddle::empty({shape[0], channels}, x.dtype(), x.place());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto add = kernels<T>(isa).add_pixels;
    const T* const from = x.data<T>();
    T* const to = out.data<T>();
    for_each_block(shape[0], 1, x.numel(), [&](int64_t image, int64_t) {
      T* const sum = to + image * channels;
      std::fill_n(sum, channels, T(0));
      add(from + image * pixels * channels, pixels, channels, sum);
      for (int64_t c = 0; c < channels; ++c) sum[c] /= T(pixels);
    });
  });
  return {out};
}
