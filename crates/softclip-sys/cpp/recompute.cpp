// A step of the graph that keeps its inputs alone, and computes what was between again when its gradient is asked for.
#include "error.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

using torch::autograd::variable_list;

// A new tensor, or null and the reason.
using Call = at::Tensor* (*)(void* closure, const at::Tensor* const* inputs, SoftclipError* e);
using Release = void (*)(void* closure);
using Closure = std::unique_ptr<void, Release>;

namespace {

struct Recompute : torch::autograd::Node {
  Recompute(Closure closure, Call call, const variable_list& from, variable_list parameters)
      : closure(std::move(closure)), call(call), parameters(std::move(parameters)) {
    for (const auto& t : from) inputs.emplace_back(t, /*is_output=*/false);
    for (const auto& t : this->parameters) versions.push_back(t._version());
  }

  variable_list apply(variable_list&& grads) override {
    // The engine has switched the graph on for second derivatives.
    TORCH_CHECK(!at::GradMode::is_enabled(), "what is recomputed has no second derivatives");
    size_t n = inputs.size();
    for (size_t i = 0; i < parameters.size(); i++) {
      TORCH_CHECK(
          parameters[i]._version() == versions[i], "a parameter of shape ", parameters[i].sizes(),
          ", needed to compute again, has been modified by an inplace operation since the first pass");
    }
    variable_list found(n + parameters.size());
    variable_list wanted;
    std::vector<size_t> places;
    variable_list detached;
    for (size_t i = 0; i < found.size(); i++) {
      at::Tensor leaf;
      bool asked = task_should_compute_output(i);
      if (i < n) {
        leaf = inputs[i].unpack().detach();
        leaf.set_requires_grad(asked);
        detached.push_back(leaf);
      } else {
        leaf = parameters[i - n];
      }
      if (asked) {
        wanted.push_back(leaf);
        places.push_back(i);
      }
    }
    if (wanted.empty() || !grads[0].defined()) return found;
    at::Tensor y = again(detached);
    if (!y.requires_grad()) return found;
    auto got = torch::autograd::grad({y}, wanted, {grads[0]}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < places.size(); i++) found[places[i]] = got[i];
    return found;
  }

  at::Tensor again(const variable_list& detached) {
    std::vector<const at::Tensor*> handles;
    for (const auto& t : detached) handles.push_back(&t);
    // What the closure holds may be used by one thread at a time.
    std::lock_guard<std::mutex> lock(alone);
    TORCH_CHECK(closure != nullptr, torch::autograd::ERR_BACKWARD_TWICE);
    at::AutoGradMode graph(true);
    SoftclipError e{kNone, nullptr};
    std::unique_ptr<at::Tensor> y(call(closure.get(), handles.data(), &e));
    if (y == nullptr) {
      std::string why = e.message == nullptr ? "no reason was given" : e.message;
      std::free(e.message);
      TORCH_CHECK(false, why);
    }
    return *y;
  }

  // The engine calls it behind a backward pass that keeps no graph.
  void release_variables() override {
    std::lock_guard<std::mutex> lock(alone);
    for (auto& input : inputs) input.reset_data();
    closure.reset();
    parameters.clear();
  }

  std::string name() const override { return "Recompute"; }

  std::mutex alone;
  Closure closure;
  Call call;
  std::vector<torch::autograd::SavedVariable> inputs;
  variable_list parameters;
  // Of the parameters, when the output was computed.
  std::vector<uint32_t> versions;
};

variable_list list(int64_t n, at::Tensor* const* tensors) {
  variable_list out;
  for (int64_t i = 0; i < n; i++) out.push_back(*tensors[i]);
  return out;
}

// A tensor that is named twice, as tied weights are, has one gradient.
variable_list distinct(variable_list tensors) {
  std::unordered_set<const c10::TensorImpl*> seen;
  variable_list out;
  for (auto& t : tensors) {
    if (seen.insert(t.unsafeGetTensorImpl()).second) out.push_back(std::move(t));
  }
  return out;
}

} // namespace

// `output`, computed from `inputs` and `parameters` without a graph, as a new tensor whose gradient `call` helps to find: it computes
// the output again from the inputs, with a graph. Gradients of both lists flow on through the graph that is there, so that a
// parameter's hooks run once a backward pass, however many steps use it. `closure` is released in every case.
SOFTCLIP_API at::Tensor* softclip_recompute(
    const at::Tensor* output, int64_t n, at::Tensor* const* inputs, int64_t m, at::Tensor* const* parameters, void* closure, Call call,
    Release release, SoftclipError* e) {
  Closure owned(closure, release);
  return guard(e, [&]() -> at::Tensor* {
    auto from = list(n, inputs);
    auto learned = distinct(list(m, parameters));
    auto all = from;
    all.insert(all.end(), learned.begin(), learned.end());
    auto edges = torch::autograd::collect_next_edges(all);
    std::shared_ptr<Recompute> node(
        new Recompute(std::move(owned), call, from, std::move(learned)), torch::autograd::deleteNode);
    node->set_next_edges(std::move(edges));
    // A handle of its own: an output that is an input must not take this node for its history.
    at::Tensor y = output->detach();
    torch::autograd::set_history(y, node);
    return new at::Tensor(y);
  });
}
