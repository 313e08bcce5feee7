// Random generators on the CPU with a state of their own, next to libtorch's process-wide one.
#include "error.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>

struct SoftclipGenerator {
  at::Generator generator;
};

// Seeded as the process-wide generator is by `manual_seed`: the same seed draws the same numbers.
SOFTCLIP_API SoftclipGenerator* softclip_generator(uint64_t seed, SoftclipError* e) {
  return guard(e, [&] { return new SoftclipGenerator{at::make_generator<at::CPUGeneratorImpl>(seed)}; });
}

SOFTCLIP_API void softclip_generator_free(SoftclipGenerator* generator) { delete generator; }

SOFTCLIP_API void softclip_normal(
    const SoftclipGenerator* generator, const at::Tensor* tensor, double mean, double std, SoftclipError* e) {
  guard(e, [&] { tensor->normal_(mean, std, generator->generator); });
}

SOFTCLIP_API void softclip_uniform(
    const SoftclipGenerator* generator, const at::Tensor* tensor, double low, double high, SoftclipError* e) {
  guard(e, [&] { tensor->uniform_(low, high, generator->generator); });
}
