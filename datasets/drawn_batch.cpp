#include "datasets/drawn_batch.h"

#include "datasets/repeated_draw.h"

namespace ablate {

DrawnBatch draw_batch(std::int64_t samples, const AugmentRecipe& recipe,
                      const LoaderOptions& options, const BatchPlan& plan, std::int64_t number) {
  DrawnBatch batch;
  batch.step = number / plan.per_step;
  batch.first_position = plan.first_position(options.shard.rank, number);
  const std::int64_t epoch = batch.step / plan.steps;
  const Permutation order(static_cast<std::uint64_t>(samples), options.seed, Purpose::DataOrder,
                          static_cast<std::uint64_t>(epoch));
  for (std::int64_t row = 0; row < plan.rows; ++row) {
    const std::int64_t draw =
        batch.step % plan.steps * options.global_batch +
        dealt_draw(batch.first_position + row, options.global_batch,
                   recipe.mixing.enabled() ? options.mix_group : 0, recipe.repeated);
    const std::uint64_t index = order(static_cast<std::uint64_t>(draw / recipe.repeated));
    batch.rows.push_back(
        {static_cast<std::int64_t>(index),
         {options.seed, sample_key(static_cast<std::uint64_t>(epoch), index,
                                   static_cast<std::uint32_t>(draw % recipe.repeated))}});
  }
  return batch;
}

}  // namespace ablate
