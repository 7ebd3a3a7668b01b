// The arithmetic of scaling an image, for every instruction set (see simd.h). A pixel is four bytes. Weights and sums are
// whole numbers, so that every instruction set gives the same pixels. Loops that change the width of numbers are plain:
// compilers make vectors of such loops, but take vectors apart that are converted.

typedef int32_t Integers __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t Pixel __attribute__((vector_size(16)));

static inline void widen(const uint8_t* __restrict from, int count, int32_t* __restrict to) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
}

static inline void round_to_bytes(const int32_t* __restrict sums, int count, uint8_t* __restrict to) {
  for (int i = 0; i < count; ++i) {
    const int32_t value = (sums[i] + RESIZE_HALF) >> RESIZE_BITS;
    to[i] = uint8_t(std::min(std::max(value, 0), 255));
  }
}

// Scales one row of `count` bytes in its width. `scratch` has room for the row, for one more pixel for each weight, because
// weights of zero reach beyond the row, and for the scaled row.
static void scale_row(const uint8_t* from, int count, const ResizeTaps& taps, int32_t* scratch, uint8_t* to) {
  constexpr int pixels = VECTOR_BYTES / 16;  // of a vector
  int32_t* const sums = scratch + count + 4 * taps.each;
  widen(from, count, scratch);
  for (int o = 0; o < taps.count; ++o) {
    const int32_t* const first = scratch + 4 * taps.starts[o];
    const int32_t* const weights = taps.spread.data() + int64_t(o) * taps.each * 4;
    Integers sum{};
    for (int tap = 0; tap < taps.each; tap += pixels) {
      Integers weight, value;
      __builtin_memcpy(&weight, weights + 4 * tap, sizeof(weight));
      __builtin_memcpy(&value, first + 4 * tap, sizeof(value));
      sum += weight * value;
    }
    Pixel parts[pixels];
    __builtin_memcpy(parts, &sum, sizeof(parts));
    for (int pixel = 1; pixel < pixels; ++pixel) parts[0] += parts[pixel];
    __builtin_memcpy(sums + 4 * o, &parts[0], sizeof(parts[0]));
  }
  round_to_bytes(sums, 4 * taps.count, to);
}

// Makes one row of `count` bytes as the weighted sum of rows.
static void sum_rows(const uint8_t* from, int64_t stride, int rows, const int32_t* weights, int count,
                     int32_t* __restrict sums, uint8_t* to) {
  for (int i = 0; i < count; ++i) sums[i] = 0;
  for (int row = 0; row < rows; ++row) {
    const uint8_t* __restrict values = from + row * stride;
    const int32_t weight = weights[row];
    for (int i = 0; i < count; ++i) sums[i] += values[i] * weight;
  }
  round_to_bytes(sums, count, to);
}
