// x Wᵀ + b by oneDNN.
#include "error.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

using LinearPointwise = at::Tensor(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
    c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

// A new tensor, or null where the plain operator has to be taken: gradients, other devices and number types, autocast, a libtorch
// without oneDNN.
SOFTCLIP_API at::Tensor* softclip_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, SoftclipError* e) {
  return guard(e, [&]() -> at::Tensor* {
    auto plain = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
    bool grad = at::GradMode::is_enabled() &&
        (x->requires_grad() || weight->requires_grad() || (bias != nullptr && bias->requires_grad()));
    if (grad || x->numel() == 0 || !plain(*x) || !plain(*weight) || (bias != nullptr && !plain(*bias))) return nullptr;
    if (at::autocast::is_autocast_enabled(at::kCPU) || !at::globalContext().userEnabledMkldnn()) return nullptr;
    static const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!op) return nullptr;
    at::AutoDispatchBelowADInplaceOrView below;
    std::optional<at::Tensor> b;
    if (bias != nullptr) b = *bias;
    return new at::Tensor(op->typed<LinearPointwise>().call(
        x->contiguous(), *weight, b, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt));
  });
}
