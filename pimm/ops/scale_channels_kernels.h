// The arithmetic of gates, of factors for whole maps and of their means, for every instruction set (see simd.h).

// out[i] = x[i] * factor
template <class T>
static void scale_map(const T* __restrict x, T factor, int64_t count, T* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * factor;
}

// x_grad[i] = grad[i] * factor; returns the sum of grad[i] * x[i].
template <class T>
static T scale_map_backward(const T* x, const T* grad, T factor, int64_t count, T* x_grad) {
  using S = Simd<T>;
  constexpr int w = S::width;
  typename S::Vector first{}, second{};
  int64_t i = 0;
  for (; i + 2 * w <= count; i += 2 * w) {
    const auto a = S::load(grad + i), b = S::load(grad + i + w);
    first += a * S::load(x + i), second += b * S::load(x + i + w);
    S::store(x_grad + i, a * factor), S::store(x_grad + i + w, b * factor);
  }
  first += second;
  T sum = 0;
  for (int lane = 0; lane < w; ++lane) sum += first[lane];
  for (; i < count; ++i) sum += grad[i] * x[i], x_grad[i] = grad[i] * factor;
  return sum;
}

template <class T>
static T sum_map(const T* x, int64_t count) {
  using S = Simd<T>;
  constexpr int w = S::width;
  typename S::Vector first{}, second{};
  int64_t i = 0;
  for (; i + 2 * w <= count; i += 2 * w) first += S::load(x + i), second += S::load(x + i + w);
  first += second;
  T sum = 0;
  for (int lane = 0; lane < w; ++lane) sum += first[lane];
  for (; i < count; ++i) sum += x[i];
  return sum;
}
