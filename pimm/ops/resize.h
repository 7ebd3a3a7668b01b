// A part of a scaled image, with Pillow's pixels: rows are scaled in their width first, and rounded to bytes.

// Writes [part height, part width, 4] bytes. The sizes are width and height; the part is left, top, width and height.
void resize_part(const uint8_t* pixels, int64_t stride, const int* size, const int* scaled, const int* part,
                 bool is_cubic, const std::string& isa, uint8_t* out) {
  const ResizeTaps across = resize_taps(size[0], scaled[0], part[0], part[2], is_cubic);
  const ResizeTaps down = resize_taps(size[1], scaled[1], part[1], part[3], is_cubic);
  const int first = down.starts.front(), rows = down.starts.back() + down.lengths.back() - first;
  const int row_bytes = 4 * part[2];
  std::vector<uint8_t> between(size_t(rows) * row_bytes);
  std::vector<int32_t> scratch(4 * (size_t(size[0]) + across.each + part[2]));
  const ResizeKernels run = resize_kernels(isa);
  for (int row = 0; row < rows; ++row) {
    uint8_t* const to = between.data() + size_t(row) * row_bytes;
    run.scale_row(pixels + (first + row) * stride, 4 * size[0], across, scratch.data(), to);
  }
  for (int o = 0; o < part[3]; ++o) {
    const uint8_t* const from = between.data() + size_t(down.starts[o] - first) * row_bytes;
    const int32_t* const weights = down.weights.data() + size_t(o) * down.each;
    run.sum_rows(from, row_bytes, down.lengths[o], weights, row_bytes, scratch.data(), out + size_t(o) * row_bytes);
  }
}
