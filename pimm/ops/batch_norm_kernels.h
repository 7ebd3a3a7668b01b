// The arithmetic of batch normalisation, for every instruction set: see simd.h. The sums are doubles throughout, which
// costs nothing where memory is the limit.

// sum[i] += x[i] - origin[i], square[i] += (x[i] - origin[i])^2
template <class T>
static void add_moments(const T* x, const double* origin, int count, double* sum, double* square) {
  using D = Simd<double>;
  int i = 0;
  for (; i + D::width <= count; i += D::width) {
    const typename D::Vector d = Simd<T>::load_doubles(x + i) - D::load(origin + i);
    D::store(sum + i, D::load(sum + i) + d);
    D::store(square + i, D::load(square + i) + d * d);
  }
  for (; i < count; ++i) {
    const double d = x[i] - origin[i];
    sum[i] += d, square[i] += d * d;
  }
}

// sum[i] += grad[i], product[i] += grad[i] * (x[i] - origin[i])
template <class T>
static void add_products(const T* x, const T* grad, const double* origin, int count, double* sum, double* product) {
  using D = Simd<double>;
  int i = 0;
  for (; i + D::width <= count; i += D::width) {
    const typename D::Vector g = Simd<T>::load_doubles(grad + i);
    const typename D::Vector d = Simd<T>::load_doubles(x + i) - D::load(origin + i);
    D::store(sum + i, D::load(sum + i) + g);
    D::store(product + i, D::load(product + i) + g * d);
  }
  for (; i < count; ++i) {
    sum[i] += grad[i], product[i] += grad[i] * (x[i] - origin[i]);
  }
}

// out[i] = (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise(const T* x, const T* mean, const T* scale, const T* shift, int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    S::store(out + i, (S::load(x + i) - S::load(mean + i)) * S::load(scale + i) + S::load(shift + i));
  }
  for (; i < count; ++i) out[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

// out[i] = grad[i] * grad_scale[i] + (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise_backward(const T* x, const T* grad, const T* mean, const T* grad_scale, const T* scale,
                               const T* shift, int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    const typename S::Vector own = (S::load(x + i) - S::load(mean + i)) * S::load(scale + i) + S::load(shift + i);
    S::store(out + i, S::load(grad + i) * S::load(grad_scale + i) + own);
  }
  for (; i < count; ++i) out[i] = grad[i] * grad_scale[i] + ((x[i] - mean[i]) * scale[i] + shift[i]);
}
