#include "runtime.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "paddle/phi/backends/cpu/cpu_context.h"

namespace test_device {

std::atomic<int64_t> counters[kCounters];

void fail(const std::string& message) {
  std::fprintf(stderr, "test device: %s\n", message.c_str());
  std::fflush(stderr);
  std::abort();
}

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN in every floating type, -1 in whole numbers

// Never destroyed: Paddle frees tensors until the very end of the process.
std::set<C_Stream>& streams = *new std::set<C_Stream>;
std::mutex& streams_mutex = *new std::mutex;
thread_local int current_device = 0;

// First the addresses that Paddle sees, then the storage, at the same distance for all devices.
char* reserve() {
  void* base = mmap(nullptr, 2 * kDevices * kMemory, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) fail("no address space");
  char* storage = static_cast<char*>(base) + kDevices * kMemory;
  if (mprotect(storage, kDevices * kMemory, PROT_READ | PROT_WRITE)) fail("no storage");
  return static_cast<char*>(base);
}

char* base() {
  static char* const address = reserve();
  return address;
}

// The free ranges of each device, by their offsets.
struct Memory {
  std::mutex mutex;
  std::map<size_t, size_t> free{{0, kMemory}};
  size_t used = 0;

  void* allocate(int device, size_t size) {
    std::lock_guard<std::mutex> lock(mutex);
    for (auto it = free.begin(); it != free.end(); ++it) {
      if (it->second < size) continue;
      auto [offset, length] = *it;
      free.erase(it);
      if (length > size) free[offset + size] = length - size;
      used += size;
      return base() + device * kMemory + offset;
    }
    return nullptr;
  }

  void release(int device, void* address, size_t size) {
    std::lock_guard<std::mutex> lock(mutex);
    used -= size;
    size_t offset = static_cast<char*>(address) - base() - device * kMemory;
    auto next = free.emplace(offset, size).first;
    auto after = std::next(next);
    if (after != free.end() && next->first + next->second == after->first) {
      next->second += after->second;
      free.erase(after);
    }
    if (next == free.begin()) return;
    auto before = std::prev(next);
    if (before->first + before->second == next->first) {
      before->second += next->second;
      free.erase(next);
    }
  }
};
Memory* const memories = new Memory[kDevices];

size_t rounded(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

std::vector<C_Stream> streams_of(int device) {
  std::lock_guard<std::mutex> lock(streams_mutex);
  std::vector<C_Stream> found;
  for (C_Stream stream : streams) {
    if (stream->device == device) found.push_back(stream);
  }
  return found;
}

void wait_for_streams(int device) {
  for (C_Stream stream : streams_of(device)) stream->wait();
}

}  // namespace

bool is_device_address(const void* address) {
  auto at = static_cast<const char*>(address);
  return at >= base() && at < base() + kDevices * kMemory;
}

void* host_view(const void* address) {
  if (!is_device_address(address)) fail("an address of the host was used as one of the device");
  return const_cast<char*>(static_cast<const char*>(address)) + kDevices * kMemory;
}

}  // namespace test_device

using namespace test_device;  // NOLINT

C_Stream_st::C_Stream_st(int device) : device(device), thread_([this] { run(); }) {}

C_Stream_st::~C_Stream_st() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void C_Stream_st::launch(std::function<void()> job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (busy_ || !jobs_.empty()) ++counters[kBehind];
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void C_Stream_st::wait() {
  if (std::this_thread::get_id() == thread_.get_id()) fail("a stream waits for itself");
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return jobs_.empty() && !busy_; });
}

bool C_Stream_st::idle() {
  std::lock_guard<std::mutex> lock(mutex_);
  return jobs_.empty() && !busy_;
}

void C_Stream_st::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    busy_ = true;
    lock.unlock();
    job();
    job = nullptr;  // frees tensors, which may launch further jobs
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

// An event is the stream's position when the event was recorded.
struct C_Event_st {
  struct Mark {
    std::mutex mutex;
    std::condition_variable changed;
    bool reached = false;
  };
  std::shared_ptr<Mark> mark;
};

namespace {

using Mark = C_Event_st::Mark;

void reach(const std::shared_ptr<Mark>& mark) {
  {
    std::lock_guard<std::mutex> lock(mark->mutex);
    mark->reached = true;
  }
  mark->changed.notify_all();
}

void wait_for(const std::shared_ptr<Mark>& mark) {
  if (!mark) return;
  std::unique_lock<std::mutex> lock(mark->mutex);
  mark->changed.wait(lock, [&] { return mark->reached; });
}

C_Status nothing() { return C_SUCCESS; }
C_Status nothing_on(const C_Device) { return C_SUCCESS; }

// Paddle calls it as the process ends, before it destroys what unfinished jobs need, such as allocators.
C_Status finalize() {
  for (size_t device = 0; device < kDevices; ++device) wait_for_streams(static_cast<int>(device));
  return C_SUCCESS;
}

C_Status set_device(const C_Device device) {
  current_device = device->id;
  return C_SUCCESS;
}

C_Status get_device(const C_Device device) {
  device->id = current_device;
  return C_SUCCESS;
}

C_Status get_device_count(size_t* count) {
  *count = kDevices;
  return C_SUCCESS;
}

C_Status get_device_list(size_t* devices) {
  for (size_t i = 0; i < kDevices; ++i) devices[i] = i;
  return C_SUCCESS;
}

C_Status create_stream(const C_Device device, C_Stream* stream) {
  std::lock_guard<std::mutex> lock(streams_mutex);
  *stream = new C_Stream_st(device->id);
  streams.insert(*stream);
  return C_SUCCESS;
}

C_Status destroy_stream(const C_Device, C_Stream stream) {
  stream->wait();
  {
    std::lock_guard<std::mutex> lock(streams_mutex);
    streams.erase(stream);
  }
  delete stream;
  return C_SUCCESS;
}

C_Status query_stream(const C_Device, C_Stream stream) { return stream->idle() ? C_SUCCESS : C_FAILED; }

C_Status add_callback(const C_Device device, C_Stream stream, C_Callback callback, void* data) {
  C_Device_st own = *device;
  stream->launch([=]() mutable {
    C_Status status = C_SUCCESS;
    callback(&own, stream, data, &status);
  });
  return C_SUCCESS;
}

C_Status create_event(const C_Device, C_Event* event) {
  *event = new C_Event_st;
  return C_SUCCESS;
}

C_Status destroy_event(const C_Device, C_Event event) {
  delete event;
  return C_SUCCESS;
}

C_Status record_event(const C_Device, C_Stream stream, C_Event event) {
  auto mark = event->mark = std::make_shared<Mark>();
  stream->launch([mark] { reach(mark); });
  return C_SUCCESS;
}

C_Status query_event(const C_Device, C_Event event) {
  if (!event->mark) return C_SUCCESS;
  std::lock_guard<std::mutex> lock(event->mark->mutex);
  return event->mark->reached ? C_SUCCESS : C_FAILED;
}

C_Status synchronize_device(const C_Device device) {
  ++counters[kWaits];
  wait_for_streams(device->id);
  return C_SUCCESS;
}

C_Status synchronize_stream(const C_Device, C_Stream stream) {
  ++counters[kWaits];
  stream->wait();
  return C_SUCCESS;
}

C_Status synchronize_event(const C_Device, C_Event event) {
  ++counters[kWaits];
  wait_for(event->mark);
  return C_SUCCESS;
}

C_Status stream_wait_event(const C_Device, C_Stream stream, C_Event event) {
  stream->launch([mark = event->mark] { wait_for(mark); });
  return C_SUCCESS;
}

C_Status allocate(const C_Device device, void** address, size_t size) {
  *address = memories[device->id].allocate(device->id, rounded(size));
  if (!*address) return C_FAILED;
  std::memset(host_view(*address), kPoison, rounded(size));
  return C_SUCCESS;
}

// Work that was launched before may still use the memory: it is free when all streams have come this far.
C_Status deallocate(const C_Device device, void* address, size_t size) {
  int id = device->id;
  size = rounded(size);
  std::shared_ptr<void> last(nullptr, [=](void*) {
    std::memset(host_view(address), kPoison, size);
    memories[id].release(id, address, size);
  });
  for (C_Stream stream : streams_of(id)) stream->launch([last] {});
  return C_SUCCESS;
}

C_Status set_memory(const C_Device device, void* address, unsigned char value, size_t size) {
  wait_for_streams(device->id);
  std::memset(host_view(address), value, size);
  return C_SUCCESS;
}

C_Status memory_stats(const C_Device device, size_t* total, size_t* free) {
  *total = kMemory;
  *free = kMemory - memories[device->id].used;
  return C_SUCCESS;
}

C_Status host_allocate(const C_Device, void** address, size_t size) {
  *address = std::malloc(size);
  return *address ? C_SUCCESS : C_FAILED;
}

C_Status host_deallocate(const C_Device, void* address, size_t) {
  std::free(address);
  return C_SUCCESS;
}

C_Status copy_in(const C_Device device, void* to, const void* from, size_t size) {
  ++counters[kCopiesIn];
  wait_for_streams(device->id);
  std::memcpy(host_view(to), from, size);
  return C_SUCCESS;
}

C_Status copy_out(const C_Device device, void* to, const void* from, size_t size) {
  ++counters[kCopiesOut];
  wait_for_streams(device->id);
  std::memcpy(to, host_view(from), size);
  return C_SUCCESS;
}

C_Status copy_inside(const C_Device device, void* to, const void* from, size_t size) {
  ++counters[kCopiesInside];
  wait_for_streams(device->id);
  std::memmove(host_view(to), host_view(from), size);
  return C_SUCCESS;
}

C_Status copy_across(const C_Device to_device, const C_Device from_device, void* to, const void* from, size_t size) {
  wait_for_streams(to_device->id);
  return copy_inside(from_device, to, from, size);
}

// Reads the host's memory in its turn: who frees or changes the memory before then copies something else.
C_Status copy_in_async(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  ++counters[kCopiesInAsync];
  stream->launch([=] { std::memcpy(host_view(to), from, size); });
  return C_SUCCESS;
}

C_Status copy_out_async(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  ++counters[kCopiesOutAsync];
  stream->launch([=] { std::memcpy(to, host_view(from), size); });
  return C_SUCCESS;
}

C_Status copy_inside_async(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  ++counters[kCopiesInside];
  stream->launch([=] { std::memmove(host_view(to), host_view(from), size); });
  return C_SUCCESS;
}

C_Status copy_across_async(
    const C_Device, const C_Device from_device, C_Stream stream, void* to, const void* from, size_t size) {
  wait_for_streams(from_device->id);
  return copy_inside_async(from_device, stream, to, from, size);
}

C_Status chunk_size(const C_Device, size_t* size) {
  *size = kAlignment;
  return C_SUCCESS;
}

C_Status zero(const C_Device, size_t* number) {
  *number = 0;
  return C_SUCCESS;
}

C_Status yes(const C_Device, bool* supported) {
  *supported = true;
  return C_SUCCESS;
}

void fill(C_DeviceInterface* it) {
  it->initialize = nothing;
  it->finalize = finalize;
  it->init_device = it->deinit_device = nothing_on;
  it->set_device = set_device;
  it->get_device = get_device;
  it->get_device_count = get_device_count;
  it->get_device_list = get_device_list;
  it->create_stream = create_stream;
  it->destroy_stream = destroy_stream;
  it->query_stream = query_stream;
  it->stream_add_callback = add_callback;
  it->create_event = create_event;
  it->destroy_event = destroy_event;
  it->record_event = record_event;
  it->query_event = query_event;
  it->synchronize_device = synchronize_device;
  it->synchronize_stream = synchronize_stream;
  it->synchronize_event = synchronize_event;
  it->stream_wait_event = stream_wait_event;
  it->device_memory_allocate = allocate;
  it->device_memory_deallocate = deallocate;
  it->device_memory_set = set_memory;
  it->device_memory_stats = memory_stats;
  it->host_memory_allocate = host_allocate;
  it->host_memory_deallocate = host_deallocate;
  it->memory_copy_h2d = copy_in;
  it->memory_copy_d2h = copy_out;
  it->memory_copy_d2d = copy_inside;
  it->memory_copy_p2p = copy_across;
  it->async_memory_copy_h2d = copy_in_async;
  it->async_memory_copy_d2h = copy_out_async;
  it->async_memory_copy_d2d = copy_inside_async;
  it->async_memory_copy_p2p = copy_across_async;
  it->device_min_chunk_size = chunk_size;
  it->get_compute_capability = it->get_runtime_version = it->get_driver_version = zero;
  it->is_float16_supported = it->is_bfloat16_supported = yes;
}

}  // namespace

extern "C" int64_t test_device_count(int counter) { return counters[counter]; }

extern "C" void InitPlugin(CustomRuntimeParams* params) {
  PADDLE_CUSTOM_RUNTIME_CHECK_VERSION(params);
  const char* name = std::getenv("TEST_DEVICE_NAME");
  params->device_type = strdup(name ? name : "testdevice");
  params->sub_device_type = strdup("V1");
  std::memset(static_cast<void*>(params->interface), 0, sizeof(C_DeviceInterface));
  params->interface->size = sizeof(C_DeviceInterface);
  fill(params->interface);
  add_collectives(params->interface);
  add_kernels(params->device_type);
}
