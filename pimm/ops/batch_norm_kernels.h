// The arithmetic of batch normalisation, for every instruction set (see simd.h). Compilers vectorise these loops as
// well as explicit vectors would. The sums are doubles, which costs little in loops that wait for memory.

// sum[i] += x[i] - origin[i], square[i] += (x[i] - origin[i])^2, for each row of x, of which there are 1 to 4
template <class T, int rows>
static inline void add_moments_of(const T* __restrict x, const double* __restrict origin, int64_t distance, int count,
                                  double* __restrict sum, double* __restrict square) {
  for (int i = 0; i < count; ++i) {
    double total = sum[i], squares = square[i];
#pragma GCC unroll 4
    for (int row = 0; row < rows; ++row) {
      const double value = x[row * distance + i] - origin[i];
      total += value, squares += value * value;
    }
    sum[i] = total, square[i] = squares;
  }
}

// sum[i] += grad[i], product[i] += grad[i] * (x[i] - origin[i]), in the same way
template <class T, int rows>
static inline void add_products_of(const T* __restrict x, const T* __restrict grad, const double* __restrict origin,
                                   int64_t distance, int count, double* __restrict sum, double* __restrict product) {
  for (int i = 0; i < count; ++i) {
    double total = sum[i], products = product[i];
#pragma GCC unroll 4
    for (int row = 0; row < rows; ++row) {
      const T slope = grad[row * distance + i];
      total += slope, products += slope * (x[row * distance + i] - origin[i]);
    }
    sum[i] = total, product[i] = products;
  }
}

template <class T>
static void add_moments(const T* x, const double* origin, int rows, int64_t distance, int count, double* sum,
                        double* square) {
  if (rows == 4) return add_moments_of<T, 4>(x, origin, distance, count, sum, square);
  for (; rows; --rows, x += distance) add_moments_of<T, 1>(x, origin, distance, count, sum, square);
}

template <class T>
static void add_products(const T* x, const T* grad, const double* origin, int rows, int64_t distance, int count,
                         double* sum, double* product) {
  if (rows == 4) return add_products_of<T, 4>(x, grad, origin, distance, count, sum, product);
  for (; rows; --rows, x += distance, grad += distance) {
    add_products_of<T, 1>(x, grad, origin, distance, count, sum, product);
  }
}

// out[i] = (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise(const T* __restrict x, const T* __restrict mean, const T* __restrict scale,
                      const T* __restrict shift, int count, T* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

// out[i] = grad[i] * grad_scale[i] + (x[i] - mean[i]) * scale[i] + shift[i]. Since out may be grad, the vectors are
// explicit.
template <class T>
static void normalise_backward(const T* x, const T* grad, const T* mean, const T* grad_scale, const T* scale,
                               const T* shift, int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    const typename S::Vector rest = (S::load(x + i) - S::load(mean + i)) * S::load(scale + i) + S::load(shift + i);
    S::store(out + i, S::load(grad + i) * S::load(grad_scale + i) + rest);
  }
  for (; i < count; ++i) out[i] = grad[i] * grad_scale[i] + ((x[i] - mean[i]) * scale[i] + shift[i]);
}
