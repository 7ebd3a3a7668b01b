// The arithmetic of the depthwise convolution, for every instruction set (see simd.h).

// Copies a row by whole vectors and lets zeros follow the copy. Elements behind the row are read too, but none from
// `limit` on.
template <class T>
static inline void read_row(const T* from, T* to, int count, const T* limit) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) S::store(to + i, S::load(from + i));
  if (i < count && limit - (from + i) >= S::width) {
    S::store(to + i, S::first_lanes(S::load(from + i), count - i, typename S::Lanes{}));
  } else {
    for (; i < count; ++i) to[i] = from[i];
  }
}

// Copies as read_row does, with the even and the odd elements into separate rows.
template <class T>
static inline void read_row_by_pairs(const T* from, T* even, T* odd, int count, const T* limit) {
  using S = Simd<T>;
  typename S::Lanes lanes;
  int i = 0;
  for (; i < count && limit - (from + i) >= 2 * S::width; i += 2 * S::width) {
    typename S::Vector a = S::load(from + i), b = S::load(from + i + S::width), first, second;
    if (i + 2 * S::width > count) {
      a = S::first_lanes(a, count - i, lanes);
      b = S::first_lanes(b, count - i - S::width, lanes);
    }
    S::split_pairs(a, b, first, second, lanes);
    S::store(even + i / 2, first);
    S::store(odd + i / 2, second);
  }
  for (; i < count; ++i) (i % 2 ? odd : even)[i / 2] = from[i];
}

// Copies a row. Elements behind the row, but none from `limit` on, may be written too, and are overwritten later.
template <class T>
static inline void write_row(const T* from, T* to, int count, const T* limit) {
  using S = Simd<T>;
  int i = 0;
  for (; i < count && limit - (to + i) >= S::width; i += S::width) S::store(to + i, S::load(from + i));
  for (; i < count; ++i) to[i] = from[i];
}

template <class T>
static inline void write_row_by_pairs(const T* even, const T* odd, T* to, int count, const T* limit) {
  using S = Simd<T>;
  int i = 0;
  for (; i < count && limit - (to + i) >= 2 * S::width; i += 2 * S::width) {
    typename S::Vector a, b;
    S::join_pairs(S::load(even + i / 2), S::load(odd + i / 2), a, b, typename S::Lanes{});
    S::store(to + i, a);
    S::store(to + i + S::width, b);
  }
  for (; i < count; ++i) to[i] = (i % 2 ? odd : even)[i / 2];
}

// out[i] = sum over the taps of weight[t] * in[i + offset[t]], for i in [0, count) and up to BLOCK - 1 further.
// Eight sums at a time hide the latency of multiply-add. (A version for each number of taps, known at compile time, was
// measured and is no faster.)
template <class T>
static void correlate(const T* in, T* out, int count, const int* offset, const T* weight, int taps) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr int w = S::width;
  for (int i = 0; i < count; i += 8 * w) {
    V s0{}, s1{}, s2{}, s3{}, s4{}, s5{}, s6{}, s7{};
    for (int t = 0; t < taps; ++t) {
      const V tap = S::splat(weight[t]);
      const T* from = in + i + offset[t];
      s0 += tap * S::load(from), s1 += tap * S::load(from + w);
      s2 += tap * S::load(from + 2 * w), s3 += tap * S::load(from + 3 * w);
      s4 += tap * S::load(from + 4 * w), s5 += tap * S::load(from + 5 * w);
      s6 += tap * S::load(from + 6 * w), s7 += tap * S::load(from + 7 * w);
    }
    T* to = out + i;
    S::store(to, s0), S::store(to + w, s1), S::store(to + 2 * w, s2), S::store(to + 3 * w, s3);
    S::store(to + 4 * w, s4), S::store(to + 5 * w, s5), S::store(to + 6 * w, s6), S::store(to + 7 * w, s7);
  }
}

// sum[t] += sum over i in [0, count) of in[i + offset[t]] * grad[i], where grad is zero from count to count + BLOCK.
// Five taps at a time, each with two sums, hide the latency, and 9, 25 and 49 taps waste almost nothing.
template <class T>
static void dot_products(const T* in, const T* grad, int count, const int* offset, int taps, T* sum) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr int w = S::width;
  for (int t = 0; t < taps; t += 5) {
    const T* from[5];
    for (int j = 0; j < 5; ++j) from[j] = in + offset[t + j < taps ? t + j : t];
    V a0{}, a1{}, a2{}, a3{}, a4{}, b0{}, b1{}, b2{}, b3{}, b4{};
    for (int i = 0; i < count; i += 2 * w) {
      const V ga = S::load(grad + i), gb = S::load(grad + i + w);
      a0 += ga * S::load(from[0] + i), b0 += gb * S::load(from[0] + i + w);
      a1 += ga * S::load(from[1] + i), b1 += gb * S::load(from[1] + i + w);
      a2 += ga * S::load(from[2] + i), b2 += gb * S::load(from[2] + i + w);
      a3 += ga * S::load(from[3] + i), b3 += gb * S::load(from[3] + i + w);
      a4 += ga * S::load(from[4] + i), b4 += gb * S::load(from[4] + i + w);
    }
    const V total[5] = {a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4};
    for (int j = 0; j < 5 && t + j < taps; ++j) {
      T value = 0;
      for (int lane = 0; lane < w; ++lane) value += total[j][lane];
      sum[t + j] += value;
    }
  }
}

// Copies one channel of `images` images from a tensor into scratch planes, whose margins are zero and stay zero. The
// stride is known at compile time, since a division would take longer than a row of a small map.
template <int stride, class T>
static inline void read_planes_of(const Geometry& g, const Map& map, const T* tensor, int channel, int image,
                                  int images, T* planes) {
  const int size = map.height * map.width;
  const T* limit = tensor + int64_t(g.images) * g.channels * size;
  for (int b = 0; b < images; ++b) {
    const T* from = tensor + (int64_t(image + b) * g.channels + channel) * size;
    for (int y = 0; y < map.height; ++y, from += map.width) {
      __builtin_prefetch(from + size);  // of the next channel
      T* const to = planes + g.place<stride>(map, b, y, 0);
      if (stride == 1) {
        read_row(from, to, map.width, limit);
      } else {
        read_row_by_pairs(from, to, planes + g.place<stride>(map, b, y, 1), map.width, limit);
      }
    }
  }
}

template <class T>
static void read_planes(const Geometry& g, const Map& map, const T* tensor, int channel, int image, int images,
                        T* planes) {
  const auto read = map.stride == 1 ? read_planes_of<1, T> : read_planes_of<2, T>;
  read(g, map, tensor, channel, image, images, planes);
}

// Copies scratch planes into a tensor, for a caller that goes on to write all channels up to `last_channel`.
template <int stride, class T>
static inline void write_planes_of(const Geometry& g, const Map& map, const T* planes, int channel, int last_channel,
                                   int image, int images, T* tensor) {
  const int64_t size = int64_t(map.height) * map.width;
  for (int b = 0; b < images; ++b) {
    T* const first = tensor + int64_t(image + b) * g.channels * size;
    T* const limit = first + last_channel * size;
    T* to = first + channel * size;
    for (int y = 0; y < map.height; ++y, to += map.width) {
      const T* const from = planes + g.place<stride>(map, b, y, 0);
      if (stride == 1) {
        write_row(from, to, map.width, limit);
      } else {
        write_row_by_pairs(from, planes + g.place<stride>(map, b, y, 1), to, map.width, limit);
      }
    }
  }
}

template <class T>
static void write_planes(const Geometry& g, const Map& map, const T* planes, int channel, int last_channel, int image,
                         int images, T* tensor) {
  const auto write = map.stride == 1 ? write_planes_of<1, T> : write_planes_of<2, T>;
  write(g, map, planes, channel, last_channel, image, images, tensor);
}

template <class T>
static void depthwise_forward(const Geometry& g, const T* x, const T* weight, T* out, int group, int channel,
                              int last_channel, T* scratch) {
  const int image = group * g.group, images = std::min(g.group, g.images - image);
  const int taps = g.taps();
  T* const planes = scratch;
  T* const result = planes + g.phases() * g.plane;
  T* const sorted = result + g.plane;
  for (; channel < last_channel; ++channel) {
    read_planes(g, g.input, x, channel, image, images, planes);
    for (int t = 0; t < taps; ++t) sorted[t] = weight[channel * taps + g.tap[t]];
    correlate(planes, result, images * g.rows * g.pitch, g.offset.data(), sorted, taps);
    write_planes(g, g.output, result, channel, last_channel, image, images, out);
  }
}

// Computes both gradients of the channels [first_channel, last_channel) for all images; an unwanted one is null.
template <class T>
static void depthwise_backward(const Geometry& g, const T* x, const T* weight, const T* out_grad, T* x_grad,
                               T* weight_grad, int first_channel, int last_channel, T* scratch) {
  const int taps = g.taps();
  T* const planes = scratch;
  T* const result = planes + g.phases() * g.plane;
  T* const grad = result + g.phases() * g.plane + g.margin;  // with `margin` zeros before it
  T* const sorted = grad + g.plane;
  if (weight_grad) std::fill(weight_grad + first_channel * taps, weight_grad + last_channel * taps, T(0));
  for (int image = 0; image < g.images; image += g.group) {
    const int images = std::min(g.group, g.images - image), count = images * g.rows * g.pitch;
    if (images < g.group) std::fill(scratch, sorted, T(0));  // removes the images of the group before
    for (int channel = first_channel; channel < last_channel; ++channel) {
      read_planes(g, g.output, out_grad, channel, image, images, grad);
      if (weight_grad) {
        read_planes(g, g.input, x, channel, image, images, planes);
        std::fill(sorted, sorted + taps, T(0));
        dot_products(planes, grad, count, g.offset.data(), taps, sorted);
        for (int t = 0; t < taps; ++t) weight_grad[channel * taps + g.tap[t]] += sorted[t];
      }
      if (x_grad) {
        for (int t = 0; t < taps; ++t) sorted[t] = weight[channel * taps + g.tap[t]];
        for (int phase = 0; phase < g.phases(); ++phase) {
          const int t = g.phase_begin[phase], n = g.phase_begin[phase + 1] - t;
          correlate(grad, result + phase * g.plane, count, g.back_offset.data() + t, sorted + t, n);
        }
        write_planes(g, g.input, result, channel, last_channel, image, images, x_grad);
      }
    }
  }
}
