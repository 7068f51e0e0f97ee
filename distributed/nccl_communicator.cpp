// NCCL ranks, one a device. Non-blocking communicators, because only those can be aborted at any
// time; every call is therefore followed by settle(), which waits until NCCL has taken it over.
//
// Bitwise equality: ring and tree reduce in an order fixed by size, topology and message size, and
// all ranks receive the same bits. In-switch reduction (NVLS) differs between calls on Hopper, so
// it is off unless the user sets NCCL_NVLS_ENABLE.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include <cuda_runtime.h>
#include <nccl.h>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

/// Ranks arrive late at start-up (compilation, data); later, every rank is in the same step.
constexpr std::chrono::minutes kInitTimeout{15};
constexpr std::chrono::seconds kCallTimeout{120};
constexpr std::chrono::seconds kFinalizeTimeout{10};

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
  NcclCommunicator(Communicator& host, int device, std::unique_ptr<Communicator> owned);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

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
  std::unique_ptr<Communicator> split(int color, int key) override;

  /// Throws TransientError, after an abort, when NCCL reports a failure of anything enqueued so
  /// far.
  void check_health(std::string_view what);

 private:
  /// Enqueues on the communication stream after what the current stream has enqueued; the returned
  /// event is the end of the operation.
  template <typename Enqueue>
  at::cuda::CUDAEvent enqueue(std::string_view what, Enqueue&& call);
  void check_tensor(const at::Tensor& tensor, std::string_view what) const;
  bool settle(std::string_view what, std::chrono::steady_clock::duration timeout);
  void check(ncclResult_t status, std::string_view what);
  [[noreturn]] void fail(std::string_view what, std::string_view why);

  std::unique_ptr<Communicator> owned_host_;
  Communicator& host_;
  int device_;
  c10::cuda::CUDAStream stream_;
  ncclComm_t comm_ = nullptr;
  int exceptions_ = std::uncaught_exceptions();
};

class NcclWork final : public Work {
 public:
  NcclWork(NcclCommunicator& communicator, at::Tensor tensor, at::cuda::CUDAEvent finished)
      : communicator_(communicator), tensor_(std::move(tensor)), finished_(std::move(finished)) {}

  void wait() override {
    finished_.block(c10::cuda::getCurrentCUDAStream(tensor_.get_device()));
    communicator_.check_health("all_reduce");
  }

 private:
  NcclCommunicator& communicator_;
  at::Tensor tensor_;  // lives until the waiting stream is behind the operation
  at::cuda::CUDAEvent finished_;
};

NcclCommunicator::NcclCommunicator(Communicator& host, int device,
                                   std::unique_ptr<Communicator> owned)
    : owned_host_(std::move(owned)),
      host_(host),
      device_(device),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true,
                                           static_cast<c10::DeviceIndex>(device))) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  ncclUniqueId id{};
  std::string text;
  setenv("NCCL_NVLS_ENABLE", "0", /*replace=*/0);
  if (rank() == 0) {
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    text.assign(id.internal, sizeof id.internal);
  }
  text = host_.broadcast(text, 0);
  std::memcpy(id.internal, text.data(), sizeof id.internal);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), "ncclCommInitRankConfig");
  if (!settle("initialisation", kInitTimeout)) fail("initialisation", "timed out");
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) return;
  try {
    // A peer may never come to the orderly end when this rank leaves by an exception.
    if (std::uncaught_exceptions() == exceptions_) {
      check(ncclCommFinalize(comm_), "ncclCommFinalize");
      if (settle("ncclCommFinalize", kFinalizeTimeout)) {
        ncclCommDestroy(comm_);
        return;
      }
    }
  } catch (const TransientError&) {
    return;  // fail() has aborted it, and a destructor has nobody to tell
  }
  ncclCommAbort(comm_);
}

void NcclCommunicator::fail(std::string_view what, std::string_view why) {
  if (comm_ != nullptr) ncclCommAbort(comm_);
  comm_ = nullptr;
  throw TransientError(cat("NCCL: ", what, " on rank ", rank(), " of ", size(), ": ", why));
}

void NcclCommunicator::check(ncclResult_t status, std::string_view what) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  fail(what, cat(ncclGetErrorString(status), "; ", ncclGetLastError(comm_)));
}

/// Waits until NCCL has taken over the last call; false when that takes longer than `timeout`.
bool NcclCommunicator::settle(std::string_view what, std::chrono::steady_clock::duration timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &state), what);
    if (state == ncclSuccess) return true;
    check(state, what);
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void NcclCommunicator::check_health(std::string_view what) {
  if (comm_ == nullptr) fail(what, "the communicator was aborted");
  ncclResult_t state = ncclSuccess;
  check(ncclCommGetAsyncError(comm_, &state), what);
  check(state, what);
}

void NcclCommunicator::check_tensor(const at::Tensor& tensor, std::string_view what) const {
  ABLATE_CHECK(tensor.defined() && tensor.is_contiguous() && tensor.is_cuda() &&
                   tensor.get_device() == device_,
               "nccl communicator: ", what, " takes a contiguous tensor of device ", device_);
}

template <typename Enqueue>
at::cuda::CUDAEvent NcclCommunicator::enqueue(std::string_view what, Enqueue&& call) {
  if (comm_ == nullptr) fail(what, "the communicator was aborted");
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_));
  at::cuda::CUDAEvent ready;
  ready.record(c10::cuda::getCurrentCUDAStream());
  ready.block(stream_);
  check(call(), what);
  if (!settle(what, kCallTimeout)) fail(what, "timed out");
  at::cuda::CUDAEvent finished;
  finished.record(stream_);
  return finished;
}

std::unique_ptr<Work> NcclCommunicator::start_all_reduce(at::Tensor& tensor, ReduceOp op) {
  check_tensor(tensor, "all_reduce");
  const ncclDataType_t type = to_nccl(tensor.scalar_type(), "all_reduce");
  void* data = tensor.data_ptr();
  const auto count = static_cast<std::size_t>(tensor.numel());
  return std::make_unique<NcclWork>(*this, tensor, enqueue("all_reduce", [&] {
    return ncclAllReduce(data, data, count, type, to_nccl(op), comm_, stream_.stream());
  }));
}

void NcclCommunicator::broadcast(at::Tensor& tensor, int root) {
  check_tensor(tensor, "broadcast");
  ABLATE_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of ", size());
  void* data = tensor.data_ptr();
  enqueue("broadcast", [&] {
    return ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm_, stream_.stream());
  }).block(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device_)));
}

void NcclCommunicator::all_gather(const at::Tensor& tensor, at::Tensor& all) {
  check_tensor(tensor, "all_gather");
  check_tensor(all, "all_gather");
  std::vector<std::int64_t> shape{size()};
  shape.insert(shape.end(), tensor.sizes().begin(), tensor.sizes().end());
  ABLATE_CHECK(all.sizes() == at::IntArrayRef(shape) && all.scalar_type() == tensor.scalar_type(),
               "all_gather of ", tensor.sizes(), " into ", all.sizes());
  enqueue("all_gather", [&] {
    return ncclAllGather(tensor.const_data_ptr(), all.data_ptr(), tensor.nbytes(), ncclUint8, comm_,
                         stream_.stream());
  }).block(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device_)));
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  auto part = host_.split(color, key);
  Communicator& host = *part;
  return std::make_unique<NcclCommunicator>(host, device_, std::move(part));
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& host, int device) {
  return std::make_unique<NcclCommunicator>(host, device, nullptr);
}

}  // namespace ablate
