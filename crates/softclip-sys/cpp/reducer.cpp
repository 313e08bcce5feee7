// PyTorch's own DDP engine: gradients in buckets, averaged over the ranks while backward still runs.
#include "c10d.h"

#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <algorithm>
#include <vector>

struct SoftclipReducer {
  c10d::Reducer reducer;
};

// Ranks whose parameters differ in number, shape or type are refused.
SOFTCLIP_API SoftclipReducer* softclip_reducer(
    SoftclipGroup* group, int64_t n, at::Tensor* const* tensors, int64_t first_bytes, int64_t bucket_bytes, SoftclipError* e) {
  return guard(e, [&] {
    std::vector<at::Tensor> params;
    for (int64_t i = 0; i < n; ++i) params.push_back(*tensors[i]);
    c10d::verify_params_across_processes(group->group, params, std::nullopt);
    auto limits = std::vector<size_t>{static_cast<size_t>(first_bytes), static_cast<size_t>(bucket_bytes)};
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(params, limits));
    // Gradients come in about the reverse order of the parameters.
    std::reverse(buckets.begin(), buckets.end());
    auto dense = std::vector<bool>(params.size(), false);
    return new SoftclipReducer{c10d::Reducer(
        std::move(params), std::move(buckets), group->group, std::move(dense), bucket_bytes,
        /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true, /*param_names=*/{}, first_bytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/{})};
  });
}

// Before forward. After the first step the buckets are made anew in the order in which gradients came.
SOFTCLIP_API void softclip_reducer_forward(SoftclipReducer* r, SoftclipError* e) {
  guard(e, [&] {
    r->reducer.prepare_for_forward();
    r->reducer.rebuild_buckets();
  });
}

// Before the backward whose gradients are averaged; without it they only accumulate.
SOFTCLIP_API void softclip_reducer_backward(SoftclipReducer* r, SoftclipError* e) {
  guard(e, [&] { r->reducer.prepare_for_backward({}); });
}

// After backward: whether every parameter had its gradient.
SOFTCLIP_API void softclip_reducer_finished(SoftclipReducer* r, SoftclipError* e) {
  guard(e, [&] { r->reducer.check_finalized(); });
}

SOFTCLIP_API void softclip_reducer_free(SoftclipReducer* r, SoftclipError* e) {
  guard(e, [&] { delete r; });
}
