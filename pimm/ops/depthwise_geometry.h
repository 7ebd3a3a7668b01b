// Depthwise 2-D convolution on the CPU (NCHW, one filter a channel): forward and both gradients.
//
// Every channel's plane is copied into scratch memory with its zero padding, and from there on is one long row: output
// i is the sum over the taps of weight[t] * plane[i + offset[t]], whatever the kernel, the dilation and the map's size,
// so all vectors are full even for 2x2 maps. Neighbouring rows share one gap of zeros, and several images lie one below
// another in the same way, which makes small maps as fast as large ones. With stride 2 the plane is first split into
// its four phases (even or odd row, even or odd column); a tap then is an offset into one of them and nothing else
// changes. The gradient of the input is the same sum with the offsets turned round, that of the weight one dot product
// for each tap.


constexpr int BLOCK = 128;                // no kernel touches more elements than this past its count
constexpr int SCRATCH_BYTES = 32 * 1024;  // images are grouped until their planes fill this much: a level-1 cache

int round_up(int n) { return (n + 15) / 16 * 16; }

// How the planes of a tensor lie in scratch: pixel (y, x) is at ((y + top) / stride, (x + left) / stride) of its phase.
struct Map {
  int height, width, stride, top, left;
};

struct Geometry {
  int images, channels;
  Map input, output;
  int rows, pitch;  // of one padded image, of one phase
  int group;        // images that lie one below another
  int plane;        // elements of one phase of a group
  int margin;       // the furthest that a tap looks ahead within its phase
  std::vector<int> tap, offset, back_offset;  // the taps sorted by phase: index in the kernel, where they look and back
  std::vector<int> phase_begin;               // the first tap of each phase

  int phases() const { return input.stride * input.stride; }
  int taps() const { return int(tap.size()); }

  // Where the pixels x, x + stride, x + 2 * stride... of a row begin.
  int place(const Map& map, int image, int y, int x) const {
    y += map.top, x += map.left;
    const int phase = y % map.stride * map.stride + x % map.stride;
    return phase * plane + (image * rows + y / map.stride) * pitch + x / map.stride;
  }

  int64_t multiply_adds() const { return int64_t(images) * channels * output.height * output.width * taps(); }

  // Scratch elements of a task: planes of the input and of the result, those of the output's gradient, the taps.
  int scratch() const { return 2 * phases() * plane + margin + plane + round_up(taps()); }
};

// The distance between rows (or images) so that what looks beyond one finds the zeros at the start of the next.
int spacing(int size, int before, int out_size, int stride, int reach) {
  const int first = before / stride, last = (before + size - 1) / stride;
  return std::max({out_size, last + 1, out_size + reach - first});
}

struct Conv {  // the operator's attributes
  int stride, dilation;
  std::vector<int> padding;  // top, bottom, left, right

  int out_size(int size, int kernel, int before, int after) const {
    return (size + before + after - dilation * (kernel - 1) - 1) / stride + 1;
  }
};

Geometry make_geometry(const std::vector<int64_t>& x, const std::vector<int64_t>& kernel, const Conv& conv, int bytes) {
  Geometry g;
  const int s = conv.stride, d = conv.dilation, top = conv.padding[0], left = conv.padding[2];
  const int kernel_h = int(kernel[2]), kernel_w = int(kernel[3]), height = int(x[2]), width = int(x[3]);
  g.images = int(x[0]), g.channels = int(x[1]);
  g.input = {height, width, s, top, left};
  g.output = {conv.out_size(height, kernel_h, top, conv.padding[1]),
              conv.out_size(width, kernel_w, left, conv.padding[3]), 1, 0, 0};
  const int reach_y = (kernel_h - 1) * d / s, reach_x = (kernel_w - 1) * d / s;
  g.rows = spacing(height, top, g.output.height, s, reach_y);
  g.pitch = spacing(width, left, g.output.width, s, reach_x);
  g.margin = round_up(reach_y * g.pitch + reach_x);
  const int64_t image_bytes = int64_t(g.phases()) * g.rows * g.pitch * bytes;
  g.group = int(std::max<int64_t>(1, std::min<int64_t>(g.images, SCRATCH_BYTES / image_bytes)));
  g.plane = round_up(g.group * g.rows * g.pitch + g.margin + BLOCK);

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
