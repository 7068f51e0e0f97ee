#include <cmath>
#include <utility>

#include "methods/example_vit.h"
#include "methods/method.h"
#include "methods/models/layers.h"
#include "methods/models/ops.h"
#include "methods/models/probe.h"
#include "methods/models/random_numbers.h"
#include "methods/token_selection.h"
#include "runner/core/error.h"

namespace ablate::methods::dynamic_vit {
namespace {

/// Says of each token whether it stays: features of its own beside the mean of those still there,
/// both from half of the width, through a small network to two log-probabilities.
class Predictor final : public torch::nn::Module {
 public:
  explicit Predictor(std::int64_t dim)
      : norm(register_module("norm", std::make_shared<LayerNorm>(dim, kNormEps))),
        embed(register_module("embed", std::make_shared<Linear>(dim, dim))),
        hidden(register_module("hidden", std::make_shared<Linear>(dim, dim / 2))),
        narrow(register_module("narrow", std::make_shared<Linear>(dim / 2, dim / 4))),
        score(register_module("score", std::make_shared<Linear>(dim / 4, 2))) {}

  /// tokens (B, T, C), mask (B, T) of those still there -> (B, T, 2): log of staying and of going.
  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& mask) const {
    const at::Tensor features = at::gelu(embed->forward(norm->forward(tokens)));
    const std::int64_t half = features.size(2) / 2;
    const at::Tensor there = mask.to(features.scalar_type()).unsqueeze(2);
    const at::Tensor mean =
        (features.narrow(2, half, half) * there).sum(1, true) / there.sum(1, true).clamp_min(1.0);
    const at::Tensor both =
        at::cat({features.narrow(2, 0, half), mean.expand({-1, features.size(1), -1})}, 2);
    const at::Tensor narrowed = at::gelu(narrow->forward(at::gelu(hidden->forward(both))));
    return at::log_softmax(score->forward(narrowed), -1);
  }

  static constexpr double kNormEps = 1e-5;
  std::shared_ptr<LayerNorm> norm;
  std::shared_ptr<Linear> embed, hidden, narrow, score;
};

struct StageOptions {
  std::int64_t dim;
  double keep;  ///< share of the tokens behind those in front that stay, of those of the image
  std::int64_t left;  ///< the number of them, in evaluation
};

/// In front of a block: in training decides by chance, and masks; else drops those least wanted.
class PredictingReducer final : public TokenReducer {
 public:
  explicit PredictingReducer(const StageOptions& options)
      : predictor(register_module("predictor", std::make_shared<Predictor>(options.dim))),
        options_(options) {}

  void begin(ForwardState&) override {}

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const at::Tensor x = ops::join(stream, state);
    const std::int64_t front = state.protected_tokens, tokens = x.size(1) - front;
    const at::Tensor there = state.token_mask.defined()
                                 ? state.token_mask.narrow(1, front, tokens)
                                 : at::ones({x.size(0), tokens}, x.options());
    const at::Tensor scores = predictor->forward(x.narrow(1, front, tokens), there);
    if (is_training()) {
      mask(draw(scores, state) * there, state);
      return {x};
    }
    if (options_.left >= tokens) return {x};
    const at::Tensor order = by_score(scores.select(2, 0), front);
    return keep_tokens(order.narrow(1, 0, front + options_.left), {x}, state);
  }

  KeyNeed key_need() const override { return KeyNeed::None; }
  ReducerPlace place() const override { return ReducerPlace::BeforeMixer; }

  std::shared_ptr<Predictor> predictor;

 private:
  /// Gumbel-softmax (Jang et al., ICLR 2017) with temperature 1: 1 where staying wins, with the
  /// gradient of its probability.
  at::Tensor draw(const at::Tensor& scores, const ForwardState& state) const {
    const std::int64_t batch = scores.size(0), tokens = scores.size(1);
    const at::Tensor uniform =
        uniform_numbers(state, qualified_name, batch, 2 * tokens, scores).view({batch, tokens, 2});
    const at::Tensor noise = -(-uniform.log()).log();
    const at::Tensor noisy = scores + noise.to(scores.scalar_type());
    const at::Tensor soft = at::softmax(noisy, -1).select(2, 0);
    const at::Tensor hard = (noisy.select(2, 0) >= noisy.select(2, 1)).to(scores.scalar_type());
    return soft + (hard - soft).detach();
  }

  void mask(const at::Tensor& stay, ForwardState& state) const {
    const at::Tensor front = at::ones({stay.size(0), state.protected_tokens}, stay.options());
    state.token_mask = at::cat({front, stay}, 1);
    state.reducer_losses.push_back((stay.mean(1) - options_.keep).square().mean());
  }

  StageOptions options_;
};

constexpr std::int64_t kManyTokens = 1 << 20;

std::shared_ptr<TokenReducer> make_reducer(Params& params) {
  StageOptions options{};
  options.dim = params.required_integer("dim", 4, 65536, "width of the residual stream");
  options.keep = params.required_number("keep", 0.0, 1.0, "share of tokens that training aims at");
  options.left = params.required_integer("left", 1, kManyTokens, "tokens kept in evaluation");
  return std::make_shared<PredictingReducer>(options);
}

const Registry<TokenReducerInfo>::Add added_reducer{{.name = "dynamic_vit", .make = make_reducer}};

/// Dynamic token sparsification (Rao et al., NeurIPS 2021; implemented from the paper).
class DynamicViT final : public Method {
 public:
  explicit DynamicViT(Params& params)
      : keep_(params.number("keep", 0.7, 0.01, 1.0,
                            "share of tokens kept at the first stage; its square at the second, "
                            "and so on")),
        ratio_weight_(params.number("ratio_weight", 2.0, 0.0, 1e6,
                                    "weight of the squared distance of kept shares from those")),
        stages_(TokenStages::read(params)) {
    if (keep_ == 1.0) params.fail("keep", "1 keeps all tokens; set less");
  }

  void check(const RunOutline& run) const override {
    check_mixers(run.base, stages_.of(depth_of(run.base), kName).front());
  }

  void apply(TrainContext& context) override {
    Surgeon& surgeon = context.surgeon();
    const std::vector<int> stages = stages_.of(depth_of(surgeon.model()), kName);
    check_mixers(surgeon.model(), stages.front());
    const std::int64_t tokens = patch_tokens(surgeon.model());
    double keep = 1.0;
    for (const int block : stages) {
      keep *= keep_;
      insert(surgeon, block, keep, tokens);
      initialize(*surgeon.model().blocks()[static_cast<std::size_t>(block)]->reducer(),
                 context.seed());
    }
    check_shortened(surgeon.model(), kName);
  }

  void after_pass(TrainContext&, const ForwardState& state) override {
    ABLATE_CHECK(!state.reducer_losses.empty(), "no stage has run");
    ratio_loss_ = at::stack(state.reducer_losses).mean();
  }

  at::Tensor in_step(TrainContext&, at::Tensor loss) override {
    const at::Tensor ratio = std::exchange(ratio_loss_, {});
    return loss + ratio_weight_ * ratio.to(loss.scalar_type());
  }

 private:
  static constexpr std::string_view kName = "dynamic_vit";

  static std::int64_t depth_of(Model& model) { return std::ssize(model.blocks()); }

  static std::int64_t patch_tokens(Model& model) {
    ForwardState state;
    state.taps["patch_embed"];
    probe(model, state);
    return state.taps["patch_embed"].size(1) - state.protected_tokens;
  }

  /// In training the tokens that go are still there, and nobody may look at them.
  static void check_mixers(Model& model, int first) {
    const std::vector<Block*> blocks = model.blocks();
    for (std::size_t i = static_cast<std::size_t>(first); i < blocks.size(); ++i) {
      if (!blocks[i]->mixer() || blocks[i]->mixer()->masks()) continue;
      throw SpecError(cat("methods.dynamic_vit: the token mixer of block ", i,
                          " cannot leave out masked tokens; softmax attention can"));
    }
  }

  void insert(Surgeon& surgeon, int block, double keep, std::int64_t tokens) const {
    const std::int64_t dim =
        surgeon.model().blocks()[static_cast<std::size_t>(block)]->norm2().weight.size(0);
    if (dim % 4 != 0) {
      throw SpecError(
          cat("methods.dynamic_vit: its predictors want a width that is a multiple of "
              "4, not ",
              dim));
    }
    const auto left = static_cast<std::int64_t>(keep * static_cast<double>(tokens));
    if (left < 1) {
      throw SpecError(cat("methods.dynamic_vit.keep: nothing is left of ", tokens,
                          " tokens in front of block ", block));
    }
    surgeon.apply(InsertReducer{block, std::string(kName),
                                Value::Table{{"dim", dim}, {"keep", keep}, {"left", left}}});
  }

  /// As timm draws the weights of transformers; norms are born as they start.
  static void initialize(TokenReducer& reducer, std::uint64_t seed) {
    constexpr double kStd = 0.02;
    for (auto& item : reducer.named_parameters()) {
      const std::string name = cat(reducer.qualified_name, ".", item.key());
      at::Tensor& parameter = item.value();
      const at::NoGradGuard no_grad;
      if (parameter.dim() > 1) {
        fill_truncated_normal(parameter, seed, name, kStd);
      } else if (name.ends_with(".bias")) {
        parameter.zero_();
      }
    }
  }

  double keep_, ratio_weight_;
  TokenStages stages_;
  at::Tensor ratio_loss_;
};

const Registry<MethodInfo>::Add added{{
    .name = "dynamic_vit",
    .summary =
        "small networks decide which tokens stay; masks in training, shorter sequences after",
    .paper = "Rao et al., DynamicViT: Efficient Vision Transformers with Dynamic Token "
             "Sparsification, NeurIPS 2021",
    .semantics = 1,
    .phase = Phase::TokenReduction,
    .needs = {Slot::TokenReducer},
    .conflicts = kFollowTokens,
    .conflict_reason = kDroppedTokens,
    .reconstruction = "of its distillation only that of logits (teacher = ...), not that of tokens",
    .make = [](Params& params) -> std::unique_ptr<Method> {
      return std::make_unique<DynamicViT>(params);
    },
    .example =
        [] {
          return MethodExample{.model = "vit",
                               .params = R"(name = "dynamic_vit"
keep = 0.7)",
                               .model_params = kExampleVit,
                               .idle_params = "name = 'dynamic_vit'\nkeep = 1.0"};
        },
}};

}  // namespace
}  // namespace ablate::methods::dynamic_vit
