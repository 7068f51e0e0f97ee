#include "distributed/host_communicator.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

class FinishedWork final : public Work {
 public:
  void wait() override {}
};

class SelfCommunicator final : public HostCommunicator {
 public:
  using HostCommunicator::all_gather;
  using HostCommunicator::broadcast;

  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "self"; }

  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp) override {
    check_reducible(tensor, "all_reduce");
    return std::make_unique<FinishedWork>();
  }
  void broadcast(at::Tensor& tensor, int root) override {
    check_movable(tensor, "broadcast");
    check_root(root);
  }
  void all_gather(const at::Tensor& tensor, at::Tensor& all) override {
    check_gather(tensor, all);
    all[0].copy_(tensor);
  }
  std::unique_ptr<Communicator> split(int, int) override { return make_self_communicator(); }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace ablate
