// Fused and foreach kernels over lists of tensors.
#include "error.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <vector>

static std::vector<at::Tensor> list(at::Tensor* const* tensors, int64_t n) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (int64_t i = 0; i < n; ++i) out.push_back(*tensors[i]);
  return out;
}

struct AdamWStep {
  double lr, beta1, beta2, weight_decay, eps;
};

// One AdamW step (decoupled weight decay) over n tensors, in place. The CPU kernel walks raw memory, and would silently
// compute rubbish where strides differ: a gradient of another layout is copied into its parameter's, a state tensor refused.
SOFTCLIP_API void softclip_fused_adamw(
    int64_t n, at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs, at::Tensor* const* exp_avg_sqs,
    at::Tensor* const* steps, AdamWStep s, const at::Tensor* grad_scale, const at::Tensor* found_inf, SoftclipError* e) {
  guard(e, [&] {
    c10::NoGradGuard no_grad;
    auto p = list(params, n), g = list(grads, n), m = list(exp_avgs, n), v = list(exp_avg_sqs, n), t = list(steps, n);
    for (int64_t i = 0; i < n; ++i) {
      TORCH_CHECK(p[i].sizes() == g[i].sizes(), "gradient ", i, " has shape ", g[i].sizes(), ", its parameter ", p[i].sizes());
      TORCH_CHECK(p[i].is_non_overlapping_and_dense(), "parameter ", i, " is not dense in memory: strides ", p[i].strides());
      TORCH_CHECK(
          m[i].sizes() == p[i].sizes() && v[i].sizes() == p[i].sizes() && m[i].strides() == p[i].strides() && v[i].strides() == p[i].strides(),
          "the optimizer state of parameter ", i, " has another layout than the parameter");
      if (g[i].strides() != p[i].strides()) g[i] = at::empty_like(p[i]).copy_(g[i]);
    }
    // A step that is skipped for a non-finite gradient does not count.
    if (found_inf) {
      at::_foreach_add_(t, at::rsub(*found_inf, 1));
    } else {
      at::_foreach_add_(t, 1);
    }
    at::_fused_adamw_(
        p, g, m, v, {}, t, s.lr, s.beta1, s.beta2, s.weight_decay, s.eps, /*amsgrad=*/false, /*maximize=*/false,
        grad_scale ? std::optional<at::Tensor>(*grad_scale) : std::nullopt, found_inf ? std::optional<at::Tensor>(*found_inf) : std::nullopt);
  });
}

// The L2 norm of all gradients together, before they are scaled (in place) to at most max_norm.
SOFTCLIP_API double softclip_clip_grad_norm(int64_t n, at::Tensor* const* grads, double max_norm, SoftclipError* e) {
  return guard(e, [&]() -> double {
    c10::NoGradGuard no_grad;
    if (n == 0) return 0.0;
    auto g = list(grads, n);
    auto total = at::linalg_vector_norm(at::stack(at::_foreach_norm(g, 2)), 2).item<double>();
    // 1e-6 as PyTorch's clip_grad_norm_ has it, so that runs agree.
    double factor = max_norm / (total + 1e-6);
    if (factor < 1.0) at::_foreach_mul_(g, factor);
    return total;
  });
}

// Divides gradients by the loss scale, in place, and sets found_inf to 1 where one is not finite.
SOFTCLIP_API void softclip_amp_unscale(
    int64_t n, at::Tensor* const* grads, at::Tensor* found_inf, const at::Tensor* inv_scale, SoftclipError* e) {
  guard(e, [&] {
    c10::NoGradGuard no_grad;
    auto g = list(grads, n);
    at::_amp_foreach_non_finite_check_and_unscale_(g, *found_inf, *inv_scale);
  });
}

SOFTCLIP_API void softclip_amp_update(
    at::Tensor* scale, at::Tensor* growth_tracker, const at::Tensor* found_inf, double growth, double backoff, int64_t interval,
    SoftclipError* e) {
  guard(e, [&] {
    c10::NoGradGuard no_grad;
    at::_amp_update_scale_(*scale, *growth_tracker, *found_inf, growth, backoff, interval);
  });
}
