// Stores: where the ranks of a group find each other.
#include "c10d.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace {
using std::chrono::milliseconds;

// A client that nobody answers logs each attempt as an error, with stack frames, and throws in the end: the exception is enough.
// Threads may connect at once: the last one to end restores the level.
class Quiet {
 public:
  Quiet() {
    std::lock_guard<std::mutex> lock(mutex);
    if (users++ > 0) return;
    before = FLAGS_caffe2_log_level;
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 3; // FATAL
  }
  ~Quiet() {
    std::lock_guard<std::mutex> lock(mutex);
    if (--users == 0) FLAGS_caffe2_log_level = before;
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  inline static std::mutex mutex;
  inline static int users = 0;
  inline static int before = 0;
};

SoftclipStore* boxed(c10::intrusive_ptr<c10d::Store> store) { return new SoftclipStore{std::move(store)}; }
} // namespace

// A server (port 0: any that is free) or a client of one. `bound` becomes the real port.
SOFTCLIP_API SoftclipStore* softclip_tcp_store(
    const char* host, uint16_t port, bool server, int64_t timeout_ms, uint16_t* bound, SoftclipError* e) {
  return guard(e, [&] {
    Quiet quiet;
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = server;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *bound = store->getPort();
    return boxed(std::move(store));
  });
}

// A file on a file system that all ranks share. It is the caller's to remove.
SOFTCLIP_API SoftclipStore* softclip_file_store(const char* path, int64_t timeout_ms, SoftclipError* e) {
  return guard(e, [&] {
    auto store = c10::make_intrusive<c10d::FileStore>(path, /*numWorkers=*/-1);
    store->setTimeout(milliseconds(timeout_ms));
    return boxed(std::move(store));
  });
}

SOFTCLIP_API SoftclipStore* softclip_prefix_store(const char* prefix, const SoftclipStore* inner, SoftclipError* e) {
  return guard(e, [&] { return boxed(c10::make_intrusive<c10d::PrefixStore>(prefix, inner->store)); });
}

SOFTCLIP_API void softclip_store_free(SoftclipStore* store, SoftclipError* e) {
  guard(e, [&] { delete store; });
}

SOFTCLIP_API void softclip_store_set(SoftclipStore* store, const char* key, const uint8_t* value, size_t length, SoftclipError* e) {
  guard(e, [&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Waits for the key. The value is malloc'ed and freed with softclip_free.
SOFTCLIP_API char* softclip_store_get(SoftclipStore* store, const char* key, size_t* length, SoftclipError* e) {
  return guard(e, [&]() -> char* {
    auto value = store->store->get(key);
    auto copy = static_cast<char*>(std::malloc(value.size() + 1));
    if (copy == nullptr) throw std::bad_alloc();
    std::memcpy(copy, value.data(), value.size());
    *length = value.size();
    return copy;
  });
}

SOFTCLIP_API int64_t softclip_store_add(SoftclipStore* store, const char* key, int64_t amount, SoftclipError* e) {
  return guard(e, [&] { return store->store->add(key, amount); });
}

SOFTCLIP_API bool softclip_store_has(SoftclipStore* store, const char* key, SoftclipError* e) {
  return guard(e, [&] { return store->store->check({key}); });
}

SOFTCLIP_API void softclip_store_wait(SoftclipStore* store, const char* key, int64_t timeout_ms, SoftclipError* e) {
  guard(e, [&] { store->store->wait({key}, milliseconds(timeout_ms)); });
}
