// Mixed precision: libtorch's thread-local autocast state.
#include "error.h"

#include <ATen/autocast_mode.h>

struct AutocastState {
  bool enabled;
  int8_t dtype; // at::ScalarType
};

SOFTCLIP_API AutocastState softclip_autocast_state(int32_t device_type, SoftclipError* e) {
  return guard(e, [&] {
    auto type = static_cast<at::DeviceType>(device_type);
    return AutocastState{at::autocast::is_autocast_enabled(type), static_cast<int8_t>(at::autocast::get_autocast_dtype(type))};
  });
}

// Enters a nested region. The cache holds casts of f32 leaves by tensor, not by type: it is emptied whenever the type changes.
SOFTCLIP_API void softclip_autocast_enter(int32_t device_type, AutocastState state, SoftclipError* e) {
  guard(e, [&] {
    auto type = static_cast<at::DeviceType>(device_type);
    auto dtype = static_cast<at::ScalarType>(state.dtype);
    if (at::autocast::get_autocast_dtype(type) != dtype) at::autocast::clear_cache();
    at::autocast::set_autocast_dtype(type, dtype);
    at::autocast::set_autocast_enabled(type, state.enabled);
    at::autocast::increment_nesting();
  });
}

SOFTCLIP_API void softclip_autocast_leave(int32_t device_type, AutocastState before, SoftclipError* e) {
  guard(e, [&] {
    auto type = static_cast<at::DeviceType>(device_type);
    auto dtype = static_cast<at::ScalarType>(before.dtype);
    bool changed = at::autocast::get_autocast_dtype(type) != dtype;
    if (at::autocast::decrement_nesting() == 0 || changed) at::autocast::clear_cache();
    at::autocast::set_autocast_dtype(type, dtype);
    at::autocast::set_autocast_enabled(type, before.enabled);
  });
}
