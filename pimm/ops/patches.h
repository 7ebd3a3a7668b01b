// The numbers that each output of a convolution is made of, side by side, so that the convolution becomes a product of
// matrices: [N, C, H, W] to [N, C * kernel height * kernel width, output height, output width].

constexpr int kMostPadding = 1 << 20;
constexpr double kMostNumbers = 1LL << 40;

struct PatchGeometry {
  int64_t images, channels, height, width;             // of X
  int64_t rows, columns;                               // of the kernel
  int64_t stride_y, stride_x, top, left, step_y, step_x;  // steps: the dilation
  int64_t out_height, out_width;

  PatchGeometry(const char* op, const paddle::Tensor& x, const std::vector<int>& kernel, const std::vector<int>& stride,
                const std::vector<int>& padding, const std::vector<int>& dilation) {
    check_images(op, x);
    const bool complete = kernel.size() == 2 && stride.size() == 2 && padding.size() == 4 && dilation.size() == 2;
    if (!complete) fail(op, "kernel, stride and dilation must have 2 numbers each, and padding 4");
    for (const auto* numbers : {&kernel, &stride, &dilation}) {
      if (std::min((*numbers)[0], (*numbers)[1]) < 1) fail(op, "kernel, stride and dilation must be positive");
    }
    const auto [least, most] = std::minmax_element(padding.begin(), padding.end());
    if (*least < 0 || *most > kMostPadding) fail(op, "padding must not be negative nor more than ", kMostPadding);
    const std::vector<int64_t> shape = x.shape();
    images = shape[0], channels = shape[1], height = shape[2], width = shape[3];
    rows = kernel[0], columns = kernel[1], stride_y = stride[0], stride_x = stride[1];
    top = padding[0], left = padding[2], step_y = dilation[0], step_x = dilation[1];
    out_height = outputs(op, height + top + padding[1], rows, stride_y, step_y);
    out_width = outputs(op, width + left + padding[3], columns, stride_x, step_x);
    const double numbers = double(images) * channels * rows * columns * out_height * out_width;
    if (numbers > kMostNumbers) fail(op, numbers, " numbers are too many");
  }

  static int64_t outputs(const char* op, int64_t pixels, int64_t length, int64_t stride, int64_t step) {
    const int64_t span = step * (length - 1) + 1;
    if (span > pixels) fail(op, "a kernel of ", span, " pixels does not fit into a padded image of ", pixels);
    return (pixels - span) / stride + 1;
  }

  std::vector<int64_t> output_shape() const { return {images, channels * rows * columns, out_height, out_width}; }

  // The first and the last output + 1 whose number at this offset (from the padded image's edge) lies in the image.
  static std::pair<int64_t, int64_t> inside(int64_t offset, int64_t padding, int64_t stride, int64_t pixels,
                                            int64_t outputs) {
    const int64_t first = std::min(outputs, std::max<int64_t>(0, div_up(padding - offset, stride)));
    const int64_t last = padding + pixels - offset;
    return {first, std::max(first, std::min(outputs, last <= 0 ? 0 : div_up(last, stride)))};
  }
};

// Writes the row of the matrix of one image that belongs to one place of the kernel.
template <class T>
void write_patch_row(const PatchGeometry& g, const T* map, int64_t row, int64_t column, T* out) {
  const auto [first_y, last_y] = g.inside(row * g.step_y, g.top, g.stride_y, g.height, g.out_height);
  const auto [first_x, last_x] = g.inside(column * g.step_x, g.left, g.stride_x, g.width, g.out_width);
  for (int64_t y = 0; y < g.out_height; ++y, out += g.out_width) {
    if (y < first_y || y >= last_y || first_x == last_x) {
      std::fill_n(out, g.out_width, T(0));
      continue;
    }
    const int64_t line = y * g.stride_y + row * g.step_y - g.top, start = column * g.step_x - g.left;
    const T* const from = map + line * g.width;
    std::fill(out, out + first_x, T(0));
    for (int64_t x = first_x; x < last_x; ++x) out[x] = from[x * g.stride_x + start];
    std::fill(out + last_x, out + g.out_width, T(0));
  }
}

Tensors patches_op(const paddle::Tensor& input, const std::vector<int>& kernel, const std::vector<int>& stride,
                   const std::vector<int>& padding, const std::vector<int>& dilation) {
  const PatchGeometry g("pimm_patches", input, kernel, stride, padding, dilation);
  const paddle::Tensor x = contiguous(input);
  paddle::Tensor out = paddle::empty(g.output_shape(), x.dtype(), x.place());
  with_type(x, [&](auto type) {
    using T = decltype(type);
    const T* const from = x.data<T>();
    T* const to = out.data<T>();
    const int64_t maps = g.images * g.channels, places = g.rows * g.columns, pixels = g.out_height * g.out_width;
    for_each_task(maps, worthwhile_threads(maps, out.numel(), 65536), [&](int64_t map, int) {
      for (int64_t place = 0; place < places; ++place) {
        write_patch_row(g, from + map * g.height * g.width, place / g.columns, place % g.columns,
                        to + (map * places + place) * pixels);
      }
    });
  });
  return {out};
}
