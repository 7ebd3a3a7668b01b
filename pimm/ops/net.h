// A whole net for evaluation as one operator. Each thread takes a few images at a time through all steps, in memory
// that stays in its caches, and waits for no other thread before the end. A step computes one value [N, H, W, C] from
// earlier ones; value 0 are the images, and the last value are the logits.

enum class Kind { convolution, depthwise, mean, gate };

struct Step {
  Kind kind;
  int64_t from, gate, shortcut, weight, shift;  // numbers of values, and of weights; -1 for none
  Act act;
  Window window;  // of one image
  int64_t outs;

  int64_t size() const { return window.out_height * window.out_width * outs; }
};

constexpr int STEP_NUMBERS = 18;           // by which an attribute describes a step, see read_step
constexpr int64_t MOST_IMAGES = 32;        // of a piece, so that weights are read for many images at a time
// The same for a net of more multiply-adds for an image than SMALL_WORK: a disturbed thread holds up the others for the
// time of a piece.
constexpr int64_t MOST_LARGE_IMAGES = 8;
constexpr int64_t SMALL_WORK = 100000000;
constexpr int64_t NEAR_NUMBERS = 1 << 17;  // that stay in a core's own cache
constexpr double LARGEST = 1e10;           // numbers of a value of an image, so that no sum of places overflows

// Steps that follow each other and take as many images at a time: few where an image's values are large, so that they
// stay near, and more where the weights are the larger part.
struct Stage {
  size_t end;      // the number of the first step after it
  int64_t images;  // at a time
};

class Net {
 public:
  Net(const paddle::Tensor& images, const Tensors& weights, const std::vector<int>& numbers, int64_t threads) {
    const std::vector<int64_t> x = images.shape();
    shapes_.push_back({x[2], x[3], x[1]});
    if (numbers.empty() || numbers.size() % STEP_NUMBERS) fail(op_, "the steps are not described in whole");
    for (size_t i = 0; i < numbers.size(); i += STEP_NUMBERS) read_step(numbers.data() + i, weights, images);
    piece_ = images_of_piece(x[0], threads);
    make_stages();
    find_uses();
    place_values();
  }

  const std::vector<Step>& steps() const { return steps_; }
  int64_t outs() const { return steps_.back().outs; }
  const std::vector<Stage>& stages() const { return stages_; }
  int64_t piece() const { return piece_; }    // images that a thread takes at a time
  int64_t total() const { return total_; }    // numbers that hold all values of a piece
  int64_t place(int64_t value) const { return places_[value]; }
  int64_t work() const { return work_; }      // multiply-adds for an image
  int64_t widest() const { return widest_; }  // channels, rounded up to panels

  // Returns the stage that uses a value last; the value is kept for all images of that stage.
  size_t stage_of_use(int64_t value) const { return last_stages_[value]; }

  int64_t size(int64_t value) const { return shapes_[value][0] * shapes_[value][1] * shapes_[value][2]; }

 private:
  const char* const op_ = "pimm_net";
  std::vector<Step> steps_;
  std::vector<std::vector<int64_t>> shapes_;  // of each value: height, width, channels
  std::vector<Stage> stages_;
  std::vector<int64_t> places_;      // of each value in the memory of a piece
  std::vector<int64_t> last_;        // of each value: the number, from 1, of the last step that uses it
  std::vector<size_t> last_stages_;  // of each value: that step's stage
  int64_t piece_ = 1, total_ = 0, work_ = 0, widest_ = PANEL;

  // Returns how many images a thread takes at a time, so that every thread takes as many pieces as the others.
  int64_t images_of_piece(int64_t images, int64_t threads) const {
    const int64_t most = work_ > SMALL_WORK ? MOST_LARGE_IMAGES : MOST_IMAGES;
    return div_up(images, threads * div_up(images, threads * most));
  }

  void check_value(int number, const std::vector<int64_t>& shape) const {
    if (number < 0 || number >= int(shapes_.size())) fail(op_, "there is no value ", number, " before a step");
    if (shapes_[number] != shape) {
      fail(op_, "value ", number, " has shape ", text_of(shapes_[number]), ", not ", text_of(shape));
    }
  }

  // Numbers: kind, from, gate, shortcut, weight, shift, act, outs, kernel, stride, padding (4), dilation.
  void read_step(const int* n, const Tensors& weights, const paddle::Tensor& images) {
    if (n[0] < 0 || n[0] > int(Kind::gate)) fail(op_, "there is no kind of step ", n[0]);
    if (n[1] < 0 || n[1] >= int(shapes_.size())) fail(op_, "there is no value ", n[1], " before a step");
    if (n[6] < 0 || n[6] >= int(std::size(ACTS))) fail(op_, "there is no activation ", n[6]);
    const Kind kind = Kind(n[0]);
    const std::vector<int64_t> x = shapes_[n[1]];
    const bool convolves = kind == Kind::convolution || kind == Kind::depthwise;
    if (n[7] < 1 || n[7] > MOST_OF_A_SIZE) fail(op_, "there are ", n[7], " output channels");
    if (kind != Kind::convolution && n[7] != x[2]) fail(op_, "a step must keep the channels");
    const Window w = make_window(op_, {1, x[0], x[1], x[2]}, {n[8], n[9]}, {n[10], n[11]}, {n[12], n[13], n[14], n[15]},
                                 {n[16], n[17]});
    Step step{kind, n[1], n[2], n[3], n[4], n[5], Act(n[6]), w, n[7]};
    if (kind == Kind::mean) step.window.out_height = step.window.out_width = 1;
    if (double(w.out_height) * double(w.out_width) * n[7] > LARGEST) fail(op_, "the value of a step is too large");
    if (kind == Kind::gate && n[2] < 0) fail(op_, "a gate is missing");
    if (step.gate >= 0) check_value(n[2], {1, 1, x[2]});
    if (step.gate >= 0 && (!w.is_pointwise() || kind == Kind::depthwise || kind == Kind::mean)) {
      fail(op_, "a gate needs a kernel of one pixel");
    }
    if (step.shortcut >= 0) check_value(n[3], {w.out_height, w.out_width, n[7]});
    if (convolves) {
      const auto check = [&](int number, const std::vector<int64_t>& shape) {
        if (number < 0 || number >= int(weights.size())) fail(op_, "there is no weight ", number);
        check_like(op_, "a weight", weights[number], shape, images);
      };
      const int64_t panels = div_up(n[7], PANEL);
      kind == Kind::depthwise ? check(n[4], {w.taps(), x[2]}) : check(n[4], {panels, w.taps(), x[2], PANEL});
      check(n[5], {panels * PANEL});
    }
    work_ += step.size() * w.taps() * (kind == Kind::convolution ? x[2] : 1);
    widest_ = std::max({widest_, div_up(n[7], PANEL) * PANEL, x[2]});
    steps_.push_back(step);
    shapes_.push_back({step.window.out_height, step.window.out_width, step.outs});
  }

  // Returns how many images a step should take at a time: so many that what it reads and writes of them stays near, or is
  // as much as its weights.
  int64_t images_of_step(const Step& step) const {
    int64_t weights = 0;
    if (step.kind == Kind::convolution) weights = step.window.taps() * step.window.channels * step.outs;
    return std::max<int64_t>(1, std::max(NEAR_NUMBERS, weights) / (size(step.from) + step.size()));
  }

  // Divides the steps into stages, each of at least twice as many images as the one before, which is why a step may take
  // up to twice as many as it should.
  void make_stages() {
    int64_t least = piece_;
    for (size_t i = steps_.size(); i-- > 0;) {
      const int64_t fitting = images_of_step(steps_[i]);
      if (stages_.empty() || fitting * 2 <= least) stages_.push_back({i + 1, least = std::min(least, fitting)});
    }
    std::reverse(stages_.begin(), stages_.end());
  }

  size_t stage_of_step(int64_t number) const {  // from 1
    size_t stage = 0;
    while (stages_[stage].end < size_t(number)) ++stage;
    return stage;
  }

  void find_uses() {
    last_.assign(shapes_.size(), 0);
    last_.back() = int64_t(steps_.size());
    for (size_t i = 0; i < steps_.size(); ++i) {
      for (const int64_t value : {steps_[i].from, steps_[i].gate, steps_[i].shortcut}) {
        if (value >= 0) last_[value] = int64_t(i) + 1;
      }
    }
    for (size_t i = 0; i < shapes_.size(); ++i) last_stages_.push_back(stage_of_step(std::max(last_[i], int64_t(i))));
  }

  // Gives each value a place that no other one takes as long as it is needed.
  void place_values() {
    struct Taken {
      int64_t begin, end, last;
    };
    std::vector<Taken> taken;  // in the order of the places
    places_.assign(shapes_.size(), 0);
    const auto place = [&](int64_t value) {
      const int64_t numbers = div_up(size(value) * stages_[last_stages_[value]].images, PANEL) * PANEL;
      int64_t begin = 0;
      auto next = taken.begin();
      for (; next != taken.end() && next->begin - begin < numbers; ++next) begin = next->end;
      taken.insert(next, {begin, begin + numbers, last_[value]});
      places_[value] = begin;
      total_ = std::max(total_, begin + numbers);
    };
    // What a stage leaves for a later one must outlive the values of the next images of the stage.
    const auto outlives = [&](int64_t value) { return last_stages_[value] > stage_of_step(std::max<int64_t>(value, 1)); };
    for (int64_t value = 0; value < int64_t(shapes_.size()); ++value) {
      if (outlives(value)) place(value);
    }
    for (int64_t value = 0; value < int64_t(shapes_.size()); ++value) {
      const auto is_free = [&](const Taken& each) { return each.last < value; };
      taken.erase(std::remove_if(taken.begin(), taken.end(), is_free), taken.end());
      if (!outlives(value)) place(value);
    }
  }
};

// What one thread needs to take a piece of images through a net.
class Runner {
 public:
  Runner(const Net& net, const Kernels<float>& kernels, const std::vector<const float*>& weights, float* memory)
      : net_(net), kernels_(kernels), weights_(weights), memory_(memory), ones_(net.widest(), 1.0f),
        begins_(net.stages().size()), scratch_(net.widest()) {}

  // Computes the logits of `count` images [C, H, W].
  void run(const float* images, int64_t count, float* logits) {
    images_ = images, logits_ = logits;
    run_stage(net_.stages().size() - 1, 0, count);
  }

 private:
  const Net& net_;
  const Kernels<float>& kernels_;
  const std::vector<const float*>& weights_;
  float* const memory_;
  const std::vector<float> ones_;
  std::vector<int64_t> begins_;  // of each stage: the first of the images that it takes now
  Scratch<float> scratch_;
  const float* images_ = nullptr;
  float* logits_ = nullptr;

  // Takes images of the piece through a stage and all stages before it.
  void run_stage(size_t stage, int64_t first, int64_t count) {
    const Stage& now = net_.stages()[stage];
    const int64_t end = first + count;
    for (; first < end; first += now.images) {
      const int64_t images = std::min(now.images, end - first);
      begins_[stage] = first;
      stage ? run_stage(stage - 1, first, images) : load(first, images);
      for (size_t i = stage ? net_.stages()[stage - 1].end : 0; i < now.end; ++i) {
        run_step(net_.steps()[i], int64_t(i) + 1, first, images);
      }
    }
  }

  // Returns the place of a value of a piece's images from `first` on.
  float* memory_of(int64_t value, int64_t first) const {
    if (value < 0) return nullptr;
    if (value == int64_t(net_.steps().size())) return logits_ + first * net_.outs();
    return memory_ + net_.place(value) + (first - begins_[net_.stage_of_use(value)]) * net_.size(value);
  }

  // Stores images [C, H, W] as value 0.
  void load(int64_t first, int64_t count) {
    const Window& w = net_.steps()[0].window;
    const int64_t size = net_.size(0);
    for (int64_t i = first; i < first + count; ++i) {
      kernels_.interleave_channels(images_ + i * size, w.height * w.width, w.channels, memory_of(0, i));
    }
  }

  void run_step(const Step& step, int64_t value, int64_t first, int64_t count) {
    Window w = step.window;
    w.images = count;
    const float *const x = memory_of(step.from, first), *const gate = memory_of(step.gate, first);
    float* const out = memory_of(value, first);
    const int64_t plane = w.height * w.width;
    if (step.kind == Kind::gate) {
      kernels_.gate_pixels(x, gate, 0, count * plane, plane, w.channels, out);
    } else if (step.kind == Kind::mean) {
      std::fill_n(out, count * w.channels, 0.0f);
      for (int64_t i = 0; i < count; ++i) {
        kernels_.add_pixels(x + i * plane * w.channels, plane, w.channels, out + i * w.channels);
      }
      for (int64_t i = 0; i < count * w.channels; ++i) out[i] /= float(plane);
    } else {
      const Finish<float> finish{ones_.data(), weights_[step.shift], memory_of(step.shortcut, first), step.act};
      if (step.kind == Kind::depthwise) {
        for (int64_t i = 0; i < count; ++i) kernels_.convolve_depthwise(w, x, weights_[step.weight], finish, i, out);
      } else {
        convolve(w, x, weights_[step.weight], step.outs, finish, gate, out);
      }
    }
  }

  void convolve(const Window& w, const float* x, const float* panels, int64_t outs, const Finish<float>& finish,
                const float* gate, float* out) {
    const int64_t block = pixels_of_block<float>(w), pixels = w.out_pixels();
    for (int64_t first = 0; first < pixels; first += block) {
      const int64_t count = std::min(block, pixels - first);
      convolve_block(kernels_, w, x, panels, outs, finish, gate, first, count, scratch_, out);
    }
  }
};

Tensors net_op(const paddle::Tensor& input, const Tensors& weights, const std::vector<int>& steps,
               const std::string& isa) {
  const char* const op = "pimm_net";
  check_instruction_set(op, isa);
  check_images(op, input);
  if (input.dtype() != paddle::DataType::FLOAT32) fail(op, "X must be of float32");
  const paddle::Tensor x = contiguous(input);
  const Net net(x, weights, steps, max_threads());
  const Window& last = net.steps().back().window;
  if (last.out_height * last.out_width != 1) fail(op, "the logits must be of one pixel");
  const int64_t images = x.shape()[0], image_size = x.numel() / images;
  const int64_t piece = net.piece(), tasks = div_up(images, piece);
  const int threads = worthwhile_threads(tasks, images * net.work(), WORTH);
  std::vector<paddle::Tensor> kept;  // Weights in one piece
  std::vector<const float*> pointers;
  for (const paddle::Tensor& weight : weights) {
    kept.push_back(contiguous(weight));
    pointers.push_back(kept.back().data<float>());
  }
  static thread_local std::vector<float> memory;  // kept for the next images: new memory costs more than a small net
  const size_t floats = size_t(net.total()) * size_t(threads);
  if (memory.size() < floats) memory = zeros<float>(op, floats);
  paddle::Tensor out = paddle::empty({images, net.outs()}, x.dtype(), x.place());
  const Kernels<float> kernel = kernels<float>(isa);
  const float* const from = x.data<float>();
  float *const to = out.data<float>(), *const begin = memory.data();
  for_each_task(tasks, threads, [&](int64_t task, int thread) {
    Runner runner(net, kernel, pointers, begin + thread * net.total());
    const int64_t first = task * piece;
    runner.run(from + first * image_size, std::min(piece, images - first), to + first * net.outs());
  });
  return {out};
}
