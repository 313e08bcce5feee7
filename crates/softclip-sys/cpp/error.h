// Every C++ exception becomes a value: nothing may unwind into Rust.
#pragma once
#include <c10/util/Exception.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

#define SOFTCLIP_API extern "C" __attribute__((visibility("default")))

struct SoftclipError {
  int32_t kind; // one of ErrorKind
  char* message; // malloc'ed, freed by the caller with softclip_free
};

enum ErrorKind : int32_t { kNone = 0, kGeneric = 1, kOutOfMemory = 2, kUnknown = 3, kStore = 4, kNetwork = 5 };

inline void put(SoftclipError* e, ErrorKind kind, const char* message) {
  e->kind = kind;
  e->message = strdup(message);
}

template <class F>
auto guard(SoftclipError* e, F&& f) noexcept -> decltype(f()) {
  e->kind = kNone;
  e->message = nullptr;
  try {
    return f();
  } catch (const c10::OutOfMemoryError& x) {
    put(e, kOutOfMemory, x.what_without_backtrace());
  } catch (const c10::DistStoreError& x) {
    put(e, kStore, x.what_without_backtrace());
  } catch (const c10::DistNetworkError& x) {
    put(e, kNetwork, x.what_without_backtrace());
  } catch (const c10::Error& x) {
    put(e, kGeneric, x.what_without_backtrace());
  } catch (const std::exception& x) {
    put(e, kGeneric, x.what());
  } catch (...) {
    put(e, kUnknown, "an unknown C++ exception");
  }
  return decltype(f())();
}
