// The test device: memory that the host cannot read, and streams whose work runs behind the host.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "paddle/phi/backends/device_ext.h"

namespace phi {
class CPUContext;
}

namespace test_device {

constexpr size_t kDevices = 2;
constexpr size_t kMemory = size_t{1} << 30;  // bytes of each device, reserved and not used up
constexpr size_t kAlignment = 256;

// What happened since the start of the process; tests read the counters through `test_device_count`.
enum Counter {
  kCopiesIn,      // host to device, the host waits
  kCopiesInAsync,
  kCopiesOut,     // device to host, the host waits
  kCopiesOutAsync,
  kCopiesInside,
  kWaits,         // the host waited for a stream, an event or the device
  kKernels,
  kHalfKernels,   // of them, computed in float32 for float16 or bfloat16
  kBehind,        // launches that found earlier work of their stream unfinished
  kCollectives,
  kCounters
};
extern std::atomic<int64_t> counters[kCounters];

// Where the device's memory really is. Addresses that Paddle sees point into pages that nobody may read.
void* host_view(const void* address);
bool is_device_address(const void* address);

[[noreturn]] void fail(const std::string& message);

}  // namespace test_device

// A stream of Paddle's interface: one thread that runs jobs in their order.
struct C_Stream_st {
  explicit C_Stream_st(int device);
  ~C_Stream_st();

  void launch(std::function<void()> job);
  void wait();
  bool idle();

  const int device;
  phi::CPUContext* context = nullptr;  // of the kernels, made at the first one and never freed

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool busy_ = false;
  bool closed_ = false;
  std::thread thread_;
};

namespace test_device {
void add_collectives(C_DeviceInterface* interface);
void add_kernels(const char* device_type);
}  // namespace test_device
