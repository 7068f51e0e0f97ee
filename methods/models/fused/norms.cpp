#include "methods/models/fused/norms.h"

#include <cmath>
#include <vector>

#include "methods/kernels/running_statistics.h"
#include "methods/models/batch_norm.h"
#include "methods/models/fused/common.h"
#include "methods/models/model.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

std::vector<GroupBatchNorm2d*> norms_of(Model& model) {
  std::vector<GroupBatchNorm2d*> norms;
  for (const auto& module : model.modules()) {
    auto* norm = dynamic_cast<GroupBatchNorm2d*>(module.get());
    // Those of branches that are not run for a while keep their statistics.
    if (norm && norm->weight.requires_grad()) norms.push_back(norm);
  }
  return norms;
}

}  // namespace

DeviceNorms::DeviceNorms(Model& model, std::int64_t global_batch) {
  const auto norms = norms_of(model);
  if (norms.empty()) return;
  const auto options = norms.front()->running_mean.options();
  std::int64_t total = 0;
  for (const GroupBatchNorm2d* norm : norms) total += 2 * norm->running_mean.numel();
  shares_ = at::zeros({total}, options.dtype(at::kDouble));
  std::vector<kernels::RunningStatistics> table;
  std::int64_t offset = 0;
  for (GroupBatchNorm2d* norm : norms) {
    ABLATE_CHECK(norm->running_mean.is_cuda() && norm->running_mean.scalar_type() == at::kFloat,
                 "device steps take float running statistics on a CUDA device");
    const std::int64_t channels = norm->running_mean.numel();
    ForwardState whole;
    whole.global_batch = global_batch;
    const std::int64_t groups = norm->span_of(global_batch, whole).groups_in_step;
    const at::Tensor share = shares_.narrow(0, offset, 2 * channels).view({2, channels});
    offset += 2 * channels;
    parts_[norm] = share;
    table.push_back(
        {.mean = norm->running_mean.data_ptr<float>(),
         .var = norm->running_var.data_ptr<float>(),
         .batches = norm->num_batches_tracked.data_ptr<std::int64_t>(),
         .share = share.const_data_ptr<double>(),
         .channels = channels,
         .groups = groups,
         .keep = std::pow(1.0 - GroupBatchNorm2d::kMomentum, static_cast<double>(groups))});
  }
  const auto bytes = static_cast<std::int64_t>(table.size() * sizeof table.front());
  table_ = at::from_blob(table.data(), {bytes}, at::kByte).to(options.device());
}

void DeviceNorms::begin_step() {
  if (any()) shares_.zero_();
}

void DeviceNorms::commit(const std::int32_t* finite) {
  if (!any()) return;
  kernels::update_running_statistics(
      {.entries = static_cast<const kernels::RunningStatistics*>(table_.const_data_ptr()),
       .count = std::ssize(parts_),
       .finite = finite},
      fused::current_stream());
}

}  // namespace ablate
