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

struct ReducerOptions {
  std::int64_t bucket_bytes = 25 << 20;
  /// Of the bucket that is complete first, so that communication starts early in backward.
  std::int64_t first_bucket_bytes = 1 << 20;
};

/// Cuts segments, given by ascending offset, into contiguous slices: a slice ends when it has
/// reached its size, and before an inactive segment.
std::vector<GradientBucket> plan_buckets(const std::vector<GradientSegment>& segments,
                                         std::int64_t element_bytes, const ReducerOptions& options);

/// Averages gradients over ranks while backward still runs (Li et al., "PyTorch Distributed",
/// VLDB 2020, without its copies: buckets are slices of the gradient buffer, which holds parameters
/// in reverse order of execution).
///
/// In a step: arm() before the last micro-batch's backward, finish() after it. A bucket is started
/// when all its gradients are there and all earlier buckets are started, so that ranks start equal
/// collectives in equal order. Sums are in the order of the communicator, then multiplied by
/// 1 / size once. World size 1 does nothing.
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
  /// buffer holds the mean. Throws TransientError when a collective fails.
  void finish();

  const std::vector<GradientBucket>& buckets() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ablate
