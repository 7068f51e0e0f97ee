#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// C (m, n) = op(A) (m, k) op(B) (k, n), optionally + bias or + C; all row-major and dense.
/// A and B are bfloat16 and accumulated in float. A is stored (k, m) when `transpose_a`, B is
/// stored (n, k) when `transpose_b`.
struct GemmShape {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  bool float_output = false;  ///< C is float, else bfloat16
  bool accumulate = false;    ///< C += product
  bool bias = false;          ///< adds a bfloat16 vector (n) to every row of C

  auto operator<=>(const GemmShape&) const = default;
  /// "50432x384x1536 nt bf16 bias": key of the record of choices.
  std::string str() const;
};

/// The three products of a Linear layer y (rows, out) = x (rows, in) W^T + b with W (out, in).
GemmShape linear_forward(std::int64_t rows, std::int64_t in, std::int64_t out);
GemmShape linear_input_gradient(std::int64_t rows, std::int64_t in, std::int64_t out);
/// dW += dy^T x in float: micro-batches and shared weights add up.
GemmShape linear_weight_gradient(std::int64_t rows, std::int64_t in, std::int64_t out);

/// cublasLt's opaque description of an algorithm; valid for one library version.
using GemmAlgorithm = std::array<std::uint64_t, 8>;

/// Choice of an algorithm by shape. Part of what makes results repeat bit for bit, so a run keeps
/// the one it began with.
using GemmChoices = std::map<std::string, GemmAlgorithm>;

/// Matrix products of one run on the device that is current when it is made: a cublasLt handle and
/// workspace of its own, and one chosen algorithm a shape. Not thread-safe; one stream at a time.
class Gemm {
 public:
  /// Throws Error when the device has no memory for the workspace.
  explicit Gemm(std::size_t workspace_bytes = std::size_t{64} << 20);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  /// Pointers aligned to 16 bytes. The first use of a shape chooses its algorithm: the recorded
  /// one, else with timing on the fastest of the library's candidates, else its first. A shape must
  /// have been used before it is captured into a graph. Throws Error when the library refuses.
  void run(const GemmShape& shape, const bfloat16* a, const bfloat16* b, void* c,
           const bfloat16* bias, Stream stream);

  /// Whether new shapes are timed (synchronises with the stream).
  void set_timing(bool timing) { timing_ = timing; }

  const GemmChoices& choices() const { return choices_; }
  /// Replaces the record; shapes in use are chosen anew.
  void set_choices(GemmChoices choices);

  /// "NVIDIA H200, cublasLt 130100": what recorded choices are valid for.
  static std::string platform(int device);

 private:
  struct Library;
  struct Plan;

  Plan& plan(const GemmShape& shape, const bfloat16* a, const bfloat16* b, const bfloat16* bias,
             Stream stream);
  void choose(Plan& plan, const GemmShape& shape, const bfloat16* a, const bfloat16* b,
              Stream stream) const;

  std::unique_ptr<Library> library_;
  std::map<GemmShape, std::unique_ptr<Plan>> plans_;
  GemmChoices choices_;
  bool timing_ = false;
};

namespace reference {

/// The product in double; C is read when `accumulate`. `T` is float or bfloat16 after
/// `float_output`.
template <typename T>
void gemm(const GemmShape& shape, const bfloat16* a, const bfloat16* b, T* c, const bfloat16* bias);

}  // namespace reference
}  // namespace ablate::kernels
