#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace ablate {

/// One parameter's place in a flat gradient buffer, in elements.
struct GradientSegment {
  std::string name;
  std::int64_t offset = 0;
  std::int64_t numel = 0;
  bool active = true;  ///< an inactive one has no gradient and is not reduced
};

/// A slice of the buffer that is reduced by one collective.
struct GradientBucket {
  std::int64_t offset = 0;
  std::int64_t numel = 0;
  std::vector<std::size_t> segments;  ///< indices of its parameters
};

/// What travels between ranks.
enum class Wire {
  Gradients,  ///< the buffer's own type
  Bfloat16,   ///< half the bytes of float; every addition rounds to 8 bits. Device buffers only
};

struct ReducerOptions {
  std::int64_t bucket_bytes = 25 << 20;
  /// Of the bucket that is complete first, so that communication starts early in backward.
  std::int64_t first_bucket_bytes = 1 << 20;
  /// Of the one that is complete last, with the end of backward: nothing hides its communication.
  std::int64_t last_bucket_bytes = 4 << 20;
  Wire wire = Wire::Gradients;
  /// false: the buffer is left with the sum, and the caller multiplies by remaining_factor() where
  /// it passes over the gradients anyway.
  bool average = true;
  /// World size 1 runs its collectives, too: to measure or test them on one device.
  bool reduce_alone = false;
};

/// Cuts segments, given by ascending offset, into contiguous slices: a slice ends when it has
/// reached its size, and before an inactive segment. Of the last one the end that is no larger than
/// last_bucket_bytes, or one segment, is a slice of its own.
std::vector<GradientBucket> plan_buckets(const std::vector<GradientSegment>& segments,
                                         std::int64_t element_bytes, const ReducerOptions& options);

/// Averages gradients over ranks while backward still runs (Li et al., "PyTorch Distributed",
/// VLDB 2020, without its copies: buckets are slices of the gradient buffer, which holds parameters
/// in reverse order of execution).
///
/// In a step: arm() before the last micro-batch's backward, finish() after it. A bucket is started
/// when all its gradients are there and all earlier buckets are started, so that ranks start equal
/// collectives in equal order. A gradient is there when all functions that took the parameter are
/// through, be it that autograd accumulated it or that they wrote it into the buffer themselves.
/// Sums are in the order of the communicator, then multiplied by 1 / size once. World size 1 does
/// nothing.
///
/// On a device communicator a step may be captured into a CUDA graph: all work is enqueued behind
/// the current stream, nothing waits for the device or allocates. The graph keeps the addresses of
/// the reducer's buffers, so the reducer must outlive it.
class GradientReducer {
 public:
  /// `gradients`: the flat buffer; parameters[i].grad() is its view at segments[i]. Collective:
  /// throws BugError naming the bucket when ranks disagree on one. Hooks the parameters until
  /// destruction.
  GradientReducer(Communicator& communicator, const at::Tensor& gradients,
                  const std::vector<GradientSegment>& segments,
                  const std::vector<at::Tensor>& parameters, const ReducerOptions& options = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// The backward that follows is the step's last one.
  void arm();
  /// Reduces what backward left (parameters without gradient count as zero) and waits until the
  /// buffer holds the mean (or the sum, see ReducerOptions::average). Throws TransientError when a
  /// collective fails.
  void finish();

  /// What the buffer has to be multiplied by after finish() to be the mean.
  double remaining_factor() const;
  const std::vector<GradientBucket>& buckets() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ablate
