#pragma once

#include <string_view>

#include "distributed/communicator.h"

namespace ablate {

/// What communicators on host memory share: blocking forms by way of start_all_reduce(), host
/// values by way of small host tensors.
class HostCommunicator : public Communicator {
 public:
  void all_reduce(at::Tensor& tensor, ReduceOp op = ReduceOp::Sum) override;
  double all_reduce(double value, ReduceOp op = ReduceOp::Sum) override;
  std::int64_t all_reduce(std::int64_t value, ReduceOp op = ReduceOp::Sum) override;
  using Communicator::broadcast;
  std::string broadcast(const std::string& text, int root = 0) override;
  using Communicator::all_gather;
  std::vector<std::string> all_gather(const std::string& text) override;
  void barrier() override;
  /// For back ends whose ranks cannot be late: a barrier.
  std::vector<int> missing_after(std::chrono::milliseconds patience) override;

 protected:
  // Contract checks, the same in all back ends; each throws BugError naming `operation`.
  void check_reducible(const at::Tensor& tensor, std::string_view operation) const;
  void check_root(int root) const;
  void check_gather(const at::Tensor& tensor, const at::Tensor& all) const;
  void check_movable(const at::Tensor& tensor, std::string_view operation) const;
};

}  // namespace ablate
