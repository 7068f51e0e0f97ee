#include "methods/method_stack.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

using test::message_of;
using test::method_component;
using test::MethodContext;

/// What the probes below were asked to do, in order.
std::vector<std::string>& calls() {
  static std::vector<std::string> log;
  return log;
}

/// Notes every call; claims to be settled as its settings say.
class Probe final : public Method {
 public:
  Probe(std::string name, Params& params)
      : name_(std::move(name)),
        settled_(params.boolean("settled", false, "")),
        weight_(params.number("weight", 1, 0, 100, "")) {}

  void apply(TrainContext&) override { note("apply"); }
  void between_steps(TrainContext&) override { note("between"); }
  at::Tensor in_step(TrainContext&, at::Tensor loss) override { return loss * weight_ + 1; }
  void on_epoch(TrainContext&, EpochEdge edge) override {
    note(edge == EpochEdge::Start ? "start" : "end");
  }
  void finalize(Surgeon&) override { note("finalize"); }
  bool settled() const override { return settled_; }
  nlohmann::json save() const override { return {{"weight", weight_}}; }
  void load(const nlohmann::json& state) override { weight_ = state.at("weight").get<double>(); }

 private:
  void note(const char* what) const { calls().push_back(cat(name_, ".", what)); }

  std::string name_;
  bool settled_;
  double weight_;
};

MethodInfo probe_info(std::string_view name, Phase phase) {
  MethodInfo info{};
  info.name = name;
  info.semantics = 1;
  info.phase = phase;
  return info;
}

const bool registered = [] {
  MethodInfo first = probe_info("probe_early", Phase::Architecture);
  first.make = [](Params& params) -> std::unique_ptr<Method> {
    return std::make_unique<Probe>("early", params);
  };
  first.conflicts = {"nose"};
  first.conflict_reason = "both want the first word";
  MethodInfo second = probe_info("probe_late", Phase::TokenReduction);
  second.make = [](Params& params) -> std::unique_ptr<Method> {
    return std::make_unique<Probe>("late", params);
  };
  Registry<MethodInfo>::Add{first};
  Registry<MethodInfo>::Add{second};
  return true;
}();

Component nose() { return method_component("name = 'nose'\nremove = 1"); }
Component tome() { return method_component("name = 'tome'"); }
Component early() { return method_component("name = 'probe_early'"); }
Component late() { return method_component("name = 'probe_late'"); }

const ModelInfo& vit() { return Registry<ModelInfo>::get("vit"); }

TEST(MethodStack, EqualSetsHaveOneOrder) {
  std::vector<Component> methods{tome(), early(), nose()};
  do {
    std::vector<Component> sorted = methods;
    sort_methods(sorted);
    EXPECT_EQ(sorted, (std::vector<Component>{early(), nose(), tome()}));
  } while (std::ranges::next_permutation(methods, {}, &Component::name).found);
}

TEST(MethodStack, EqualSetsGiveRunsOfOneIdentity) {
  RunSpec first, second;
  first.methods = {nose(), tome()};
  second.methods = {tome(), nose()};
  EXPECT_NE(first.id(), second.id());
  sort_methods(second.methods);
  EXPECT_EQ(first.id(), second.id());
}

TEST(MethodStack, ChecksASetAgainstModelAndItself) {
  const auto refusal = [](const ModelInfo& model, const std::vector<Component>& methods) {
    return message_of<SpecError>([&] { check_methods(model, methods, "sweep.toml:3:1"); });
  };
  EXPECT_NO_THROW(check_methods(vit(), {nose(), tome()}, "here"));
  const std::string need = refusal(Registry<ModelInfo>::get("resnet20"), {tome()});
  EXPECT_NE(need.find("sweep.toml:3:1: method \"tome\" needs the slot \"token reducer\""),
            std::string::npos)
      << need;
  EXPECT_NE(need.find("resnet20"), std::string::npos);
  EXPECT_NE(refusal(vit(), {tome(), tome()}).find("\"tome\" is applied twice"), std::string::npos);
  for (const auto& pair : {std::vector{early(), nose()}, std::vector{nose(), early()}}) {
    const std::string conflict = refusal(vit(), pair);
    EXPECT_NE(conflict.find("\"nose\""), std::string::npos);
    EXPECT_NE(conflict.find("\"probe_early\""), std::string::npos);
    EXPECT_NE(conflict.find("both want the first word"), std::string::npos);
  }
  const std::string seat = refusal(vit(), {tome(), late()});
  EXPECT_NE(seat.find("want the same slot"), std::string::npos) << seat;
}

TEST(MethodStack, CallsInOrderAndAfterwardsInReverse) {
  const auto model = test::golden_vit();
  MethodContext context(*model);
  MethodStack stack({early(), late()});
  calls().clear();
  stack.apply(context);
  stack.on_epoch(context, EpochEdge::Start);
  stack.between_steps(context);
  stack.on_epoch(context, EpochEdge::End);
  stack.finalize(context.surgeon());
  EXPECT_EQ(calls(),
            (std::vector<std::string>{"early.apply", "late.apply", "early.start", "late.start",
                                      "early.between", "late.between", "late.end", "early.end",
                                      "late.finalize", "early.finalize"}));
}

TEST(MethodStack, ChainsTheLossAndCarriesTheState) {
  const auto model = test::golden_vit();
  MethodContext context(*model);
  const MethodStack saved({method_component("name = 'probe_early'\nweight = 3"),
                           method_component("name = 'probe_late'\nweight = 5")});
  MethodStack loaded({early(), late()});
  EXPECT_EQ(loaded.in_step(context, at::ones({})).item<double>(), 3);  // (1 + 1) + 1
  loaded.load(nlohmann::json::parse(saved.save().dump()));
  EXPECT_EQ(loaded.in_step(context, at::ones({})).item<double>(), 21);  // (1 * 3 + 1) * 5 + 1
}

TEST(MethodStack, IsSettledWhenAllAre) {
  const Component done = method_component("name = 'probe_late'\nsettled = true");
  EXPECT_TRUE(MethodStack({done}).settled());
  EXPECT_FALSE(MethodStack({early(), done}).settled());
  EXPECT_TRUE(MethodStack({}).settled());
}

TEST(MethodStack, RefusesAMethodThatChangesNothing) {
  const auto model = test::golden_vit();
  MethodContext context(*model);
  MethodStack idle({method_component("name = 'probe_late'\nsettled = true")});
  EXPECT_NE(message_of<Error>([&] { idle.apply(context); }).find("\"probe_late\" changed nothing"),
            std::string::npos);
  EXPECT_NO_THROW(MethodStack({late()}).apply(context)) << "it has work left";
}

TEST(MethodStack, NamesTheMethodOfASettingItDoesNotKnow) {
  Component broken = tome();
  broken.params["rr"] = 3;
  EXPECT_NE(message_of<SpecError>([&] { MethodStack({broken}); }).find("methods.tome"),
            std::string::npos);
}

// Removal and merging together: merging keeps away from the blocks that dilution empties.
TEST(MethodStack, CombinesDilutionWithTokenMerging) {
  const auto model = test::golden_vit();
  MethodContext context(*model);
  context.length = 2;
  MethodStack stack(
      {method_component("name = 'nose'\nlayers = [1]"), method_component("name = 'tome'\nr = 3")});
  stack.apply(context);
  const auto tokens = [&] {
    const at::NoGradGuard no_grad;
    ForwardState state;
    model->forward(test::golden_images(), state);
    return state.token_sizes.size(1);
  };
  EXPECT_EQ(tokens(), 17 - 6);
  context.now = 1;
  stack.between_steps(context);
  EXPECT_TRUE(stack.settled());
  EXPECT_EQ(tokens(), 17 - 6);
  stack.finalize(context.surgeon());

  // Computed by the public code of both papers.
  const at::NoGradGuard no_grad;
  ForwardState state;
  const at::Tensor expected = at::tensor(
      {-0.7739141226, -0.1552800365, 0.0160424546, -0.5993005327, 1.0942166187}, at::kDouble);
  const at::Tensor logits = model->forward(test::golden_images(), state);
  EXPECT_LT((logits[0] - expected).abs().max().item<double>(), 2e-10);
}

}  // namespace
}  // namespace ablate
