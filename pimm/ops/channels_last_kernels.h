// The arithmetic of images [N, H, W, C] (see channels_last_geometry.h), for every instruction set (see simd.h).

template <class T>
static inline typename Simd<T>::Vector activate(typename Simd<T>::Vector x, Act act) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V zero{}, one = zero + 1, six = zero + 6;
  if (act == Act::none) return x;
  if (act == Act::swish) return fast_swish_vector<T>(x);
  if (act == Act::relu) return S::larger(zero, x);  // NaN stays NaN
  if (act == Act::relu6) return S::smaller(six, S::larger(zero, x));
  const V linear = x * T(1.0 / 6) + T(0.5), gate = S::smaller(one, S::larger(zero, linear));
  return act == Act::hard_swish ? x * gate : gate;
}

// Up to a vector of elements; the others are zero.
template <class T>
static inline typename Simd<T>::Vector load_some(const T* from, int count) {
  if (count >= Simd<T>::width) return Simd<T>::load(from);
  T some[Simd<T>::width] = {};
  for (int i = 0; i < count; ++i) some[i] = from[i];
  return Simd<T>::load(some);
}

template <class T>
static inline void store_some(T* to, typename Simd<T>::Vector v, int count) {
  if (count >= Simd<T>::width) return Simd<T>::store(to, v);
  T some[Simd<T>::width];
  Simd<T>::store(some, v);
  for (int i = 0; i < count; ++i) to[i] = some[i];
}

// Finishes the sums of `count` channels (up to a vector) from `channel` on, and stores them at `place` of the output.
template <class T>
static inline void finish_vector(typename Simd<T>::Vector sum, const Finish<T>& finish, int64_t channel, int64_t place,
                                 int count, T* out) {
  using S = Simd<T>;
  sum = sum * load_some(finish.scale + channel, count) + load_some(finish.shift + channel, count);
  if (finish.shortcut) sum += load_some(finish.shortcut + place, count);
  store_some(out + place, activate<T>(sum, finish.act), count);
}

template <class T>
struct Tile {
  static constexpr int vectors = PANEL / Simd<T>::width;  // of one output pixel
  static constexpr int pixels = vectors > ACCUMULATORS ? 1 : ACCUMULATORS / vectors;
};

// sum[i][j] = sum over taps and input channels k of from[tap * pixels + i][k] * weight[tap][k][j]
template <class T>
static inline void multiply_tile(const T* const* from, int64_t taps, int64_t depth, const T* weight,
                                 typename Simd<T>::Vector (&sum)[Tile<T>::pixels][Tile<T>::vectors]) {
  using S = Simd<T>;
  using V = typename S::Vector;
  for (int64_t tap = 0; tap < taps; ++tap, from += Tile<T>::pixels) {
    const T* pixel[Tile<T>::pixels];
#pragma GCC unroll 16
    for (int i = 0; i < Tile<T>::pixels; ++i) pixel[i] = from[i];
    for (int64_t k = 0; k < depth; ++k, weight += PANEL) {
      V row[Tile<T>::vectors];
#pragma GCC unroll 16
      for (int j = 0; j < Tile<T>::vectors; ++j) row[j] = S::load(weight + j * S::width);
#pragma GCC unroll 16
      for (int i = 0; i < Tile<T>::pixels; ++i) {
        const V value = S::splat(pixel[i][k]);
#pragma GCC unroll 16
        for (int j = 0; j < Tile<T>::vectors; ++j) sum[i][j] += value * row[j];
      }
    }
  }
}

// Writes for each tile and tap of the output pixels [first, first + count) the places of the input's pixels; a tile's
// pixels beyond the last one repeat it.
template <class T>
static void find_pixels(const Window& w, const T* x, const T* zeros, int64_t first, int64_t count, const T** from) {
  constexpr int pixels = Tile<T>::pixels;
  const int64_t plane = w.out_height * w.out_width, taps = w.taps(), image_size = w.height * w.width * w.channels;
  const int64_t end = (count + pixels - 1) / pixels * pixels;
  if (w.is_pointwise()) {
    for (int64_t i = 0; i < end; ++i) from[i] = x + (first + (i < count ? i : count - 1)) * w.channels;
    return;
  }
  x += first / plane * image_size;
  int64_t row = first % plane / w.out_width, column = first % w.out_width;
  for (int64_t i = 0; i < end; ++i) {
    const int64_t top = row * w.stride_y - w.top, left = column * w.stride_x - w.left;
    const T** tap = from + i / pixels * pixels * taps + i % pixels;
    for (int64_t ky = 0, y = top; ky < w.kernel_height; ++ky, y += w.dilation_y) {
      const bool inside = y >= 0 && y < w.height;
      for (int64_t kx = 0, at = left; kx < w.kernel_width; ++kx, at += w.dilation_x, tap += pixels) {
        *tap = inside && at >= 0 && at < w.width ? x + (y * w.width + at) * w.channels : zeros;
      }
    }
    if (i + 1 >= count || ++column < w.out_width) continue;
    column = 0;
    if (++row == w.out_height) row = 0, x += image_size;
  }
}

// Writes for `count` output pixels of a row, of which the first begins at `left`, the inputs of one row of taps, to each
// `patch` numbers after the one before; `row` is null beyond the image.
template <class T>
static void copy_row(const Window& w, const T* row, int64_t left, int64_t count, int64_t patch, T* to) {
  using S = Simd<T>;
  const int64_t kernel = w.kernel_width, width = w.width, stride = w.stride_x, channels = w.channels;
  const int64_t size = kernel * channels, last = size - S::width;
  const bool wide = row && w.dilation_x == 1 && last >= 0;
  for (; count > 0; --count, left += stride, to += patch) {
    if (wide && left >= 0 && left + kernel <= width) {
      const T* const from = row + left * channels;
      for (int64_t k = 0; k < last; k += S::width) S::store(to + k, S::load(from + k));
      S::store(to + last, S::load(from + last));  // of which some may be there already
      continue;
    }
    for (int64_t k = 0, at = left; k < size; k += channels, at += w.dilation_x) {
      const bool exists = row && at >= 0 && at < width;
      for (int64_t c = 0; c < channels; ++c) to[k + c] = exists ? row[at * channels + c] : 0;
    }
  }
}

// Writes for each of the output pixels [first, first + count) the inputs of all taps side by side.
template <class T>
static void copy_patches(const Window& w, const T* x, int64_t first, int64_t count, T* to) {
  const int64_t row_size = w.kernel_width * w.channels, patch = w.taps() * w.channels;
  int64_t row = first / w.out_width, column = first % w.out_width;  // of all images' rows
  while (count > 0) {
    const int64_t run = count < w.out_width - column ? count : w.out_width - column;
    const T* const image = x + row / w.out_height * w.height * w.width * w.channels;
    const int64_t top = row % w.out_height * w.stride_y - w.top;
    for (int64_t ky = 0; ky < w.kernel_height; ++ky) {
      const int64_t y = top + ky * w.dilation_y;
      const T* const from = y >= 0 && y < w.height ? image + y * w.width * w.channels : nullptr;
      copy_row(w, from, column * w.stride_x - w.left, run, patch, to + ky * row_size);
    }
    count -= run, to += run * patch, column = 0, ++row;
  }
}

// Stores sum * scale + shift + shortcut of a tile from `place` of the output on; if not `whole`, only for `count` of its
// pixels and for the channels below `outs`.
template <class T, bool whole>
static inline void store_tile(const typename Simd<T>::Vector (&sum)[Tile<T>::pixels][Tile<T>::vectors],
                              const Finish<T>& finish, int64_t channel, int64_t place, int64_t outs, int64_t count,
                              T* out) {
  using S = Simd<T>;
#pragma GCC unroll 16
  for (int j = 0; j < Tile<T>::vectors; ++j) {
    const int64_t c = channel + j * S::width;
    if (!whole && c >= outs) break;
    const int rest = whole || outs - c >= S::width ? S::width : int(outs - c);
    const typename S::Vector scale = load_some(finish.scale + c, rest), shift = load_some(finish.shift + c, rest);
#pragma GCC unroll 16
    for (int i = 0; i < Tile<T>::pixels; ++i) {
      if (!whole && i >= count) break;
      const int64_t at = place + i * outs + c;
      typename S::Vector value = sum[i][j] * scale + shift;
      if (finish.shortcut) value += load_some(finish.shortcut + at, rest);
      store_some(out + at, value, rest);
    }
  }
}

template <class T, Act act>
static void activate_numbers(int64_t count, T* x) {
  constexpr int width = Simd<T>::width;
  for (; count >= width; count -= width, x += width) Simd<T>::store(x, activate<T>(Simd<T>::load(x), act));
  if (count) store_some(x, activate<T>(load_some(x, int(count)), act), int(count));
}

// Applies an activation to numbers in their place. It is no part of the loop over tiles: with all its values in
// registers, compilers keep the sums in memory, and half the speed is lost.
template <class T>
static void activate_all(Act act, int64_t count, T* x) {
  switch (act) {
    case Act::none: return;
    case Act::relu: return activate_numbers<T, Act::relu>(count, x);
    case Act::relu6: return activate_numbers<T, Act::relu6>(count, x);
    case Act::swish: return activate_numbers<T, Act::swish>(count, x);
    case Act::hard_swish: return activate_numbers<T, Act::hard_swish>(count, x);
    case Act::hard_sigmoid: return activate_numbers<T, Act::hard_sigmoid>(count, x);
  }
}

// Convolves the output pixels [first, first + count), whose input pixels `from` names.
template <class T>
static void convolve_pixels(const Window& w, const T* const* from, const T* panels, int64_t outs,
                            const Finish<T>& finish, int64_t first, int64_t count, T* out) {
  constexpr int pixels = Tile<T>::pixels;
  const int64_t taps = w.taps(), depth = w.channels;
  for (int64_t channel = 0; channel < outs; channel += PANEL, panels += taps * depth * PANEL) {
    const int64_t channels = outs - channel < PANEL ? outs - channel : PANEL;
    const T* const* tile = from;
    for (int64_t begin = 0; begin < count; begin += pixels, tile += taps * pixels) {
      typename Simd<T>::Vector sum[pixels][Tile<T>::vectors] = {};
      multiply_tile<T>(tile, taps, depth, panels, sum);
      const int64_t place = (first + begin) * outs, left = count - begin < pixels ? count - begin : pixels;
      if (left == pixels && channels == PANEL) {
        store_tile<T, true>(sum, finish, channel, place, outs, left, out);
      } else {
        store_tile<T, false>(sum, finish, channel, place, outs, left, out);
      }
    }
  }
  activate_all(finish.act, count * outs, out + first * outs);
}

// to[pixel][c] = image[c][pixel]; `known` is the number of channels, or 0. With a known one, compilers use vectors, if
// these are wide.
template <class T, int known>
static void interleave(const T* __restrict image, int64_t plane, int64_t channels, T* __restrict to) {
  if (known) channels = known;
  for (int64_t pixel = 0; pixel < plane; ++pixel) {
    for (int64_t c = 0; c < channels; ++c) to[pixel * channels + c] = image[c * plane + pixel];
  }
}

template <class T>
static void interleave_channels(const T* image, int64_t plane, int64_t channels, T* to) {
  channels == 3 ? interleave<T, 3>(image, plane, channels, to) : interleave<T, 0>(image, plane, channels, to);
}

// to[i][c] = from[i][c] * gate[image of i][c], for pixels from `first` on of images of `plane` pixels
template <class T>
static void gate_pixels(const T* from, const T* gate, int64_t first, int64_t count, int64_t plane, int64_t channels,
                        T* to) {
  for (int64_t i = 0; i < count; ++i) {
    const T *const pixel = from + (first + i) * channels, *const factor = gate + (first + i) / plane * channels;
    for (int64_t c = 0; c < channels; ++c) to[i * channels + c] = pixel[c] * factor[c];
  }
}

// The steps of a kernel that stay inside: begin <= step < end, for 0 <= first + step * dilation < size.
struct Steps {
  int64_t begin, end;
  Steps(int64_t first, int64_t dilation, int64_t size, int64_t kernel) {
    begin = first >= 0 ? 0 : dilation == 1 ? -first : (dilation - 1 - first) / dilation;
    end = first >= size ? 0 : dilation == 1 ? size - first : (size - first + dilation - 1) / dilation;
    end = end < kernel ? end : kernel;
  }
};

// From where a depthwise convolution reads, in numbers: from a tap to the one below and beside it, and from the inputs of
// an output pixel to those of the next.
struct Strides {
  int64_t down, beside, apart;
  explicit Strides(const Window& w)
      : down(w.dilation_y * w.width * w.channels), beside(w.dilation_x * w.channels), apart(w.stride_x * w.channels) {}
};

// Convolves `vectors` vectors of channels of `pixels` output pixels side by side with `rows` rows of `taps` taps. A weight
// is read once for all pixels. If not `whole`, one pixel has fewer channels than one vector, which are computed one by
// one: to fill a vector with them takes longer.
template <class T, int pixels, int vectors, bool whole>
static inline void convolve_taps(const Window& w, const T* from, const T* weight, int64_t rows, int64_t taps,
                                 const Finish<T>& finish, int64_t channel, int64_t place, T* out) {
  using S = Simd<T>;
  const Strides strides(w);
  const int64_t channels = w.channels, row_size = w.kernel_width * channels;
  const int count = whole ? S::width : int(channels);
  typename S::Vector sum[pixels][vectors] = {};
  T few[S::width] = {};
  for (; rows > 0; --rows, from += strides.down, weight += row_size) {
    const T *pixel = from, *row = weight;
#pragma GCC unroll 5
    for (int64_t k = 0; k < taps; ++k, pixel += strides.beside, row += channels) {
      if (!whole) {
        for (int c = 0; c < count; ++c) few[c] += pixel[c] * row[c];
        continue;
      }
#pragma GCC unroll 16
      for (int j = 0; j < vectors; ++j) {
        const typename S::Vector factor = S::load(row + j * S::width);
#pragma GCC unroll 16
        for (int i = 0; i < pixels; ++i) sum[i][j] += S::load(pixel + i * strides.apart + j * S::width) * factor;
      }
    }
  }
  if (!whole) sum[0][0] = S::load(few);
#pragma GCC unroll 16
  for (int i = 0; i < pixels; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < vectors; ++j) {
      finish_vector<T>(sum[i][j], finish, channel + j * S::width, place + i * channels + j * S::width, count, out);
    }
  }
}

// Convolves `vectors` vectors of channels from `channel` on of one image. If the kernel's width is `known` when this is
// compiled (0 is any width), two pixels are convolved at a time where the columns of all their taps are inside the image.
template <class T, int vectors, bool whole, int known>
static void convolve_channels(const Window& w, const T* x, const T* weight, const Finish<T>& finish, int64_t image,
                              int64_t channel, T* out) {
  x += image * w.height * w.width * w.channels + channel, weight += channel;
  int64_t place = image * w.out_height * w.out_width * w.channels + channel;
  for (int64_t oy = 0; oy < w.out_height; ++oy) {
    const int64_t y = oy * w.stride_y - w.top;
    const Steps rows(y, w.dilation_y, w.height, w.kernel_height);
    const T* const row = x + (y + rows.begin * w.dilation_y) * w.width * w.channels;
    const T* const taps = weight + rows.begin * w.kernel_width * w.channels;
    const int64_t count = rows.end - rows.begin;
    for (int64_t ox = 0; ox < w.out_width; ++ox, place += w.channels) {
      const int64_t column = ox * w.stride_x - w.left;
      const Steps columns(column, w.dilation_x, w.width, w.kernel_width);
      const int64_t last = column + w.stride_x + (w.kernel_width - 1) * w.dilation_x;  // of the next pixel
      if (known && columns.begin == 0 && ox + 1 < w.out_width && last < w.width) {
        convolve_taps<T, 2, vectors, whole>(w, row + column * w.channels, taps, count, known, finish, channel, place,
                                            out);
        ++ox, place += w.channels;
      } else {
        convolve_taps<T, 1, vectors, whole>(w, row + (column + columns.begin * w.dilation_x) * w.channels,
                                            taps + columns.begin * w.channels, count, columns.end - columns.begin,
                                            finish, channel, place, out);
      }
    }
  }
}

template <class T, int vectors>
static void convolve_vectors(const Window& w, const T* x, const T* weight, const Finish<T>& finish, int64_t image,
                             int64_t channel, T* out) {
  if (w.kernel_width == 3) return convolve_channels<T, vectors, true, 3>(w, x, weight, finish, image, channel, out);
  if (w.kernel_width == 5) return convolve_channels<T, vectors, true, 5>(w, x, weight, finish, image, channel, out);
  convolve_channels<T, vectors, true, 0>(w, x, weight, finish, image, channel, out);
}

template <class T>
static void convolve_depthwise(const Window& w, const T* x, const T* weight, const Finish<T>& finish, int64_t image,
                               T* out) {
  constexpr int width = Simd<T>::width;
  const int64_t size = w.out_height * w.out_width * w.channels;
  const Finish<T> linear{finish.scale, finish.shift, finish.shortcut, Act::none};
  int64_t c = 0;
  for (; c + 4 * width <= w.channels; c += 4 * width) {
    convolve_vectors<T, 4>(w, x, weight, linear, image, c, out);
  }
  for (; c + 2 * width <= w.channels; c += 2 * width) {
    convolve_vectors<T, 2>(w, x, weight, linear, image, c, out);
  }
  const int64_t last = w.channels - width;  // the last vector may compute some channels of the one before once more
  for (; last >= 0 && c < w.channels; c += width) {
    convolve_vectors<T, 1>(w, x, weight, linear, image, c < last ? c : last, out);
  }
  if (last < 0) convolve_channels<T, 1, false, 0>(w, x, weight, linear, image, 0, out);
  activate_all(finish.act, size, out + image * size);
}

// out = act((x - mean) * scale + shift + shortcut) of `pixels` pixels from `first` on
template <class T>
static void normalise_pixels(const T* x, const T* mean, const Finish<T>& finish, int64_t first, int64_t pixels,
                             int channels, T* out) {
  using S = Simd<T>;
  for (int64_t place = first * channels; pixels > 0; --pixels, place += channels) {
    for (int c = 0; c < channels; c += S::width) {
      const int count = channels - c;
      finish_vector<T>(load_some(x + place + c, count) - load_some(mean + c, count), finish, c, place + c, count, out);
    }
  }
}

// sum[c] += the values of channel c of `pixels` pixels
template <class T>
static void add_pixels(const T* __restrict x, int64_t pixels, int64_t channels, T* __restrict sum) {
  for (int64_t i = 0; i < pixels; ++i, x += channels) {
    for (int64_t c = 0; c < channels; ++c) sum[c] += x[c];
  }
}
