// Process-wide state: logging, CUDA at run time, random state, memory statistics.
#include "error.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Logging.h>
#include <dlfcn.h>
#include <unistd.h>
#include <cstdlib>
#include <string>

// TORCH_CPP_LOG_LEVEL has no effect in a C++ host until this is called. Where it is not set, only errors are told.
SOFTCLIP_API void softclip_init_logging() {
  c10::initLogging();
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 2; // ERROR
}

// Whether CUDA may multiply f32 matrices in TF32 (19 bits); libtorch's default is yes in convolutions.
SOFTCLIP_API void softclip_allow_tf32(bool allow, SoftclipError* e) {
  guard(e, [&] {
    at::globalContext().setAllowTF32CuDNN(allow);
    at::globalContext().setAllowTF32CuBLAS(allow);
  });
}

SOFTCLIP_API bool softclip_allows_tf32(SoftclipError* e) {
  return guard(e, [] { return at::globalContext().allowTF32CuDNN() || at::globalContext().allowTF32CuBLAS(); });
}

// Whether cuDNN times its algorithms at the first convolution of each shape, and takes the fastest.
SOFTCLIP_API void softclip_tune_convolutions(bool tune, SoftclipError* e) {
  guard(e, [&] { at::globalContext().setBenchmarkCuDNN(tune); });
}

// The calling thread's GPU, for all that does not name one.
SOFTCLIP_API void softclip_select_gpu(int32_t index, SoftclipError* e) {
  guard(e, [&] { at::accelerator::setDeviceIndex(static_cast<at::DeviceIndex>(index)); });
}

// Loads libtorch_cuda from the folder of the loaded libtorch_cpu. 1: loaded; 0: this libtorch has none.
// No binary NEEDs libtorch_cuda (the linker drops it as unused), and libtorch caches "no CUDA" at the first question about
// it: so this must run before anything asks.
SOFTCLIP_API int32_t softclip_load_cuda(SoftclipError* e) {
  return guard(e, []() -> int32_t {
    Dl_info info;
    TORCH_CHECK(dladdr(reinterpret_cast<void*>(&at::globalContext), &info) && info.dli_fname, "cannot find where libtorch_cpu lies");
    std::string path(info.dli_fname);
    path = path.substr(0, path.find_last_of('/') + 1) + "libtorch_cuda.so";
    if (access(path.c_str(), R_OK) != 0) return 0;
    TORCH_CHECK(dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL), "cannot load ", path, ": ", dlerror());
    return 1;
  });
}

static at::Device device_of(int32_t type, int32_t index) {
  return at::Device(static_cast<at::DeviceType>(type), static_cast<at::DeviceIndex>(index));
}

// A new tensor handle (u8, CPU): the caller owns it.
SOFTCLIP_API at::Tensor* softclip_rng_state(int32_t type, int32_t index, SoftclipError* e) {
  return guard(e, [&] {
    auto generator = at::globalContext().defaultGenerator(device_of(type, index));
    std::lock_guard<std::mutex> lock(generator.mutex());
    return new at::Tensor(generator.get_state());
  });
}

SOFTCLIP_API void softclip_set_rng_state(int32_t type, int32_t index, const at::Tensor* state, SoftclipError* e) {
  guard(e, [&] {
    auto generator = at::globalContext().defaultGenerator(device_of(type, index));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

// Bytes that the caching allocator of the current accelerator holds for tensors: now and at its peak.
SOFTCLIP_API void softclip_device_memory(int32_t index, int64_t* current, int64_t* peak, SoftclipError* e) {
  guard(e, [&] {
    auto stats = at::accelerator::getDeviceStats(static_cast<at::DeviceIndex>(index));
    const auto& all = stats.allocated_bytes[0];
    *current = all.current;
    *peak = all.peak;
  });
}

SOFTCLIP_API void softclip_reset_peak_memory(int32_t index, SoftclipError* e) {
  guard(e, [&] { at::accelerator::resetPeakStats(static_cast<at::DeviceIndex>(index)); });
}

SOFTCLIP_API void softclip_synchronize(int32_t index, SoftclipError* e) {
  guard(e, [&] { at::accelerator::synchronizeDevice(static_cast<at::DeviceIndex>(index)); });
}
