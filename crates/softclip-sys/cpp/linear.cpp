// x Wᵀ + b by oneDNN, and its gradients.
#include "error.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {

using LinearPointwise = at::Tensor(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
    c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

const std::optional<c10::OperatorHandle>& operation() {
  static const auto op = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return op;
}

// a Bᵀ, and b added where it is defined; outside of autograd.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  at::AutoDispatchBelowADInplaceOrView below;
  std::optional<at::Tensor> added;
  if (bias.defined()) added = bias;
  return operation()->typed<LinearPointwise>().call(a, b, added, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

at::Tensor rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(torch::autograd::AutogradContext* c, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    c->save_for_backward({x, weight});
    c->saved_data["bias"] = bias.defined();
    return product(x.contiguous(), weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* c, torch::autograd::variable_list grads) {
    const auto saved = c->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const at::Tensor& g = grads[0];
    torch::autograd::variable_list out(3);
    if (!g.defined()) return out;
    // The gradient of a gradient goes through operators that have one.
    const bool again = at::GradMode::is_enabled();
    auto times = [&](const at::Tensor& a, const at::Tensor& b) { return again ? at::matmul(a, b.t()) : product(a, b, {}); };
    const at::Tensor flat = rows(g).contiguous();
    if (c->needs_input_grad(0)) out[0] = times(flat, weight.t()).view_as(x);
    if (c->needs_input_grad(1)) out[1] = times(flat.t(), rows(x).t());
    if (c->saved_data["bias"].toBool() && c->needs_input_grad(2)) out[2] = flat.sum(0);
    return out;
  }
};

}  // namespace

// A new tensor, or null where the plain operator has to be taken: other devices and number types, autocast, a libtorch without oneDNN.
SOFTCLIP_API at::Tensor* softclip_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, SoftclipError* e) {
  return guard(e, [&]() -> at::Tensor* {
    auto plain = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided; };
    if (x->numel() == 0 || !plain(*x) || !plain(*weight) || (bias != nullptr && !plain(*bias))) return nullptr;
    if (at::autocast::is_autocast_enabled(at::kCPU) || !at::globalContext().userEnabledMkldnn() || !operation()) return nullptr;
    const at::Tensor b = bias != nullptr ? *bias : at::Tensor();
    bool grad = at::GradMode::is_enabled() && (x->requires_grad() || weight->requires_grad() || (b.defined() && b.requires_grad()));
    return new at::Tensor(grad ? Linear::apply(*x, *weight, b) : product(x->contiguous(), *weight, b));
  });
}
