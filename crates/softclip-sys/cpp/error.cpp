#include "error.h"

SOFTCLIP_API void softclip_free(char* message) { std::free(message); }

// For the tests of the error path: the three ways in which C++ code may fail.
SOFTCLIP_API void softclip_throw(int32_t what, SoftclipError* e) {
  guard(e, [&] {
    if (what == 0) TORCH_CHECK(false, "a failed check");
    if (what == 1) throw std::bad_alloc();
    throw 42;
  });
}
