// Depthwise 2-D convolution on the CPU (NCHW, one filter a channel): forward and both gradients.
//
// Every channel's plane is copied into scratch memory with its zero padding, where the plane is treated as one long
// row. A tap is one value of the kernel. Output i is the sum over the taps t of weight[t] * plane[i + offset[t]],
// whatever the kernel, the dilation and the size of the map, so that all vectors are full even for 2x2 maps.
// Neighbouring rows share one gap of zeros. Several images lie one below another in the same way, which makes small
// maps as fast as large ones. For stride 2, the plane is first split into four phases (even or odd row, even or odd
// column); a tap then is an offset into one of the phases, and nothing else changes. The gradient of the input is the
// same sum with negated offsets; the gradient of the weight is one dot product for each tap.


constexpr int BLOCK = 128;                // no kernel touches more elements than this past its count
constexpr int SCRATCH_BYTES = 32 * 1024;  // images are grouped until their planes fill this much: a level-1 cache

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

// Places of a tensor's planes in scratch: pixel (y, x) is at ((y + top) / stride, (x + left) / stride) of its phase.
struct Map {
  int height, width, stride, top, left;
};

struct Geometry {
  int images, channels;
  Map input, output;
  int rows, pitch;  // rows of one padded image and distance between the rows, within one phase
  int group;        // number of images that lie one below another
  int plane;        // elements of one phase of a group
  int margin;       // largest offset of a tap within its phase
  std::vector<int> tap, offset, back_offset;  // of the taps, sorted by phase: index in the kernel, offset, and back
  std::vector<int> phase_begin;               // index of the first tap of each phase

  int phases() const { return input.stride * input.stride; }
  int taps() const { return int(tap.size()); }

  // Returns the index in scratch of pixel x of a row; pixels x + stride, x + 2 * stride and so on follow.
  template <unsigned stride>
  int place(const Map& map, int image, int row, int column) const {
    const unsigned y = row + map.top, x = column + map.left;
    const int phase = int(y % stride * stride + x % stride);
    return phase * plane + (image * rows + int(y / stride)) * pitch + int(x / stride);
  }

  int64_t multiply_adds() const {
    return int64_t(std::min(double(images) * channels * output.height * output.width * taps(), 1e18));
  }

  std::vector<int64_t> output_shape() const { return {images, channels, output.height, output.width}; }

  // Returns the elements of a task's scratch: planes of the input, the result and the output's gradient, and the taps.
  int64_t scratch() const { return int64_t(2 * phases() + 1) * plane + margin + round_up(taps()); }
};

// Returns the distance between rows (or images) at which a tap that looks beyond one finds the next one's first zeros.
int64_t spacing(int64_t size, int64_t before, int64_t out_size, int64_t stride, int64_t reach) {
  const int64_t first = before / stride, last = (before + size - 1) / stride;
  return std::max({out_size, last + 1, out_size + reach - first});
}

struct Conv {  // the operator's attributes
  int stride, dilation;
  std::vector<int> padding;  // top, bottom, left, right

  // At most zero for a kernel that does not fit into the padded image.
  int64_t out_size(int64_t size, int64_t kernel, int before, int after) const {
    const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
  }
};

// The kernels count in 32 bits. While planes and weights are smaller than this, no index of theirs overflows.
constexpr int64_t MOST = std::numeric_limits<int>::max() / 16;

Geometry make_geometry(const char* op, const std::vector<int64_t>& x, const std::vector<int64_t>& kernel,
                       const Conv& conv, int64_t bytes) {
  const std::vector<int>& padding = conv.padding;
  if (conv.stride != 1 && conv.stride != 2) fail(op, "the stride is ", conv.stride, " and must be 1 or 2");
  if (conv.dilation < 1) fail(op, "the dilation is ", conv.dilation, " and must be 1 or more");
  if (padding.size() != 4 || *std::min_element(padding.begin(), padding.end()) < 0) {
    fail(op, "the padding must be four numbers, none of them negative");
  }
  const int64_t largest = std::max({x[0] * x[1], x[2], x[3], kernel[2], kernel[3]});
  if (largest >= MOST) fail(op, "X ", text_of(x), " or the kernel ", text_of(kernel), " is too large");
  const int64_t out_height = conv.out_size(x[2], kernel[2], padding[0], padding[1]);
  const int64_t out_width = conv.out_size(x[3], kernel[3], padding[2], padding[3]);
  if (out_height < 1 || out_width < 1) fail(op, "the kernel is larger than the padded image");

  const int s = conv.stride, d = conv.dilation, top = padding[0], left = padding[2];
  const int64_t reach_y = (kernel[2] - 1) * d / s, reach_x = (kernel[3] - 1) * d / s;
  const int64_t rows = spacing(x[2], top, out_height, s, reach_y);
  const int64_t pitch = spacing(x[3], left, out_width, s, reach_x);
  const int64_t taps = kernel[2] * kernel[3];
  const bool small = rows < MOST && s * s * pitch < MOST && taps < MOST;  // so that no product below overflows
  const int64_t values = small ? s * s * rows * pitch : MOST;
  if (values >= MOST || x[1] * taps >= MOST) {
    fail(op, "X ", text_of(x), " with its padding or the kernel ", text_of(kernel), " is too large");
  }

  Geometry g;
  g.images = int(x[0]), g.channels = int(x[1]);
  g.input = {int(x[2]), int(x[3]), s, top, left};
  g.output = {int(out_height), int(out_width), 1, 0, 0};
  g.rows = int(rows), g.pitch = int(pitch);
  g.margin = int(round_up(reach_y * pitch + reach_x));
  g.group = int(std::max<int64_t>(1, std::min<int64_t>(g.images, SCRATCH_BYTES / (values * bytes))));
  g.plane = int(round_up(g.group * rows * pitch + g.margin + BLOCK));

  const int kernel_h = int(kernel[2]), kernel_w = int(kernel[3]);
  for (int phase = 0; phase < g.phases(); ++phase) {
    g.phase_begin.push_back(g.taps());
    for (int t = 0; t < kernel_h * kernel_w; ++t) {
      const int y = t / kernel_w * d, x = t % kernel_w * d;
      if (y % s * s + x % s != phase) continue;
      const int ahead = y / s * g.pitch + x / s;
      g.tap.push_back(t);
      g.offset.push_back(phase * g.plane + ahead);
      g.back_offset.push_back(-ahead);
    }
  }
  g.phase_begin.push_back(g.taps());
  return g;
}
