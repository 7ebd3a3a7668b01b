// Convolutions of images [N, H, W, C] for evaluation, on the CPU: the channels of a pixel lie side by side.
//
// A plain convolution multiplies matrices without copying the images: for every output pixel and tap (value of the
// kernel) there is a pointer to the input pixel's channels, which leads to zeros beyond the image. Of images with few
// channels, each output pixel's inputs are copied instead, which takes less time. The weights of PANEL output channels
// lie side by side, in the order in which they are read. A depthwise convolution takes a few vectors of channels at a
// time, and leaves out the taps beyond the image. Scale and shift of each output channel (a batch norm), a shortcut and
// an activation are applied before a result leaves the registers.

constexpr int PANEL = 16;         // output channels, a multiple of every vector's width
constexpr int FEW_CHANNELS = 4;   // of images whose pixels are copied
constexpr int ACCUMULATORS = 12;  // vectors of sums, of the 16 registers that an instruction set has at least

enum class Act { none, relu, relu6, swish, hard_swish, hard_sigmoid };

const char* const ACTS[] = {"none", "relu", "relu6", "swish", "hard_swish", "hard_sigmoid"};

Act act_of(const char* op, const std::string& name) {
  for (int i = 0; i < int(std::size(ACTS)); ++i) {
    if (name == ACTS[i]) return Act(i);
  }
  fail(op, "there is no activation '", name, "'");
}

// What happens to a sum: act(sum * scale + shift + shortcut), with scale and shift of each output channel.
template <class T>
struct Finish {
  const T *scale, *shift;  // padded to whole panels
  const T* shortcut;       // of the shape of the output, or null
  Act act;
};

struct Window {
  int64_t images, height, width, channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x, top, left;

  int64_t taps() const { return kernel_height * kernel_width; }
  int64_t out_pixels() const { return images * out_height * out_width; }
  bool is_pointwise() const {
    return taps() == 1 && stride_y == 1 && stride_x == 1 && out_height == height && out_width == width;
  }

  // Returns the convolution of one pixel by which the patches of the images make the same output.
  Window of_patches() const {
    return {images, out_height, out_width, taps() * channels, out_height, out_width, 1, 1, 1, 1, 1, 1, 0, 0};
  }
};

constexpr int64_t MOST_OF_A_SIZE = 1 << 20;  // so that no product of three sizes overflows

Window make_window(const char* op, const std::vector<int64_t>& x, const std::vector<int>& kernel,
                   const std::vector<int>& stride, const std::vector<int>& padding, const std::vector<int>& dilation) {
  const auto check = [&](const char* name, const std::vector<int>& values, size_t count, int least) {
    bool fits = values.size() == count;
    for (const int value : values) fits = fits && value >= least && value <= MOST_OF_A_SIZE;
    if (!fits) fail(op, "the ", name, " must be ", count, " numbers from ", least, " to ", MOST_OF_A_SIZE);
  };
  check("kernel", kernel, 2, 1), check("stride", stride, 2, 1), check("dilation", dilation, 2, 1);
  check("padding", padding, 4, 0);
  if (*std::max_element(x.begin(), x.end()) > MOST_OF_A_SIZE) fail(op, "X ", text_of(x), " is too large");
  const auto out_size = [&](int64_t size, int axis) {
    const int64_t room = size + padding[2 * axis] + padding[2 * axis + 1] - int64_t(dilation[axis]) * (kernel[axis] - 1);
    if (room < 1) fail(op, "the kernel is larger than the padded image");
    return (room - 1) / stride[axis] + 1;
  };
  return {x[0],      x[1],      x[2],        x[3],        out_size(x[1], 0), out_size(x[2], 1), kernel[0],
          kernel[1], stride[0], stride[1],   dilation[0], dilation[1],       padding[0],        padding[2]};
}
