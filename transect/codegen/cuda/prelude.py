"""What every generated CUDA file begins with: division, minima and half floats, without headers."""

from __future__ import annotations

PRELUDE = r"""
template <typename T> static __device__ inline T transect_floordiv(T a, T b) {
  T q = a / b;
  return (a % b != 0 && ((a < 0) != (b < 0))) ? q - 1 : q;
}
static __device__ inline float transect_floordiv(float a, float b) { return floorf(a / b); }
static __device__ inline double transect_floordiv(double a, double b) { return floor(a / b); }
template <typename T> static __device__ inline T transect_floormod(T a, T b) {
  T r = a % b;
  return (r != 0 && ((r < 0) != (b < 0))) ? r + b : r;
}
static __device__ inline float transect_floormod(float a, float b) {
  return a - b * floorf(a / b);
}
static __device__ inline double transect_floormod(double a, double b) {
  return a - b * floor(a / b);
}
// A NaN on either side is the result.
template <typename T> static __device__ inline T transect_min(T a, T b) {
  return (a < b || a != a) ? a : b;
}
template <typename T> static __device__ inline T transect_max(T a, T b) {
  return (a > b || a != a) ? a : b;
}
template <typename To, typename From> static __device__ inline To transect_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "reinterpret of another size");
  union { From from; To to; } both;
  both.from = value;
  return both.to;
}
struct transect_half {
  unsigned short bits;
  transect_half() = default;
  __device__ inline transect_half(float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x)); }
  __device__ inline operator float() const {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
  }
};
struct transect_bfloat {
  unsigned short bits;
  transect_bfloat() = default;
  __device__ inline transect_bfloat(float x) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  }
  __device__ inline operator float() const {
    return __int_as_float((int)((unsigned int)bits << 16));
  }
};
"""
