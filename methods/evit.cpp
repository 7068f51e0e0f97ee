#include <algorithm>

#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/models/ops.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate::methods::evit {
namespace {

/// Keeps the tokens that the class token looks at most, and puts the others together in one behind
/// them, each with its attention as weight.
class AttentiveReducer final : public TokenReducer {
 public:
  AttentiveReducer(double keep, bool fuse) : keep_(keep), fuse_(fuse) {}

  void begin(ForwardState&) override {}

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const std::int64_t front = state.protected_tokens, tokens = state.class_attention.size(1);
    ABLATE_CHECK(front > 0, "a model without class token");
    const std::int64_t kept = front + kept_tokens(keep_, tokens - front);
    // A fused token in the place of a single one would change nothing but its scale.
    if (kept + (fuse_ ? 1 : 0) >= tokens) return stream;
    const at::Tensor attention = state.class_attention;
    const at::Tensor order = by_score(attention.narrow(1, front, tokens - front), front);
    const at::Tensor x = ops::join(stream, state);
    stream = keep_tokens(order.narrow(1, 0, kept), {x}, state,
                         fuse_ ? positions_after(order, kept) : at::Tensor());
    if (!fuse_) return stream;
    const at::Tensor rest = order.narrow(1, kept, tokens - kept);
    const at::Tensor weights = attention.gather(1, rest).unsqueeze(2).to(x.scalar_type());
    const at::Tensor fused = (take_tokens(x, rest) * weights).sum(1, /*keepdim=*/true);
    return {at::cat({stream.base, fused}, 1)};
  }

  KeyNeed key_need() const override { return KeyNeed::ClassAttention; }

 private:
  /// Of each token: the `kept` first of an order by their place in it, the others all behind.
  static at::Tensor positions_after(const at::Tensor& order, std::int64_t kept) {
    const at::Tensor places = at::arange(order.size(1), order.options()).clamp_max(kept);
    return at::empty_like(order).scatter_(1, order, places.expand_as(order));
  }

  double keep_;
  bool fuse_;
};

struct Settings {
  double keep;
  bool fuse;

  static Settings read(Params& params) {
    return {params.number("keep", 0.7, 0.01, 1.0,
                          "share of the tokens behind the class token that stay at each stage"),
            params.boolean("fuse_token", true,
                           "put the others together in one token, weighted by attention")};
  }
};

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  const Settings settings = Settings::read(params);
  return std::make_shared<AttentiveReducer>(settings.keep, settings.fuse);
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "evit", .make = make_reducer}};

/// Token reorganization (Liang et al., ICLR 2022; implemented from the paper): no parameters, no
/// loss. The keep rate is constant over a run.
class EVit final : public Method {
 public:
  explicit EVit(Params& params)
      : settings_(Settings::read(params)), stages_(TokenStages::read(params)) {
    if (settings_.keep == 1.0) params.fail("keep", "1 keeps all tokens; set less");
  }

  void check(const RunOutline& run) const override { stages(run.base.blocks()); }

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const Value::Table params{{"keep", settings_.keep}, {"fuse_token", settings_.fuse}};
    for (const int block : stages(surgeon.model().blocks())) {
      surgeon.apply(InsertReducer{block, "evit", params});
    }
    check_shortened(surgeon.model(), "evit");
  }

 private:
  std::vector<int> stages(const std::vector<Block*>& blocks) const {
    return class_attention_stages(blocks, stages_.of(std::ssize(blocks), "evit"), "evit");
  }

  Settings settings_;
  TokenStages stages_;
};

const Registry<MethodInfo>::Add added{{
    .name = "evit",
    .summary = "keeps the tokens that the class token looks at, and fuses the others into one",
    .paper = "Liang et al., Not All Patches Are What You Need, ICLR 2022",
    .semantics = 1,
    .phase = Phase::TokenReduction,
    .needs = {Slot::TokenReducer},
    .conflicts = {},
    .conflict_reason = "",
    .reconstruction = "the keep rate is constant; the published training lowers it from 1 over the "
                      "first epochs",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<EVit>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "evit"
keep = 0.7
blocks = [1])",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'evit'\nkeep = 1.0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::evit
