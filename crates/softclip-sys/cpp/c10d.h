// Handles that Rust holds of c10d's objects: boxes around its reference-counted pointers.
#pragma once
#include "error.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

struct SoftclipStore {
  c10::intrusive_ptr<c10d::Store> store;
};

// The back-end does the work. The Reducer wants it inside of a ProcessGroup.
struct SoftclipGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};
