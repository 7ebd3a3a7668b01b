// The arithmetic of batch normalisation, for every instruction set (see simd.h). Compilers vectorise these loops as
// well as explicit vectors would. The sums are doubles, which costs little in loops that wait for memory.

// sum[i] += x[i] - origin[i], square[i] += (x[i] - origin[i])^2
template <class T>
static void add_moments(const T* __restrict x, const double* __restrict origin, int count, double* __restrict sum,
                        double* __restrict square) {
  for (int i = 0; i < count; ++i) {
    const double distance = x[i] - origin[i];
    sum[i] += distance, square[i] += distance * distance;
  }
}

// sum[i] += grad[i], product[i] += grad[i] * (x[i] - origin[i])
template <class T>
static void add_products(const T* __restrict x, const T* __restrict grad, const double* __restrict origin, int count,
                         double* __restrict sum, double* __restrict product) {
  for (int i = 0; i < count; ++i) {
    sum[i] += grad[i], product[i] += grad[i] * (x[i] - origin[i]);
  }
}

// out[i] = (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise(const T* __restrict x, const T* __restrict mean, const T* __restrict scale,
                      const T* __restrict shift, int count, T* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

// out[i] = grad[i] * grad_scale[i] + (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise_backward(const T* __restrict x, const T* __restrict grad, const T* __restrict mean,
                               const T* __restrict grad_scale, const T* __restrict scale, const T* __restrict shift,
                               int count, T* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = grad[i] * grad_scale[i] + ((x[i] - mean[i]) * scale[i] + shift[i]);
}
