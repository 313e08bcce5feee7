// Process groups and their collectives. Only the constructors know a back-end: what follows them is c10d's virtual interface.
#include "c10d.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>
#include <memory>
#include <string>
#include <vector>

namespace {
using std::chrono::milliseconds;
using Type = c10d::ProcessGroup::BackendType;

SoftclipGroup* boxed(
    const c10::intrusive_ptr<c10d::Store>& store, c10::DeviceType device, Type type, c10::intrusive_ptr<c10d::Backend> backend) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, backend->getRank(), backend->getSize());
  group->setBackend(device, type, backend);
  group->setDefaultBackend(type);
  return new SoftclipGroup{std::move(backend), std::move(group)};
}
} // namespace

// An operation under way. It holds its tensors, so that buffers live as long as it.
struct SoftclipWork {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
};

// `host`: the address whose network carries the traffic; null for what GLOO_SOCKET_IFNAME or the machine's name say.
SOFTCLIP_API SoftclipGroup* softclip_gloo(
    const SoftclipStore* store, int32_t rank, int32_t size, const char* host, int64_t timeout_ms, SoftclipError* e) {
  return guard(e, [&] {
    using c10d::ProcessGroupGloo;
    c10::intrusive_ptr<ProcessGroupGloo::Options> options;
    if (host == nullptr) {
      options = ProcessGroupGloo::Options::create_default(milliseconds(timeout_ms));
    } else {
      options = ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
      options->devices.push_back(ProcessGroupGloo::createDeviceForHostname(host));
    }
    auto backend = c10::make_intrusive<ProcessGroupGloo>(store->store, rank, size, options);
    return boxed(store->store, c10::kCPU, Type::GLOO, std::move(backend));
  });
}

// Loads the object that makes groups of GPUs; libtorch_cuda must be loaded. What it gives makes them, for the life of the process.
SOFTCLIP_API const void* softclip_load_nccl(const uint8_t* object, size_t length, SoftclipError* e) {
  return guard(e, [&]() -> const void* {
    // A file in memory: there may be no place on disk from which code may be loaded.
    const int file = memfd_create("softclip_nccl", MFD_CLOEXEC);
    TORCH_CHECK(file >= 0, "memfd_create: ", strerror(errno));
    for (size_t done = 0; done < length;) {
      const ssize_t n = write(file, object + done, length - done);
      if (n < 0) {
        const int why = errno;
        close(file);
        TORCH_CHECK(false, "a file in memory: ", strerror(why));
      }
      done += static_cast<size_t>(n);
    }
    void* library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    close(file);
    TORCH_CHECK(library, dlerror());
    const void* maker = dlsym(library, "softclip_make_nccl");
    TORCH_CHECK(maker, dlerror());
    return maker;
  });
}

// `maker` is of softclip_load_nccl.
SOFTCLIP_API SoftclipGroup* softclip_nccl(
    const void* maker, const SoftclipStore* store, int32_t rank, int32_t size, int32_t gpu, int64_t timeout_ms, SoftclipError* e) {
  const auto make =
      reinterpret_cast<c10d::Backend* (*)(const SoftclipStore*, int32_t, int32_t, int32_t, int64_t, SoftclipError*)>(maker);
  auto* made = make(store, rank, size, gpu, timeout_ms, e);
  if (made == nullptr) return nullptr;
  return guard(e, [&] {
    auto backend = c10::intrusive_ptr<c10d::Backend>::reclaim(made);
    return boxed(store->store, c10::kCUDA, Type::NCCL, std::move(backend));
  });
}

// Of an abandoned group nothing more is waited for.
SOFTCLIP_API void softclip_group_free(SoftclipGroup* group, bool abandoned, SoftclipError* e) {
  guard(e, [&] {
    std::unique_ptr<SoftclipGroup> owned(group);
    if (abandoned) {
      owned->backend->abort();
    } else {
      owned->backend->shutdown();
    }
  });
}

SOFTCLIP_API SoftclipWork* softclip_all_reduce(SoftclipGroup* group, const at::Tensor* tensor, uint8_t op, SoftclipError* e) {
  return guard(e, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(op);
    auto work = group->backend->allreduce(tensors, options);
    return new SoftclipWork{std::move(work), std::move(tensors)};
  });
}

SOFTCLIP_API SoftclipWork* softclip_broadcast(SoftclipGroup* group, const at::Tensor* tensor, int32_t root, SoftclipError* e) {
  return guard(e, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    auto work = group->backend->broadcast(tensors, options);
    return new SoftclipWork{std::move(work), std::move(tensors)};
  });
}

// `output` is `input` of every rank, one behind the other.
SOFTCLIP_API SoftclipWork* softclip_all_gather(
    SoftclipGroup* group, const at::Tensor* output, const at::Tensor* input, SoftclipError* e) {
  return guard(e, [&] {
    std::vector<at::Tensor> tensors{*output, *input};
    auto work = group->backend->_allgather_base(tensors[0], tensors[1]);
    return new SoftclipWork{std::move(work), std::move(tensors)};
  });
}

// `output` is this rank's part of the sum of every rank's `input`.
SOFTCLIP_API SoftclipWork* softclip_reduce_scatter(
    SoftclipGroup* group, const at::Tensor* output, const at::Tensor* input, SoftclipError* e) {
  return guard(e, [&] {
    std::vector<at::Tensor> tensors{*output, *input};
    auto work = group->backend->_reduce_scatter_base(tensors[0], tensors[1]);
    return new SoftclipWork{std::move(work), std::move(tensors)};
  });
}

SOFTCLIP_API SoftclipWork* softclip_barrier(SoftclipGroup* group, SoftclipError* e) {
  return guard(e, [&] { return new SoftclipWork{group->backend->barrier(), {}}; });
}

// Every step of an operation ends by the group's time-out, and so does this.
SOFTCLIP_API void softclip_work_wait(SoftclipWork* work, SoftclipError* e) {
  guard(e, [&] { TORCH_CHECK(work->work->wait(), "the operation was aborted"); });
}

SOFTCLIP_API bool softclip_work_done(SoftclipWork* work, SoftclipError* e) {
  return guard(e, [&] { return work->work->isCompleted(); });
}

SOFTCLIP_API void softclip_work_free(SoftclipWork* work, SoftclipError* e) {
  guard(e, [&] { delete work; });
}
