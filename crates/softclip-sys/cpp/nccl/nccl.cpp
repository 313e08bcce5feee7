// An object of its own: only it needs libtorch_cuda, so it is loaded where several GPUs are to work together, after that. All else
// reaches NCCL through c10d's virtual interface.
#include "../c10d.h"

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

// ncclConfig_t lies inside of ProcessGroupNCCL::Options.
static_assert(NCCL_VERSION_CODE == NCCL_VERSION(2, 28, 9), "libtorch 2.11.0 is built with NCCL 2.28.9: its header must be that");

// The caller owns one reference to the result. Returns when all ranks are connected.
SOFTCLIP_API c10d::Backend* softclip_make_nccl(
    const SoftclipStore* store, int32_t rank, int32_t size, int32_t gpu, int64_t timeout_ms, SoftclipError* e) {
  return guard(e, [&]() -> c10d::Backend* {
    const auto device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store->store, rank, size, std::move(options));
    // Barriers take it, which have no tensor to tell their device.
    backend->setBoundDeviceId(device);
    // Otherwise the ranks would meet in their first operation.
    backend->eagerConnectSingleDevice(device);
    return backend.release();
  });
}
