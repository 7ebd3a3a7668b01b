// What the operators check before they touch memory. Every pointer, length and attribute that a kernel relies on is
// checked, for callers that bypass the Python functions too. Paddle turns its own exceptions into Python's and dies of
// any other, std::bad_alloc included.

std::string text_of(const std::vector<int64_t>& shape) {
  std::string list;
  for (const int64_t size : shape) list += (list.empty() ? "" : ", ") + std::to_string(size);
  return "[" + list + "]";
}

template <class... Parts>
[[noreturn]] void fail(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << op << ": ";
  (message << ... << parts);
  PD_THROW(message.str());
}

void check_instruction_set(const char* op, const std::string& isa) {
  if (!supports(isa)) fail(op, "this machine has no instruction set '", isa, "'");
}

void check_tensor(const char* op, const char* name, const paddle::Tensor& tensor) {
  const bool usable = tensor.initialized() && tensor.is_dense_tensor() && tensor.is_cpu();
  const paddle::DataType type = usable ? tensor.dtype() : paddle::DataType::UNDEFINED;
  if (type != paddle::DataType::FLOAT32 && type != paddle::DataType::FLOAT64) {
    fail(op, name, " must be a dense tensor of float32 or float64 on the CPU, and not empty");
  }
}

// As check_tensor, for a tensor of a given shape and of the type of X.
void check_like(const char* op, const char* name, const paddle::Tensor& tensor, const std::vector<int64_t>& shape,
                const paddle::Tensor& x) {
  check_tensor(op, name, tensor);
  if (tensor.dtype() != x.dtype()) fail(op, name, " must have the type of X");
  const std::vector<int64_t> actual = tensor.shape();
  if (actual != shape) fail(op, name, " has shape ", text_of(actual), " and must have ", text_of(shape));
}

// As check_tensor, for a batch of images.
void check_images(const char* op, const paddle::Tensor& x) {
  check_tensor(op, "X", x);
  const std::vector<int64_t> shape = x.shape();
  if (shape.size() != 4 || x.numel() == 0) {
    fail(op, "X has shape ", text_of(shape), " and must have [N, C, H, W], none of them 0");
  }
}

template <class T>
std::vector<T> zeros(const char* op, size_t count) {
  try {
    return std::vector<T>(count);
  } catch (const std::exception&) {
    fail(op, "no memory for ", count, " elements of scratch");
  }
}
