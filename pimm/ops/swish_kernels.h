// The arithmetic of swish, x * sigmoid(x), for every instruction set (see simd.h).

template <class T>
struct Exp {
  using S = Simd<T>;
  using V = typename S::Vector;
  static constexpr bool is_float = sizeof(T) == 4;
  static constexpr int degree = is_float ? 5 : 13;          // of a polynomial that is exp up to log(2) / 2
  static constexpr int mantissa = is_float ? 23 : 52;       // bits
  static constexpr int bias = is_float ? 127 : 1023;        // of the exponent
  static constexpr T lowest = is_float ? -104 : -746;       // below this, exp is zero
  static constexpr T largest = is_float ? 87 : 708;         // exp of this and of its negative are normal numbers
  static constexpr T magic = is_float ? 0x1.8p23 : 0x1.8p52;  // adding this rounds to an integer, in the low bits

  // Of the polynomial: for float that of least relative error, 9e-8, with a value of 1 at 0; else Taylor's.
  static constexpr T coefficient(int k) {
    constexpr double least[] = {1, 0.9999997, 0.49999148, 0.16667639, 0.04189816, 0.008290272};
    if (is_float) return T(least[k]);
    double product = 1;
    for (; k > 1; --k) product *= k;
    return T(1 / product);
  }

  static inline V power_of_two(typename S::Mask n) { return (V)((n + bias) << mantissa); }

  // Returns r, where exp(x) is 2^n times exp(r) and r is small.
  static inline V reduce(V x, typename S::Mask& n) {
    const V zero{};
    const V rounded = x * T(1.4426950408889634) + magic;
    n = (typename S::Mask)rounded - (typename S::Mask)(zero + magic);
    const V whole = rounded - magic;
    // log(2) is split into a part whose products are exact, and the rest.
    return x - whole * T(0.693359375) + whole * T(2.1219444005469058e-4);
  }

  // exp(r) for small r
  static inline V polynomial(V r) {
    V sum = V{} + coefficient(degree);
#pragma GCC unroll 16
    for (int k = degree - 1; k >= 0; --k) sum = sum * r + coefficient(k);
    return sum;
  }

  // exp(x) for -largest <= x <= largest; NaN stays NaN.
  static inline V of_moderate(V x) {
    typename S::Mask n;
    const V r = reduce(x, n);
    return polynomial(r) * power_of_two(n);
  }

  // exp(x) for x <= 0; NaN stays NaN.
  static inline V of_negative(V x) {
    typename S::Mask n;
    const V r = reduce(S::larger(V{} + lowest, x), n);
    const typename S::Mask half = n >> 1;  // two factors, since 2^n may be too small for one number
    return polynomial(r) * power_of_two(half) * power_of_two(n - half);
  }
};

template <class T>
static inline typename Simd<T>::Vector swish_vector(typename Simd<T>::Vector x) {
  using V = typename Simd<T>::Vector;
  const V e = Exp<T>::of_negative(x > 0 ? -x : x);
  const V bounded = Simd<T>::larger(V{} + Exp<T>::lowest, x);  // since -inf * 0 is NaN
  return (x > 0 ? x : bounded * e) / (1 + e);
}

// As swish_vector, but below -largest, where swish is nearly 0, with an absolute error of 1e-36. A third faster.
template <class T>
static inline typename Simd<T>::Vector fast_swish_vector(typename Simd<T>::Vector x) {
  using S = Simd<T>;
  const typename S::Vector least = S::splat(-Exp<T>::largest), bounded = S::larger(least, x);  // since -inf / inf is NaN
  return bounded / (1 + Exp<T>::of_moderate(S::larger(least, -bounded)));
}

template <class T>
static inline typename Simd<T>::Vector swish_slope(typename Simd<T>::Vector x) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V largest = V{} + Exp<T>::largest, bounded = S::smaller(largest, S::larger(-largest, x));
  const V e = Exp<T>::of_moderate(-bounded), sigmoid = 1 / (1 + e);
  const V slope = sigmoid * (1 + bounded * (e * sigmoid));
  return x < -largest ? V{} : slope;
}

template <class T>
static bool any_below(T bound, const T* x, int count) {
  using S = Simd<T>;
  typename S::Vector least = S::splat(bound);
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    const typename S::Vector values = S::load(x + i);
    least = S::smaller(values, least);
  }
  bool found = false;
  for (int k = 0; k < S::width; ++k) found |= least[k] < bound;
  for (; i < count; ++i) found |= x[i] < bound;
  return found;
}

template <class T, typename Simd<T>::Vector swish(typename Simd<T>::Vector)>
static void swish_by(const T* x, int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) S::store(out + i, swish(S::load(x + i)));
  if (i == count) return;
  T rest[S::width] = {};
  __builtin_memcpy(rest, x + i, (count - i) * sizeof(T));
  S::store(rest, swish(S::load(rest)));
  __builtin_memcpy(out + i, rest, (count - i) * sizeof(T));
}

// Numbers for which only the slower way is precise are rare.
template <class T>
static void swish_forward(const T* x, int count, T* out) {
  if (any_below<T>(-Exp<T>::largest, x, count)) return swish_by<T, swish_vector<T>>(x, count, out);
  swish_by<T, fast_swish_vector<T>>(x, count, out);
}

template <class T>
static void swish_backward(const T* x, const T* grad, int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) S::store(out + i, S::load(grad + i) * swish_slope<T>(S::load(x + i)));
  if (i == count) return;
  T rest[S::width] = {};
  __builtin_memcpy(rest, x + i, (count - i) * sizeof(T));
  S::store(rest, swish_slope<T>(S::load(rest)));
  for (int k = 0; i < count; ++i, ++k) out[i] = grad[i] * rest[k];
}

// out[i] = swish((x[i] - mean[i]) * scale[i] + shift[i]); returns the least normalised number of each lane, at most 0.
template <class T, typename Simd<T>::Vector swish(typename Simd<T>::Vector)>
static typename Simd<T>::Vector normalise_swish_by(const T* x, const T* mean, const T* scale, const T* shift, int count,
                                                   T* out) {
  using S = Simd<T>;
  typename S::Vector least{};
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    const typename S::Vector v = (S::load(x + i) - S::load(mean + i)) * S::load(scale + i) + S::load(shift + i);
    least = S::smaller(v, least);
    S::store(out + i, swish(v));
  }
  if (i == count) return least;
  T rest[S::width] = {};
  for (int k = 0; i + k < count; ++k) rest[k] = (x[i + k] - mean[i + k]) * scale[i + k] + shift[i + k];
  const typename S::Vector v = S::load(rest);
  least = S::smaller(v, least);
  S::store(rest, swish(v));
  __builtin_memcpy(out + i, rest, (count - i) * sizeof(T));
  return least;
}

template <class T>
static void normalise_swish(const T* x, const T* mean, const T* scale, const T* shift, int count, T* out) {
  const auto least = normalise_swish_by<T, fast_swish_vector<T>>(x, mean, scale, shift, count, out);
  bool found = false;
  for (int k = 0; k < Simd<T>::width; ++k) found |= least[k] < -Exp<T>::largest;
  if (found) normalise_swish_by<T, swish_vector<T>>(x, mean, scale, shift, count, out);
}

// out[i] = grad[i] times the slope of swish at (x[i] - mean[i]) * scale[i] + shift[i]
template <class T>
static void normalise_swish_backward(const T* x, const T* mean, const T* scale, const T* shift, const T* grad,
                                     int count, T* out) {
  using S = Simd<T>;
  int i = 0;
  for (; i + S::width <= count; i += S::width) {
    const typename S::Vector v = (S::load(x + i) - S::load(mean + i)) * S::load(scale + i) + S::load(shift + i);
    S::store(out + i, S::load(grad + i) * swish_slope<T>(v));
  }
  if (i == count) return;
  T rest[S::width] = {};
  for (int k = 0; i + k < count; ++k) rest[k] = (x[i + k] - mean[i + k]) * scale[i + k] + shift[i + k];
  S::store(rest, swish_slope<T>(S::load(rest)));
  for (int k = 0; i < count; ++i, ++k) out[i] = grad[i] * rest[k];
}
