#include "methods/ela_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "distributed/communicator.h"
#include "runner/core/error.h"

namespace ablate::methods::ela {
namespace {

constexpr std::int64_t kMoments = 5;  // count, D, D^2, z, z^2
constexpr double kLogZero = -std::numeric_limits<double>::infinity();

/// (pairs, ...) divergences -> (pairs, kMoments) float64. What is not finite is left out: the loss
/// of such a step is not finite either, and its update is not made. Equal rows may differ by less
/// than nothing, by rounding.
at::Tensor moments(const at::Tensor& divergences, double clip) {
  const at::Tensor d = divergences.flatten(1).to(at::kDouble);
  const at::Tensor valid = d.isfinite();
  const at::Tensor value = at::where(valid, d.clamp(0.0, clip), at::zeros_like(d));
  const at::Tensor z = -(-value).expm1();
  return at::stack({valid.to(at::kDouble), value, value.square(), z, z.square()}, 1).sum(2);
}

/// One part of all retrievals, at least in float: (blocks, ..).
at::Tensor stack_of(const std::vector<const Retrieval*>& told, at::Tensor Retrieval::*part) {
  std::vector<at::Tensor> tensors;
  for (const Retrieval* retrieval : told) {
    const at::Tensor& own = retrieval->*part;
    ABLATE_CHECK(own.defined(), "block ", retrieval->block, " told nothing of its retrieval");
    tensors.push_back(own.to(at::promote_types(own.scalar_type(), at::kFloat)));
  }
  return at::stack(tensors);
}

/// Rows of different length, (blocks, B, g, width).
at::Tensor padded_rows(const std::vector<const Retrieval*>& told, std::int64_t width) {
  std::vector<at::Tensor> rows;
  for (const Retrieval* retrieval : told) {
    const at::Tensor& row = retrieval->log_row;
    ABLATE_CHECK(row.defined(), "block ", retrieval->block, " told nothing of its retrieval");
    rows.push_back(at::constant_pad_nd(row, {0, width - row.size(-1)}, kLogZero));
  }
  return at::stack(rows);
}

}  // namespace

DivergenceSums::DivergenceSums(Divergence kind, bool gates, double clip,
                               std::vector<std::vector<int>> stages,
                               std::vector<Candidate> candidates, at::Device device)
    : kind_(kind), gates_(gates), clip_(clip), candidates_(std::move(candidates)) {
  ABLATE_CHECK(gates ? compares_gates(kind) : compares_rows(kind), divergence_name(kind));
  std::int64_t size = std::ssize(candidates_) * kMoments;
  for (std::vector<int>& blocks : stages) {
    Stage& stage = stages_.emplace_back(Stage{.blocks = std::move(blocks), .profile = size});
    // The profile and, behind it, over how many samples and heads.
    size += std::ssize(stage.blocks) * (profile_width(stage) + 1);
  }
  sums_ = at::zeros({size}, at::TensorOptions(at::kDouble).device(device));
}

void DivergenceSums::add(const RetrievalRecord& record) {
  const at::NoGradGuard no_grad;
  for (const Stage& stage : stages_) {
    const Taken taken = take(stage, record);
    if (taken.blocks.empty()) continue;
    add_profile(stage, taken);
    if (kind_ != Divergence::MeanRows) add_moments(taken);
  }
}

DivergenceSums::Taken DivergenceSums::take(const Stage& stage,
                                           const RetrievalRecord& record) const {
  Taken taken;
  std::vector<const Retrieval*> told;
  for (const Retrieval& retrieval : record.retrievals) {
    if (std::ranges::find(stage.blocks, retrieval.block) == stage.blocks.end()) continue;
    told.push_back(&retrieval);
    taken.blocks.push_back(retrieval.block);
  }
  if (told.empty()) return taken;
  const std::int64_t width = std::ssize(stage.blocks);
  if (gates_) {
    taken.values = stack_of(told, &Retrieval::logits);
  } else if (record.shadow) {
    ABLATE_CHECK(std::ssize(told) == width, told.size(), " of ", width, " blocks in a shadow");
    taken.values = log_rows(stack_of(told, &Retrieval::query), stack_of(told, &Retrieval::key));
  } else {
    taken.values = padded_rows(told, width);
  }
  return taken;
}

void DivergenceSums::add_profile(const Stage& stage, const Taken& taken) {
  const at::Tensor weights = gates_ ? taken.values.sigmoid().unsqueeze(-1) : taken.values.exp();
  const std::int64_t samples = weights.size(1) * weights.size(2);
  const at::Tensor sums = weights.to(at::kDouble).nan_to_num(0.0, 0.0, 0.0).sum({1, 2});
  const std::int64_t width = profile_width(stage) + 1;
  at::Tensor profile = sums_.narrow(0, stage.profile, std::ssize(stage.blocks) * width)
                           .view({std::ssize(stage.blocks), width});
  for (std::size_t i = 0; i < taken.blocks.size();) {
    const auto place = std::ranges::find(stage.blocks, taken.blocks[i]) - stage.blocks.begin();
    // Neighbours in one piece.
    std::size_t end = i + 1;
    while (end < taken.blocks.size() && taken.blocks[end] == taken.blocks[end - 1] + 1) ++end;
    const auto first = static_cast<std::int64_t>(i), count = static_cast<std::int64_t>(end - i);
    at::Tensor rows = profile.narrow(0, place, count);
    rows.narrow(1, 0, width - 1).add_(sums.narrow(0, first, count));
    rows.narrow(1, width - 1, 1).add_(static_cast<double>(samples));
    i = end;
  }
}

void DivergenceSums::add_moments(const Taken& taken) {
  const std::int64_t pairs = std::ssize(taken.blocks) - 1;
  if (pairs < 1) return;
  const at::Tensor previous = taken.values.narrow(0, 0, pairs);
  const at::Tensor current = taken.values.narrow(0, 1, pairs);
  const at::Tensor found = moments(
      gates_ ? gate_divergence(kind_, previous, current) : row_divergence(kind_, previous, current),
      clip_);
  at::Tensor table = sums_.narrow(0, 0, std::ssize(candidates_) * kMoments).view({-1, kMoments});
  for (std::int64_t i = 0; i < pairs;) {
    const std::int64_t first = index_of(taken.blocks[static_cast<std::size_t>(i + 1)]);
    std::int64_t count = 1;
    while (first >= 0 && i + count < pairs &&
           index_of(taken.blocks[static_cast<std::size_t>(i + count + 1)]) == first + count) {
      ++count;
    }
    if (first >= 0) table.narrow(0, first, count).add_(found.narrow(0, i, count));
    i += count;
  }
}

std::int64_t DivergenceSums::index_of(int block) const {
  const auto found = std::ranges::find(candidates_, block, &Candidate::block);
  return found == candidates_.end() ? -1 : found - candidates_.begin();
}

at::Tensor DivergenceSums::gather(Communicator& communicator) const {
  at::Tensor all = at::empty({communicator.size(), sums_.numel()}, sums_.options());
  communicator.all_gather(sums_, all);
  return all.cpu();
}

void DivergenceSums::reset(const at::Tensor& sums) {
  const at::NoGradGuard no_grad;
  if (sums.defined()) {
    sums_.copy_(sums);
  } else {
    sums_.zero_();
  }
  // Steps run on a stream of their own and must not overtake this.
  if (sums_.is_cuda()) sums_.cpu();
}

EpochStatistics DivergenceSums::read(const at::Tensor& sums) const {
  EpochStatistics epoch;
  for (const Stage& stage : stages_) {
    const std::int64_t rows = std::ssize(stage.blocks), width = profile_width(stage) + 1;
    const at::Tensor raw = sums.narrow(0, stage.profile, rows * width).view({rows, width});
    const at::Tensor samples = raw.narrow(1, width - 1, 1);
    epoch.profiles.push_back(raw.narrow(1, 0, width - 1) / samples.clamp_min(1.0));
  }
  const at::Tensor table = sums.narrow(0, 0, std::ssize(candidates_) * kMoments).contiguous();
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    if (kind_ == Divergence::MeanRows) {
      const auto stage = static_cast<std::size_t>(candidates_[i].stage);
      epoch.layers.push_back(mean_row_moments(candidates_[i], epoch.profiles[stage]));
      continue;
    }
    const double* row = table.const_data_ptr<double>() + static_cast<std::int64_t>(i) * kMoments;
    if (row[0] == 0.0) {
      epoch.layers.push_back(std::nullopt);
    } else {
      epoch.layers.push_back(
          LayerMoments{row[1] / row[0], row[2] / row[0], row[3] / row[0], row[4] / row[0]});
    }
  }
  return epoch;
}

LayerMoments DivergenceSums::mean_row_moments(const Candidate& candidate,
                                              const at::Tensor& profile) const {
  const at::Tensor rows = profile.log();
  const double d =
      row_divergence(kind_, rows[candidate.position - 1], rows[candidate.position]).item<double>();
  const double mean = std::clamp(d, 0.0, clip_), z = -std::expm1(-mean);
  return {mean, mean * mean, z, z * z};
}

}  // namespace ablate::methods::ela
