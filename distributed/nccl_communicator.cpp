// NCCL ranks, one a device.
//
// Bitwise equality: ring and tree reduce in an order fixed by size, topology and message size, and
// all ranks receive the same bits. In-switch reduction (NVLS) differs between calls on Hopper, so
// it is off unless the user asks for it.
#include <cuda_runtime.h>
#include <nccl.h>

#include "distributed/communicator.h"
#include "distributed/nccl_core.h"
#include "distributed/nccl_trace.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

ncclDataType_t to_nccl(at::ScalarType type, std::string_view operation) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kLong:
      return ncclInt64;
    case at::kByte:
      return ncclUint8;
    case at::kBFloat16:
      return ncclBfloat16;
    default:
      check_failed("type", cat("nccl communicator: ", operation, " of ", at::toString(type),
                               "; accepted: float32, float64, int64, uint8, bfloat16"));
  }
}

ncclRedOp_t to_nccl(ReduceOp op) {
  if (op == ReduceOp::Sum) return ncclSum;
  return op == ReduceOp::Min ? ncclMin : ncclMax;
}

class NcclCommunicator final : public Communicator {
 public:
  /// `owned` is `host` itself or empty: of a split the caller keeps only the result.
  NcclCommunicator(Communicator& host, int device, const NcclOptions& options,
                   std::unique_ptr<Communicator> owned);

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string backend() const override { return "nccl"; }

  void all_reduce(at::Tensor& tensor, ReduceOp op) override {
    start_all_reduce(tensor, op)->wait();
  }
  std::unique_ptr<Work> start_all_reduce(at::Tensor& tensor, ReduceOp op) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_gather(const at::Tensor& tensor, at::Tensor& all) override;

  double all_reduce(double value, ReduceOp op) override { return host_.all_reduce(value, op); }
  std::int64_t all_reduce(std::int64_t value, ReduceOp op) override {
    return host_.all_reduce(value, op);
  }
  std::string broadcast(const std::string& text, int root) override {
    return host_.broadcast(text, root);
  }
  std::vector<std::string> all_gather(const std::string& text) override {
    return host_.all_gather(text);
  }
  void barrier() override { host_.barrier(); }
  std::vector<int> missing_after(std::chrono::milliseconds patience) override {
    return host_.missing_after(patience);
  }
  std::unique_ptr<Communicator> split(int color, int key) override;

  void step_begun(std::int64_t step) override {
    state_->trace.step_begun();
    state_->core.step_begun(step);
  }
  void step_finished(std::int64_t step) override { state_->core.step_finished(step); }
  std::shared_ptr<void> hold() override { return state_; }

 private:
  /// What captured graphs point to.
  struct State {
    State(Communicator& host, int device, const NcclOptions& options);
    NcclTrace trace;
    NcclCore core;  // last: it uses the trace to its end
  };

  class Enqueued;

  /// Enqueues on the communication stream after what the current stream has enqueued; the returned
  /// event is the end of the operation.
  at::cuda::CUDAEvent enqueue(const std::string& what,
                              const std::function<ncclResult_t(ncclComm_t)>& call);
  void join(const at::cuda::CUDAEvent& finished) const;
  void check_tensor(const at::Tensor& tensor, std::string_view what) const;

  std::unique_ptr<Communicator> owned_host_;
  Communicator& host_;
  int device_;
  NcclOptions options_;
  c10::cuda::CUDAStream stream_;
  std::shared_ptr<State> state_;
};

NcclCommunicator::State::State(Communicator& host, int device, const NcclOptions& options)
    : trace(device), core(host, device, options, trace) {}

class NcclCommunicator::Enqueued final : public Work {
 public:
  Enqueued(NcclCommunicator& communicator, at::Tensor tensor, at::cuda::CUDAEvent finished)
      : communicator_(communicator), tensor_(std::move(tensor)), finished_(std::move(finished)) {}

  void wait() override {
    communicator_.join(finished_);
    communicator_.state_->core.check_health();
  }

 private:
  NcclCommunicator& communicator_;
  at::Tensor tensor_;  // lives until the waiting stream is behind the operation
  at::cuda::CUDAEvent finished_;
};

NcclCommunicator::NcclCommunicator(Communicator& host, int device, const NcclOptions& options,
                                   std::unique_ptr<Communicator> owned)
    : owned_host_(std::move(owned)),
      host_(host),
      device_(device),
      options_(options),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true,
                                           static_cast<c10::DeviceIndex>(device))) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  state_ = std::make_shared<State>(host, device, options);
}

void NcclCommunicator::check_tensor(const at::Tensor& tensor, std::string_view what) const {
  ABLATE_CHECK(tensor.defined() && tensor.is_contiguous() && tensor.is_cuda() &&
                   tensor.get_device() == device_,
               "nccl communicator: ", what, " takes a contiguous tensor of device ", device_);
}

/// Events and marks only: a stream that captures into a graph takes the communication stream along.
at::cuda::CUDAEvent NcclCommunicator::enqueue(const std::string& what,
                                              const std::function<ncclResult_t(ncclComm_t)>& call) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
  const bool captured =
      c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
  ABLATE_CHECK(!captured || state_.use_count() > 1, what,
               " is captured into a graph by somebody who does not hold() the communicator");
  at::cuda::CUDAEvent ready;
  ready.record(c10::cuda::getCurrentCUDAStream());
  ready.block(stream_);
  state_->core.call(what, call);
  state_->trace.mark(what, stream_.stream(), captured);
  at::cuda::CUDAEvent finished;
  finished.record(stream_);
  return finished;
}

void NcclCommunicator::join(const at::cuda::CUDAEvent& finished) const {
  const auto device = static_cast<c10::DeviceIndex>(device_);
  const_cast<at::cuda::CUDAEvent&>(finished).block(c10::cuda::getCurrentCUDAStream(device));
}

std::string describe_tensor(std::string_view operation, const at::Tensor& tensor) {
  return cat(operation, " of ", tensor.numel(), " ", at::toString(tensor.scalar_type()));
}

std::unique_ptr<Work> NcclCommunicator::start_all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_tensor(tensor, "all_reduce");
  const ncclDataType_t type = to_nccl(tensor.scalar_type(), "all_reduce");
  void* data = tensor.data_ptr();
  const auto count = static_cast<std::size_t>(tensor.numel());
  return std::make_unique<Enqueued>(
      *this, tensor, enqueue(describe_tensor("all_reduce", tensor), [&](ncclComm_t comm) {
        return ncclAllReduce(data, data, count, type, to_nccl(op), comm, stream_.stream());
      }));
}

void NcclCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_tensor(tensor, "broadcast");
  ABLATE_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of ", size());
  void* data = tensor.data_ptr();
  join(enqueue(describe_tensor("broadcast", tensor), [&](ncclComm_t comm) {
    return ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm, stream_.stream());
  }));
}

void NcclCommunicator::all_gather(const at::Tensor& tensor, at::Tensor& all) {
  check_tensor(tensor, "all_gather");
  check_tensor(all, "all_gather");
  std::vector<std::int64_t> shape{size()};
  shape.insert(shape.end(), tensor.sizes().begin(), tensor.sizes().end());
  ABLATE_CHECK(all.sizes() == at::IntArrayRef(shape) && all.scalar_type() == tensor.scalar_type(),
               "all_gather of ", tensor.sizes(), " into ", all.sizes());
  join(enqueue(describe_tensor("all_gather", tensor), [&](ncclComm_t comm) {
    return ncclAllGather(tensor.const_data_ptr(), all.data_ptr(), tensor.nbytes(), ncclUint8, comm,
                         stream_.stream());
  }));
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  auto part = host_.split(color, key);
  Communicator& host = *part;
  return std::make_unique<NcclCommunicator>(host, device_, options_, std::move(part));
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device,
                                                     const NcclOptions& options) {
  return std::make_unique<NcclCommunicator>(host, device, options, nullptr);
}

}  // namespace ablate
