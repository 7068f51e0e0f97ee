#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/models/random_numbers.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate::methods::random_pruning {
namespace {

/// Keeps tokens that nothing but chance chooses: anew for each image and step in training, and the
/// same ones for all images else, or it would matter how they are cut into batches.
class RandomReducer final : public TokenReducer {
 public:
  explicit RandomReducer(double keep) : keep_(keep) {}

  void begin(ForwardState&) override {}

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const std::int64_t batch = stream.base.size(0), front = state.protected_tokens;
    const std::int64_t choice = stream.base.size(1) - front, kept = kept_tokens(keep_, choice);
    if (kept == choice) return stream;
    const at::Tensor scores =
        is_training() ? uniform_numbers(state, qualified_name, batch, choice, stream.base)
                      : fixed_numbers(qualified_name, choice, stream.base).expand({batch, choice});
    return keep_tokens(by_score(scores, front).narrow(1, 0, front + kept), stream, state);
  }

  KeyNeed key_need() const override { return KeyNeed::None; }

 private:
  double keep_;
};

double read_keep(Params& params) {
  return params.number("keep", 0.7, 0.01, 1.0,
                       "share of the tokens behind the class token that stay at each stage");
}

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  return std::make_shared<RandomReducer>(read_keep(params));
}

const Registry<TokenReducerInfo>::Add added_reducer{
    {.name = "random_pruning", .make = make_reducer}};

/// What every way to choose tokens has to beat.
class RandomPruning final : public Method {
 public:
  explicit RandomPruning(Params& params)
      : keep_(read_keep(params)), stages_(TokenStages::read(params)) {
    if (keep_ == 1.0) params.fail("keep", "1 keeps all tokens; set less");
  }

  void check(const RunOutline& run) const override {
    stages_.of(std::ssize(run.base.blocks()), "random_pruning");
  }

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::int64_t depth = std::ssize(surgeon.model().blocks());
    for (const int block : stages_.of(depth, "random_pruning")) {
      surgeon.apply(InsertReducer{block, "random_pruning", Value::Table{{"keep", keep_}}});
    }
    check_shortened(surgeon.model(), "random_pruning");
  }

 private:
  double keep_;
  TokenStages stages_;
};

const Registry<MethodInfo>::Add added{{
    .name = "random_pruning",
    .summary = "drops tokens at random, at the places where other methods choose them",
    .paper = "control of token pruning; as a row in Bolya et al., ICLR 2023",
    .semantics = 1,
    .phase = Phase::TokenReduction,
    .needs = {Slot::TokenReducer},
    .conflicts = kFollowTokens,
    .conflict_reason = kDroppedTokens,
    .reconstruction = "",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<RandomPruning>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "random_pruning"
keep = 0.7)",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'random_pruning'\nkeep = 1.0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::random_pruning
