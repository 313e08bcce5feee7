// Process groups and their collectives. Only the constructors know a back-end: what follows them is c10d's virtual interface.
#include "c10d.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
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

SOFTCLIP_API void softclip_group_free(SoftclipGroup* group, SoftclipError* e) {
  guard(e, [&] { delete group; });
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
