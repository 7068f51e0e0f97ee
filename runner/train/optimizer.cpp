#include "runner/train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace ablate {
namespace {

constexpr std::int64_t kChunksPerTask = 4;

template <typename T>
double norm_of(const ParameterArena& arena) {
  const T* gradients = arena.gradients().const_data_ptr<T>();
  const auto& chunks = arena.chunks();
  std::vector<double> sums(chunks.size());
  at::parallel_for(0, static_cast<std::int64_t>(chunks.size()), kChunksPerTask,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t c = begin; c < end; ++c) {
                       const ArenaChunk& chunk = chunks[static_cast<std::size_t>(c)];
                       sums[static_cast<std::size_t>(c)] =
                           sum_of_squares(gradients + chunk.begin, chunk.count);
                     }
                   });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

}  // namespace

double read_base_lr(Params& params) {
  return params.number("lr", 1e-3, 0.0, 1e3, "learning rate at the peak of the schedule");
}

DecaySettings DecaySettings::read(Params& params, double default_decay) {
  DecaySettings settings{};
  settings.weight_decay = params.number("weight_decay", default_decay, 0.0, 10.0,
                                        "weight decay of parameters that are not exempt");
  settings.decay_all = params.boolean("decay_all", false,
                                      "decay biases, norms and the model's exempt parameters too");
  settings.decay_norms = params.boolean(
      "decay_norms", false,
      "decay biases and norms, but not the model's exempt parameters, as mmsegmentation does");
  settings.layer_decay =
      params.number("layer_decay", 1.0, 0.01, 1.0,
                    "factor of the learning rate for each layer between a parameter and the head");
  return settings;
}

SegmentRates rates_of(const ArenaSegment& segment, const DecaySettings& settings) {
  const bool exempt = settings.decay_norms ? segment.decay_listed : segment.decay_exempt;
  const bool decays = settings.decay_all || !exempt;
  const double depth_factor =
      std::pow(settings.layer_decay, static_cast<double>(segment.layers_above));
  return {.lr_factor = segment.settings.lr_factor * depth_factor,
          .weight_decay = decays ? settings.weight_decay * segment.settings.decay_factor : 0.0};
}

template <typename T>
void for_each_span(ParameterArena& arena, const UpdateArguments& arguments,
                   const DecaySettings& decay,
                   const std::function<void(const UpdateSpan<T>&, std::int64_t)>& update) {
  T* parameters = arena.parameters().data_ptr<T>();
  const T* gradients = arena.gradients().const_data_ptr<T>();
  T* ema = nullptr;
  if (arguments.ema_decay > 0.0) {
    ema = arena.state(kEmaState, ParameterArena::StateInit::Parameters).data_ptr<T>();
  }
  const auto run_chunk = [&](const ArenaChunk& chunk) {
    const ArenaSegment& segment = arena.segments()[chunk.segment];
    const SegmentSettings& settings = segment.settings;
    const SegmentRates rates = rates_of(segment, decay);
    update({.parameters = parameters + chunk.begin,
            .gradients = gradients + chunk.begin,
            .ema = ema == nullptr ? nullptr : ema + chunk.begin,
            .count = chunk.count,
            .gradient_scale = arguments.gradient_scale,
            .lr = arguments.lr * rates.lr_factor,
            .weight_decay = rates.weight_decay,
            .clamp_low = settings.clamp_low,
            .clamp_high = settings.clamp_high,
            .ema_decay = arguments.ema_decay},
           chunk.begin);
  };
  at::parallel_for(0, static_cast<std::int64_t>(arena.chunks().size()), kChunksPerTask,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t c = begin; c < end; ++c) {
                       run_chunk(arena.chunks()[static_cast<std::size_t>(c)]);
                     }
                   });
}

template void for_each_span<float>(
    ParameterArena&, const UpdateArguments&, const DecaySettings&,
    const std::function<void(const UpdateSpan<float>&, std::int64_t)>&);
template void for_each_span<double>(
    ParameterArena&, const UpdateArguments&, const DecaySettings&,
    const std::function<void(const UpdateSpan<double>&, std::int64_t)>&);

double gradient_norm(const ParameterArena& arena) {
  const bool single = arena.gradients().scalar_type() == at::kFloat;
  return single ? norm_of<float>(arena) : norm_of<double>(arena);
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0.0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace ablate
