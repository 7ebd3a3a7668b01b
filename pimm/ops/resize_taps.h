// Which pixels make one pixel of a scaled image, and by which weights, as Pillow computes them.

constexpr int RESIZE_BITS = 22;  // of a weight behind the point: 8 bits of a pixel and 2 for sums above 255 remain
constexpr int32_t RESIZE_HALF = 1 << (RESIZE_BITS - 1);
constexpr int RESIZE_GROUP = 4;  // the number of weights of a pixel is a multiple of this

struct ResizeTaps {
  int count;                     // pixels of the part of the scaled row
  int each;                      // weights of one of them; those beyond the filter are zero
  std::vector<int> starts;       // the first pixel that has a weight
  std::vector<int> lengths;      // the pixels that have one
  std::vector<int32_t> weights;  // [count, each]
  std::vector<int32_t> spread;   // [count, each, 4], each weight once for every byte of a pixel
};

double triangle(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

double cubic(double x) {
  x = std::fabs(x);
  if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

// Returns the taps of `count` pixels from `first` on, of a row of `from` pixels that is scaled to `to` pixels.
ResizeTaps resize_taps(int from, int to, int first, int count, bool is_cubic) {
  const double scale = double(from) / to, wide = std::max(scale, 1.0), reach = (is_cubic ? 2.0 : 1.0) * wide;
  const int most = 2 * int(std::ceil(reach)) + 1;
  const int each = (most + RESIZE_GROUP - 1) / RESIZE_GROUP * RESIZE_GROUP;
  ResizeTaps taps{count, each, std::vector<int>(count), std::vector<int>(count),
                  std::vector<int32_t>(size_t(count) * each)};
  taps.spread.resize(taps.weights.size() * 4);
  std::vector<double> values(most);
  for (int o = 0; o < count; ++o) {
    const double center = (first + o + 0.5) * scale;
    const int start = std::max(0, int(center - reach + 0.5));
    const int length = std::min(from, int(center + reach + 0.5)) - start;
    double sum = 0.0;
    for (int i = 0; i < length; ++i) {
      const double x = (i + start - center + 0.5) * (1.0 / wide);
      sum += values[i] = is_cubic ? cubic(x) : triangle(x);
    }
    taps.starts[o] = start;
    taps.lengths[o] = length;
    for (int i = 0; i < length; ++i) {
      const double value = (sum != 0.0 ? values[i] / sum : values[i]) * (1 << RESIZE_BITS);
      taps.weights[size_t(o) * each + i] = int32_t(value < 0 ? value - 0.5 : value + 0.5);
    }
  }
  for (size_t i = 0; i < taps.spread.size(); ++i) taps.spread[i] = taps.weights[i / 4];
  return taps;
}
