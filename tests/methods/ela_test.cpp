#include <algorithm>

#include <gtest/gtest.h>

#include "methods/layer_method.h"
#include "runner/core/error.h"
#include "runner/core/params.h"
#include "runner/measure/mac_counter.h"
#include "tests/methods/ela_support.h"
#include "tests/support/run_ranks.h"

namespace ablate {
namespace {

using test::ElaRun;
using test::small_resnet;
using test::wavy_images;
using Numbers = std::vector<int>;

std::map<std::string, at::Tensor> everything_of(Model& model) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& item : model.named_parameters()) {
    tensors[item.key()] = item.value().detach().clone();
    if (item.value().grad().defined()) tensors["grad " + item.key()] = item.value().grad().clone();
  }
  for (const auto& item : model.named_buffers()) tensors[item.key()] = item.value().clone();
  return tensors;
}

void expect_equal(const std::map<std::string, at::Tensor>& a,
                  const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

/// A training pass without the method.
at::Tensor plain_pass(Model& model, const at::Tensor& images) {
  model.train();
  ForwardState state;
  const at::Tensor logits = model.forward(images, state);
  synchronize_running_statistics(model, *make_self_communicator());
  return logits;
}

// Measuring changes neither outputs, gradients, parameters and buffers nor torch's generator.
TEST(Ela, WithoutSkipsItIsItsLayerAttention) {
  for (const std::string variant : {"base", "light"}) {
    const auto parent = small_resnet();
    test::MethodContext context(*parent);
    MethodStack({test::method_component(cat("name = 'mrla_", variant, "'"))}).apply(context);
    ElaRun run(small_resnet(), cat("variant = '", variant, "'"), 20);
    const at::Tensor generator = at::detail::getDefaultCPUGenerator().get_state();
    run.begin_epoch();
    const at::Tensor images = wavy_images(8, 16);
    const at::Tensor expected = plain_pass(*parent, images), got = run.pass(images);
    EXPECT_TRUE(at::equal(expected, got)) << variant;
    expected.square().sum().backward();
    got.square().sum().backward();
    expect_equal(everything_of(*parent), everything_of(run.model()));
    EXPECT_TRUE(at::equal(generator, at::detail::getDefaultCPUGenerator().get_state()));
  }
}

TEST(Ela, SkipsWhatDiffersLeast) {
  for (const std::string variant : {"base", "light"}) {
    ElaRun run(small_resnet("resnet56"),
               cat("variant = '", variant,
                   "'\npreset = 'top_m'\nskip = 4\nwarmup_epochs = 2\n"
                   "freeze_epoch = 3"),
               8);
    const at::Tensor images = wavy_images(8, 16);
    run.epoch(images);
    run.epoch(images);
    EXPECT_TRUE(run.skipped().empty()) << "warm-up";
    run.begin_epoch();
    const nlohmann::json event = run.events().back();
    EXPECT_EQ(event.at("phase"), "search");
    std::vector<std::pair<double, int>> by_divergence;
    for (std::size_t i = 0; i < 15; ++i) {
      by_divergence.emplace_back(event.at("average")[i], event.at("blocks")[i]);
    }
    std::ranges::sort(by_divergence);
    Numbers expected;
    for (std::size_t i = 0; i < 4; ++i) expected.push_back(by_divergence[i].second);
    std::ranges::sort(expected);
    EXPECT_EQ(run.skipped(), expected);
    EXPECT_EQ(run.context().metrics.at("ela/skipped").back(), 4);
    EXPECT_EQ(run.context().metrics.at("ela/flips").back(), 4);
    EXPECT_EQ(run.context().metrics.at(cat("ela/divergence/", expected[0])).size(), 2U);
  }
}

// A third block like the second: same features, query and key, so their rows agree where both have
// entries.
TEST(Ela, FindsAPlantedRedundancy) {
  const auto model = small_resnet("resnet56");
  ElaRun run(model,
             "preset = 'top_m'\nskip = 1\ndivergence = 'shared'\ndrop_path = 0.0\n"
             "warmup_epochs = 1\nfreeze_epoch = 2",
             4);
  {
    const at::NoGradGuard no_grad;
    auto parameters = model->named_parameters();
    // Neither the residual branch of layer2.3 nor the layer attention before it adds anything.
    for (const char* part : {"layer2.3.bn3.weight", "layer2.2.layer_attention.norm.weight"}) {
      parameters[part].zero_();
    }
    for (const char* part : {"query", "key"}) {
      parameters[cat("layer2.3.layer_attention.", part)].copy_(
          parameters[cat("layer2.2.layer_attention.", part)]);
    }
  }
  for (int epoch = 0; epoch < 3; ++epoch) run.epoch(wavy_images(8, 16));
  EXPECT_EQ(run.skipped(), Numbers{9}) << "the fourth block of the second stage of six";
}

TEST(Ela, SkippedBlocksAreMeasuredOnlyWithShadow) {
  for (const bool shadow : {true, false}) {
    ElaRun run(small_resnet("resnet56"),
               cat("preset = 'top_m'\nskip = 5\nema = 0.0\nwarmup_epochs = 1\nfreeze_epoch = 4\n"
                   "shadow = ",
                   shadow ? "true" : "false"),
               8);
    run.epoch(wavy_images(8, 16));
    run.epoch(wavy_images(8, 16));
    const Numbers first = run.skipped();
    ASSERT_EQ(first.size(), 5U);
    run.begin_epoch();
    std::int64_t measured = 0;
    const nlohmann::json event = run.events().back();
    for (const auto& value : event.at("divergence")) measured += value.is_number();
    EXPECT_EQ(measured, shadow ? 15 : 10);
    if (shadow) continue;
    const Numbers second = run.skipped();
    EXPECT_TRUE(std::ranges::includes(second, first)) << "what is not measured cannot return";
  }
}

TEST(Ela, SkippedRetrievalsAreNotKept) {
  for (const auto& [mode, kept] :
       {std::pair{"drop", 1U}, {"keep_keys", 6U}, {"reuse", 1U}, {"recur", 6U}}) {
    ElaRun run(small_resnet("resnet56"),
               cat("preset = 'first_m'\nskip = 15\nwarmup_epochs = 0\nfreeze_epoch = 1\nmode = '",
                   mode, "'"),
               4);
    run.begin_epoch();
    EXPECT_EQ(run.skipped().size(), 15U);
    run.pass(wavy_images(8, 16));
    EXPECT_EQ(run.history->values.size(), kept) << mode;
  }
}

// Frozen: what is skipped is deleted, nothing is measured, and the model costs what is left.
TEST(Ela, FreezesForGood) {
  ElaRun run(small_resnet(), "preset = 'every_other'\nwarmup_epochs = 1\nfreeze_epoch = 2", 6);
  const std::int64_t full = measure_cost(run.model()).macs;
  run.model().train();
  run.epoch(wavy_images(8, 16));
  EXPECT_FALSE(run.stack().settled());
  run.epoch(wavy_images(8, 16));
  const std::int64_t generation = run.context().surgeon().generation();
  run.begin_epoch();
  EXPECT_TRUE(run.stack().settled());
  EXPECT_GT(run.context().surgeon().generation(), generation);
  EXPECT_EQ(run.skipped(), (Numbers{1, 3, 5}));
  for (const int block : {1, 3, 5}) {
    EXPECT_EQ(run.model().layer_sites()[static_cast<std::size_t>(block)]->layer_attention(),
              nullptr);
  }
  EXPECT_LT(measure_cost(run.model()).macs, full);
  const auto edits = run.context().surgeon().edits();
  run.stack().finalize(run.context().surgeon());
  EXPECT_EQ(run.context().surgeon().edits(), edits);
}

// The first block of each stage keeps its branch; behind it there are plain blocks.
TEST(Ela, FullMaskLeavesPlainBlocks) {
  const auto plain = small_resnet("resnet56");
  ElaRun run(small_resnet("resnet56"),
             "preset = 'first_m'\nskip = 15\nwarmup_epochs = 0\nfreeze_epoch = 1", 4);
  Surgeon surgeon(*plain);
  const Edit& attached = run.context().surgeon().edits().front();
  attach_layer_attention(surgeon, {{0, 1}, {6, 1}, {12, 1}}, "mrla_base",
                         std::get<AttachLayerAttention>(attached).params, 0);
  run.begin_epoch();
  const at::Tensor images = wavy_images(8, 16);
  const at::Tensor expected = plain_pass(*plain, images), got = run.pass(images);
  EXPECT_TRUE(at::equal(expected, got));
  expected.square().sum().backward();
  got.square().sum().backward();
  const auto after = everything_of(run.model());
  for (const auto& [name, tensor] : everything_of(*plain)) {
    EXPECT_TRUE(at::equal(tensor, after.at(name))) << name;
  }
}

TEST(Ela, TwoRanksDecideAsOneDoes) {
  const std::string settings =
      "patience = 1\nwarmup_epochs = 1\nfreeze_epoch = 3\ndrop_path = 0.0\nema = 0.5";
  const at::Tensor images = wavy_images(8, 16, at::kDouble);
  const auto double_model = [] {
    auto model = small_resnet("resnet56");
    model->to(at::kDouble);
    return model;
  };
  ElaRun alone(double_model(), settings, 6);
  for (int epoch = 0; epoch < 4; ++epoch) alone.epoch(images);
  ASSERT_FALSE(alone.skipped().empty());
  std::vector<std::vector<nlohmann::json>> events(2);
  test::run_ranks(2, [&](Communicator& world) {
    const int rank = world.rank();
    ElaRun mine(double_model(), settings, 6, world);
    for (int epoch = 0; epoch < 4; ++epoch) {
      mine.begin_epoch();
      mine.pass(images.narrow(0, 4 * rank, 4), 4 * rank, 8);
      mine.end_epoch();
    }
    EXPECT_EQ(mine.skipped(), alone.skipped());
    events[static_cast<std::size_t>(rank)] = mine.events();
  });
  EXPECT_EQ(events[0], events[1]) << "to the last bit";
  ASSERT_EQ(events[0].size(), alone.events().size());
  for (std::size_t i = 0; i < events[0].size(); ++i) {
    EXPECT_EQ(events[0][i].at("skipped"), alone.events()[i].at("skipped"));
  }
}

TEST(Ela, GoesOnInTheMiddleOfAnEpoch) {
  const std::string settings = "patience = 1\nwarmup_epochs = 1\nfreeze_epoch = 3\nema = 0.5";
  const at::Tensor first = wavy_images(4, 16), second = wavy_images(8, 16).narrow(0, 4, 4);
  const auto play = [&](ElaRun& run, int epochs) {
    for (int epoch = 0; epoch < epochs; ++epoch) {
      run.begin_epoch();
      run.pass(first);
      run.pass(second);
      run.end_epoch();
    }
  };
  ElaRun whole(small_resnet("resnet56"), settings, 6);
  play(whole, 1);
  whole.begin_epoch();
  whole.pass(first);
  whole.stack().before_save(whole.context());
  const std::string saved = whole.stack().save().dump();

  // As a resumed run does: edits replayed, tensors copied, state loaded.
  const auto model = small_resnet("resnet56");
  ElaRun resumed(model, settings, 6);
  for (const Edit& edit : whole.context().surgeon().edits()) {
    if (!std::holds_alternative<AttachLayerAttention>(edit)) {
      resumed.context().surgeon().apply(edit_from_json(to_json(edit)));
    }
  }
  {
    const at::NoGradGuard no_grad;
    const auto from = everything_of(whole.model());
    for (auto& item : model->named_buffers()) item.value().copy_(from.at(item.key()));
  }
  resumed.stack().load(nlohmann::json::parse(saved));
  resumed.context().now = whole.context().now;
  resumed.stack().between_steps(resumed.context());
  for (ElaRun* run : {&whole, &resumed}) {
    run->pass(second);
    run->end_epoch();
    play(*run, 3);
  }
  ASSERT_FALSE(whole.skipped().empty());
  EXPECT_EQ(whole.skipped(), resumed.skipped());
  const auto before = whole.events(), after = resumed.events();
  ASSERT_GE(after.size(), 2U);
  EXPECT_TRUE(std::equal(after.rbegin(), after.rend(), before.rbegin()));
}

// Revived and skipped again without a step in between, a layer is what it was.
TEST(Ela, RevivalLosesNothing) {
  const auto model = small_resnet();
  ElaRun run(model, "preset = 'every_other'", 6);
  Surgeon& surgeon = run.context().surgeon();
  model->eval();
  const at::Tensor images = wavy_images(4, 16);
  const at::Tensor full = test::logits_of(*model, images);
  surgeon.apply(SkipRetrieval{3, SkipMode::Drop});
  const at::Tensor skipped = test::logits_of(*model, images);
  surgeon.apply(SkipRetrieval{3, SkipMode::None});
  EXPECT_TRUE(at::equal(full, test::logits_of(*model, images)));
  surgeon.apply(SkipRetrieval{3, SkipMode::Drop});
  EXPECT_TRUE(at::equal(skipped, test::logits_of(*model, images)));
}

// Outside training, for benches: masks that are known without measuring.
TEST(Ela, SkipsAtOnceWhereNothingIsTrained) {
  const auto apply = [](const std::string& settings) {
    const auto model = small_resnet();
    ElaRun run(model, settings, 0);
    EXPECT_TRUE(run.stack().settled());
    run.stack().finalize(run.context().surgeon());
    return run.skipped();
  };
  EXPECT_EQ(apply("preset = 'every_other'"), (Numbers{1, 3, 5}));
  EXPECT_EQ(apply("preset = 'given'\nlayers = [3]"), Numbers{3});
  EXPECT_THROW(apply(""), SpecError) << "nothing to decide from";
  EXPECT_THROW(apply("preset = 'given'\nlayers = [2]"), SpecError) << "begins its stage";
}

TEST(Ela, RefusesRunsInWhichItCannotSkip) {
  const auto refusal = [](const std::string& settings, std::int64_t epochs) {
    const auto model = small_resnet();
    const Value table = parse_toml(settings, "test");
    Params params(table, "methods.ela");
    const auto method = Registry<MethodInfo>::get("ela").make(params);
    params.finish();
    method->check({.length = RunLength::of_epochs(4, epochs), .base = *model});
  };
  EXPECT_NO_THROW(refusal("", 10));
  EXPECT_THROW(refusal("", 2), SpecError) << "too short";
  EXPECT_THROW(refusal("divergence = 'shared'", 10), SpecError) << "two blocks a stage";
  EXPECT_THROW(refusal("preset = 'random_m'\nskip = 4", 10), SpecError) << "of three";
  EXPECT_THROW(refusal("stages = [0]\npreset = 'first_m'\nskip = 2", 10), SpecError);
}

}  // namespace
}  // namespace ablate
