// The arithmetic of updates in place, element by element: loops that the compiler turns into vectors of every
// instruction set (see simd.h).

static void move_average(float* __restrict average, const float* __restrict value, int64_t count, float keep,
                         float share) {
  for (int64_t i = 0; i < count; ++i) average[i] = average[i] * keep + value[i] * share;
}

static void momentum_step(float* __restrict param, const float* __restrict grad, float* __restrict velocity,
                          int64_t count, float rate, float l2, float momentum, bool nesterov) {
  const float of_grad = nesterov ? rate : 0, of_velocity = nesterov ? rate * momentum : rate;
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] + l2 * param[i];
    velocity[i] = velocity[i] * momentum + g;
    param[i] -= of_velocity * velocity[i] + of_grad * g;
  }
}

// The rate `inside` is part of a velocity, and `outside` is the factor of the velocity. `mean` is null where variances
// are not about the mean of gradients.
static void rmsprop_step(float* __restrict param, const float* __restrict grad, float* __restrict square,
                         float* __restrict mean, float* __restrict velocity, int64_t count, float inside,
                         float outside, float l2, float keep, float alpha, float eps, float momentum) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] + l2 * param[i];
    square[i] = square[i] * alpha + g * g * (1 - alpha);
    float variance = square[i];
    if (mean) {
      mean[i] = mean[i] * alpha + g * (1 - alpha);
      variance -= mean[i] * mean[i];
    }
    velocity[i] = velocity[i] * momentum + inside * g / __builtin_sqrtf(variance + eps);
    param[i] = param[i] * keep - outside * velocity[i];
  }
}
