#include "distributed/host_communicator.h"

#include <algorithm>
#include <cstring>

#include "runner/core/error.h"
#include "runner/torch/torch.h"

namespace ablate {
namespace {

at::Tensor text_to_tensor(const std::string& text, std::int64_t length) {
  at::Tensor bytes = at::zeros({length}, at::kByte);
  std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return bytes;
}

std::string tensor_to_text(const at::Tensor& bytes, std::int64_t length) {
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<std::size_t>(length)};
}

}  // namespace

void HostCommunicator::all_reduce(at::Tensor& tensor, ReduceOp op) {
  start_all_reduce(tensor, op)->wait();
}

double HostCommunicator::all_reduce(double value, ReduceOp op) {
  at::Tensor tensor = at::full({1}, value, at::kDouble);
  all_reduce(tensor, op);
  return tensor.item<double>();
}

std::int64_t HostCommunicator::all_reduce(std::int64_t value, ReduceOp op) {
  at::Tensor tensor = at::full({1}, value, at::kLong);
  all_reduce(tensor, op);
  return tensor.item<std::int64_t>();
}

std::string HostCommunicator::broadcast(const std::string& text, int root) {
  at::Tensor length = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  broadcast(length, root);
  const auto count = length.item<std::int64_t>();
  at::Tensor bytes = rank() == root ? text_to_tensor(text, count) : at::zeros({count}, at::kByte);
  broadcast(bytes, root);
  return tensor_to_text(bytes, count);
}

std::vector<std::string> HostCommunicator::all_gather(const std::string& text) {
  at::Tensor lengths = at::empty({size(), 1}, at::kLong);
  all_gather(at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong), lengths);
  const auto* counts = lengths.const_data_ptr<std::int64_t>();
  const std::int64_t longest = *std::max_element(counts, counts + size());
  at::Tensor rows = at::empty({size(), longest}, at::kByte);
  all_gather(text_to_tensor(text, longest), rows);
  std::vector<std::string> texts;
  for (int r = 0; r < size(); ++r) texts.push_back(tensor_to_text(rows[r], counts[r]));
  return texts;
}

void HostCommunicator::barrier() { all_reduce(std::int64_t{0}); }

std::vector<int> HostCommunicator::missing_after(std::chrono::milliseconds) {
  barrier();
  return {};
}

void HostCommunicator::check_movable(const at::Tensor& tensor, std::string_view operation) const {
  // Alone there is nothing to move, hence no matter where the tensor lives.
  const bool reachable = tensor.defined() && (tensor.is_cpu() || size() == 1);
  ABLATE_CHECK(reachable && tensor.is_contiguous(), backend(), " communicator: ", operation,
               " takes a contiguous tensor of the host");
}

void HostCommunicator::check_reducible(const at::Tensor& tensor, std::string_view operation) const {
  check_movable(tensor, operation);
  const at::ScalarType type = tensor.scalar_type();
  ABLATE_CHECK(type == at::kFloat || type == at::kDouble || type == at::kLong || type == at::kByte,
               backend(), " communicator: ", operation, " of ", at::toString(type),
               "; accepted: float32, float64, int64, uint8");
}

void HostCommunicator::check_root(int root) const {
  ABLATE_CHECK(root >= 0 && root < size(), "broadcast from rank ", root, " of ", size());
}

void HostCommunicator::check_gather(const at::Tensor& tensor, const at::Tensor& all) const {
  check_movable(tensor, "all_gather");
  check_movable(all, "all_gather");
  std::vector<std::int64_t> shape{size()};
  shape.insert(shape.end(), tensor.sizes().begin(), tensor.sizes().end());
  ABLATE_CHECK(all.sizes() == at::IntArrayRef(shape) && all.scalar_type() == tensor.scalar_type(),
               "all_gather of ", tensor.sizes(), " ", at::toString(tensor.scalar_type()), " into ",
               all.sizes(), " ", at::toString(all.scalar_type()));
}

}  // namespace ablate
