// Updates in place of many tensors at once on the CPU, where calls of an operator for each tensor take longer than the
// arithmetic: moving averages, and the steps of optimizers. The tensors to change are inputs whose memory is written:
// an output in place of each would cost the calls again that these operators save. Callers pass tensors that lie in one
// piece: Paddle hands an operator copies of others, whose change would be lost.

constexpr int64_t UPDATE_ELEMENTS = 16384;  // of a task, at most

// Checks lists that have a tensor each for every tensor of the first list, and a value of each of `settings`.
void check_lists(const char* op, const std::vector<const Tensors*>& lists,
                 const std::vector<const std::vector<float>*>& settings) {
  const Tensors& first = *lists[0];
  for (const Tensors* list : lists) {
    if (list->size() != first.size()) fail(op, "lists of ", first.size(), " and ", list->size(), " tensors");
    for (size_t i = 0; i < first.size(); ++i) {
      if (first[i].numel() == 0 && (*list)[i].numel() == 0) continue;
      check_like(op, "an input", (*list)[i], first[i].shape(), first[i]);
      if (first[i].dtype() != paddle::DataType::FLOAT32) fail(op, "an input is not of float32");
    }
  }
  for (const std::vector<float>* values : settings) {
    if (values->size() != first.size()) fail(op, values->size(), " settings for ", first.size(), " tensors");
  }
}

float* memory_of(const paddle::Tensor& tensor) { return const_cast<float*>(tensor.data<float>()); }

// Calls run(index of a tensor, first element, number of elements) for pieces that together are all tensors.
template <class Run>
void for_each_piece(const Tensors& tensors, Run run) {
  std::vector<std::pair<size_t, int64_t>> pieces;
  int64_t elements = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t size = tensors[i].numel();
    for (int64_t first = 0; first < size; first += UPDATE_ELEMENTS) pieces.emplace_back(i, first);
    elements += size;
  }
  const int64_t tasks = int64_t(pieces.size());
  for_each_task(tasks, worthwhile_threads(tasks, elements, 65536), [&](int64_t task, int) {
    const auto [i, first] = pieces[task];
    run(i, first, std::min(UPDATE_ELEMENTS, tensors[i].numel() - first));
  });
}

// What these operators return: Paddle requires an output.
Tensors nothing() { return {paddle::empty({1}, paddle::DataType::FLOAT32, paddle::CPUPlace())}; }

Tensors move_averages_op(const Tensors& averages, const Tensors& values, const std::vector<float>& keeps,
                         const std::vector<float>& shares, const std::string& isa) {
  const char* const op = "pimm_move_averages";
  check_instruction_set(op, isa);
  check_lists(op, {&averages, &values}, {&keeps, &shares});
  const auto run = update_kernels(isa).average;
  for_each_piece(averages, [&](size_t i, int64_t first, int64_t count) {
    run(memory_of(averages[i]) + first, memory_of(values[i]) + first, count, keeps[i], shares[i]);
  });
  return nothing();
}

Tensors momentum_op(const Tensors& params, const Tensors& grads, const Tensors& velocities,
                    float rate, float l2, float momentum, bool nesterov, const std::string& isa) {
  const char* const op = "pimm_momentum";
  check_instruction_set(op, isa);
  check_lists(op, {&params, &grads, &velocities}, {});
  const auto run = update_kernels(isa).momentum;
  for_each_piece(params, [&](size_t i, int64_t first, int64_t count) {
    run(memory_of(params[i]) + first, memory_of(grads[i]) + first, memory_of(velocities[i]) + first, count, rate, l2,
        momentum, nesterov);
  });
  return nothing();
}

// `means` are changed where variances are about the mean of gradients (`centered`).
Tensors rmsprop_op(const Tensors& params, const Tensors& grads, const Tensors& squares, const Tensors& velocities,
                   const Tensors& means, float rate, float l2, float keep, bool rate_inside, float alpha, float eps,
                   float momentum, bool centered, const std::string& isa) {
  const char* const op = "pimm_rmsprop";
  check_instruction_set(op, isa);
  check_lists(op, {&params, &grads, &squares, &velocities, &means}, {});
  const auto run = update_kernels(isa).rmsprop;
  for_each_piece(params, [&](size_t i, int64_t first, int64_t count) {
    run(memory_of(params[i]) + first, memory_of(grads[i]) + first, memory_of(squares[i]) + first,
        centered ? memory_of(means[i]) + first : nullptr, memory_of(velocities[i]) + first, count,
        rate_inside ? rate : 1, rate_inside ? 1 : rate, l2, keep, alpha, eps, momentum);
  });
  return nothing();
}
