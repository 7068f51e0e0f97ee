#pragma once

#include <cstdint>
#include <memory>

#include "methods/models/slots.h"

namespace ablate {

/// Where the images of one pass stand among the groups of a step.
struct GroupSpan {
  std::int64_t group = 0;           ///< images in each
  std::int64_t first = 0;           ///< index of the first image's group
  std::int64_t groups_in_step = 0;  ///< on all ranks
  bool local = false;               ///< whole groups; else a share of one
};

/// Batch normalisation of (B, C, H, W) whose statistics are taken over fixed groups of consecutive
/// images of the global batch ("ghost batches", Hoffer et al., NeurIPS 2017), so that results do
/// not depend on the number of ranks. State-dict names are those of torch.nn.BatchNorm2d.
///
/// A group inside one pass is local. A group made of the equal passes of several consecutive ranks
/// is synchronised over ForwardState::bn_communicator. Anything else throws SpecError with the fix.
///
/// Running statistics r <- (1 - m) r + m s are a linear recurrence over the groups in the order of
/// the global batch, so each rank keeps only the share of its own groups;
/// synchronize_running_statistics() adds the shares and must be called, on all ranks, after
/// training steps and before evaluation or saving. One pass of a step per micro-batch, steps in
/// order. Rounding depends on the steps after which it is called: after every one, if a run that
/// was interrupted is to end with the same bits.
class GroupBatchNorm2d : public torch::nn::Module {
 public:
  /// group: images in a group, at most the global batch; 0 means the whole global batch.
  GroupBatchNorm2d(std::int64_t channels, std::int64_t group);

  at::Tensor forward(const at::Tensor& x, const ForwardState& state);
  /// Of a training pass over so many images. Throws SpecError when groups do not fit the step.
  GroupSpan span_of(std::int64_t batch, const ForwardState& state) const;

  at::Tensor weight, bias, running_mean, running_var, num_batches_tracked;

  static constexpr double kMomentum = 0.1, kEps = 1e-5;

 private:
  friend void synchronize_running_statistics(torch::nn::Module&, Communicator&);
  friend void discard_running_statistics(torch::nn::Module&);

  /// Where the shares of groups are added up, and what a group's statistics weigh there.
  struct Sink {
    at::Tensor share;
    std::int64_t groups_in_step;
    void note(const at::Tensor& mean, const at::Tensor& unbiased_var,
              std::int64_t group_index) const;
  };

  at::Tensor normalize_local(const at::Tensor& x, const GroupSpan& span, const Sink& sink);
  at::Tensor normalize_shared(const at::Tensor& x, const GroupSpan& span, Communicator& ranks,
                              const Sink& sink);
  Sink begin_pass(const ForwardState& state, const GroupSpan& span);
  void forget_share();

  std::int64_t group_;
  // Since the last synchronisation: this rank's share of running mean and variance (2, C) in
  // double, the factor on the old values, and the groups of all ranks that went by.
  at::Tensor share_;
  double decay_ = 1.0;
  std::int64_t updates_ = 0;
  std::int64_t last_step_ = -1;
  std::int64_t groups_in_step_ = 0;
};

/// Makes the running statistics of every GroupBatchNorm2d below `module` complete and equal on all
/// ranks. Collective; free when no training pass happened since the last call.
void synchronize_running_statistics(torch::nn::Module& module, Communicator& ranks);

/// Leaves the running statistics as the last synchronisation made them: for a step whose numbers
/// are not finite and must not be kept.
void discard_running_statistics(torch::nn::Module& module);

/// Whether each group of `bn_group` images (0: the whole batch) lies inside one pass of
/// `micro_batch` images (0: a rank's whole slice); if not, a group is made of the slices of several
/// ranks. Throws SpecError with the fix when a group would be cut otherwise.
bool groups_are_local(int ranks, std::int64_t bn_group, std::int64_t global_batch,
                      std::int64_t micro_batch);

/// The communicator for ForwardState::bn_communicator: the ranks whose slices of the global batch
/// make one group; null when groups_are_local(). Collective. Throws as that does.
std::unique_ptr<Communicator> make_group_communicator(Communicator& world, std::int64_t bn_group,
                                                      std::int64_t global_batch,
                                                      std::int64_t micro_batch);

}  // namespace ablate
