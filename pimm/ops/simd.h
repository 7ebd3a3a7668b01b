// Vectors of the width of one instruction set. This file and the *_kernels.h are included once for every instruction
// set, each time within another namespace, under that set's target pragma, with VECTOR_BYTES set to the width of that
// set's registers. They have no include guard, no headers and no lambdas for that reason. The vectors are extensions of
// GCC and clang, so that the same lines serve x86 and ARM.

template <class T>
struct Simd {
  using Integer = typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type;
  static constexpr int width = VECTOR_BYTES / sizeof(T);
  typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef Integer Mask __attribute__((vector_size(VECTOR_BYTES)));
  using Lanes = std::make_integer_sequence<Integer, width>;

  static inline Vector load(const T* from) {
    Vector v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }

  static inline void store(T* to, Vector v) { __builtin_memcpy(to, &v, sizeof(v)); }

  static inline Vector splat(T value) { return value - Vector{}; }

  // The larger of a and b, and the smaller; b where one of both is NaN. GCC would make two instructions of a comparison,
  // with which swish takes half as long again.
#if defined(__x86_64__) && VECTOR_BYTES == 32
  static inline Vector larger(Vector a, Vector b) {
    if constexpr (sizeof(T) == 4) return __builtin_ia32_maxps256(a, b);
    else return __builtin_ia32_maxpd256(a, b);
  }

  static inline Vector smaller(Vector a, Vector b) {
    if constexpr (sizeof(T) == 4) return __builtin_ia32_minps256(a, b);
    else return __builtin_ia32_minpd256(a, b);
  }
#else
  static inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
  static inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
#endif

  template <Integer... I>
  static inline Vector first_lanes(Vector v, int count, std::integer_sequence<Integer, I...>) {
    return (Vector)((Mask)v & (Mask{I...} < (Integer)count));
  }

  // split_pairs takes {a, b} as one row of pairs, and separates the first from the second of each pair; join_pairs is
  // its inverse.
  template <Integer... I>
  static inline void split_pairs(Vector a, Vector b, Vector& first, Vector& second,
                                 std::integer_sequence<Integer, I...>) {
    first = SHUFFLE(a, b, (I * 2)...);
    second = SHUFFLE(a, b, (I * 2 + 1)...);
  }

  template <Integer... I>
  static inline void join_pairs(Vector first, Vector second, Vector& a, Vector& b,
                                std::integer_sequence<Integer, I...>) {
    a = SHUFFLE(first, second, (I / 2 + I % 2 * width)...);
    b = SHUFFLE(first, second, (I / 2 + I % 2 * width + width / 2)...);
  }
};
