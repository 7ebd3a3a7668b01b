// Collectives between the processes of one machine, over a file in shared memory.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "paddle/phi/common/bfloat16.h"
#include "paddle/phi/common/float16.h"
#include "runtime.h"

namespace {

constexpr size_t kSlot = size_t{1} << 20;  // bytes that one process gives in one round

struct Header {
  std::atomic<int64_t> arrived;
};

struct Bytes {
  const char* data;
  size_t size;
};

size_t size_of(C_DataType type) {
  switch (type) {
    case BOOL: case UINT8: case INT8: return 1;
    case UINT16: case INT16: case FLOAT16: case BFLOAT16: return 2;
    case UINT32: case INT32: case FLOAT32: return 4;
    case UINT64: case INT64: case FLOAT64: return 8;
    default: test_device::fail("a collective of an unknown type");
  }
}

template <typename T>
void combine_as(C_CCLReduceOp op, T* total, const T* value, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    switch (op) {
      case MAX: total[i] = std::max(total[i], value[i]); break;
      case MIN: total[i] = std::min(total[i], value[i]); break;
      case PRODUCT: total[i] = total[i] * value[i]; break;
      default: total[i] = total[i] + value[i];
    }
  }
}

void combine(C_DataType type, C_CCLReduceOp op, void* total, const void* value, size_t count) {
#define CASE(NAME, T) \
  case NAME: return combine_as(op, static_cast<T*>(total), static_cast<const T*>(value), count)
  switch (type) {
    CASE(FLOAT32, float);
    CASE(FLOAT64, double);
    CASE(INT32, int32_t);
    CASE(INT64, int64_t);
    CASE(UINT8, uint8_t);
    CASE(FLOAT16, phi::dtype::float16);
    CASE(BFLOAT16, phi::dtype::bfloat16);
    default: test_device::fail("a reduction of an unknown type");
  }
#undef CASE
}

}  // namespace

struct C_CCLComm_st {
  size_t ranks, rank;
  std::string name;
  char* memory;
  int64_t rounds = 0;  // of this process; only the stream's thread counts

  Header* header() { return reinterpret_cast<Header*>(memory); }
  char* slot(size_t of) { return memory + 4096 + of * kSlot; }

  void barrier() {
    int64_t all = ++rounds * static_cast<int64_t>(ranks);
    ++header()->arrived;
    while (header()->arrived < all) usleep(50);
  }

  // Runs `use` with everybody's bytes, kSlot at a time: `use(offset, size)`.
  template <typename Use>
  void exchange(const char* mine, size_t size, Use use) {
    for (size_t offset = 0; offset < size; offset += kSlot) {
      size_t part = std::min(kSlot, size - offset);
      if (mine) std::memcpy(slot(rank), mine + offset, part);
      barrier();
      use(offset, part);
      barrier();
    }
  }
};

namespace {

using test_device::host_view;

char* view(const void* address) { return static_cast<char*>(host_view(address)); }

C_Status comm_name(C_CCLComm comm, char* name) {
  std::strcpy(name, comm->name.c_str());
  return C_SUCCESS;
}

C_Status unique_id_size(size_t* size) {
  *size = 64;
  return C_SUCCESS;
}

C_Status unique_id(C_CCLRootId* id) {
  std::random_device random;
  std::memset(id->data, 0, id->sz);
  std::snprintf(static_cast<char*>(id->data), id->sz, "/test_device_%08x%08x", random(), random());
  return C_SUCCESS;
}

C_Status init_rank(size_t ranks, C_CCLRootId* id, size_t rank, C_CCLComm* comm) {
  std::string name(static_cast<char*>(id->data));
  size_t size = 4096 + ranks * kSlot;
  int file = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(size))) return C_FAILED;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return C_FAILED;
  *comm = new C_CCLComm_st{ranks, rank, name, static_cast<char*>(memory)};
  (*comm)->barrier();
  if (rank == 0) shm_unlink(name.c_str());
  return C_SUCCESS;
}

C_Status destroy_comm(C_CCLComm comm) {
  delete comm;
  return C_SUCCESS;
}

C_Status reduce_to(
    void* send, void* receive, size_t count, C_DataType type, C_CCLReduceOp op, int root, C_CCLComm comm, C_Stream stream) {
  ++test_device::counters[test_device::kCollectives];
  stream->launch([=] {
    size_t each = size_of(type);
    comm->exchange(view(send), count * each, [&](size_t offset, size_t part) {
      if (root >= 0 && comm->rank != static_cast<size_t>(root)) return;
      char* total = view(receive) + offset;
      std::memcpy(total, comm->slot(0), part);  // in the order of ranks: the same sum everywhere
      for (size_t of = 1; of < comm->ranks; ++of) combine(type, op, total, comm->slot(of), part / each);
    });
  });
  return C_SUCCESS;
}

C_Status all_reduce(
    void* send, void* receive, size_t count, C_DataType type, C_CCLReduceOp op, C_CCLComm comm, C_Stream stream) {
  return reduce_to(send, receive, count, type, op, -1, comm, stream);
}

C_Status reduce(void* send, void* receive, size_t count, C_DataType type, C_CCLReduceOp op, size_t root,
                C_CCLComm comm, C_Stream stream) {
  return reduce_to(send, receive, count, type, op, static_cast<int>(root), comm, stream);
}

C_Status broadcast(void* buffer, size_t count, C_DataType type, size_t root, C_CCLComm comm, C_Stream stream) {
  ++test_device::counters[test_device::kCollectives];
  stream->launch([=] {
    bool gives = comm->rank == root;
    comm->exchange(gives ? view(buffer) : nullptr, count * size_of(type), [&](size_t offset, size_t part) {
      if (!gives) std::memcpy(view(buffer) + offset, comm->slot(root), part);
    });
  });
  return C_SUCCESS;
}

C_Status all_gather(void* send, void* receive, size_t count, C_DataType type, C_CCLComm comm, C_Stream stream) {
  ++test_device::counters[test_device::kCollectives];
  stream->launch([=] {
    size_t size = count * size_of(type);
    comm->exchange(view(send), size, [&](size_t offset, size_t part) {
      for (size_t of = 0; of < comm->ranks; ++of) {
        std::memcpy(view(receive) + of * size + offset, comm->slot(of), part);
      }
    });
  });
  return C_SUCCESS;
}

C_Status nothing() { return C_SUCCESS; }

}  // namespace

void test_device::add_collectives(C_DeviceInterface* it) {
  it->xccl_get_comm_name = comm_name;
  it->xccl_get_unique_id_size = unique_id_size;
  it->xccl_get_unique_id = unique_id;
  it->xccl_comm_init_rank = init_rank;
  it->xccl_destroy_comm = destroy_comm;
  it->xccl_all_reduce = all_reduce;
  it->xccl_reduce = reduce;
  it->xccl_broadcast = broadcast;
  it->xccl_all_gather = all_gather;
  it->xccl_group_start = it->xccl_group_end = nothing;
}
