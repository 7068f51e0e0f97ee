#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/methods/nose_support.h"

// How dilution can be spread.

namespace ablate {
namespace {

using test::golden_vit;
using test::make_nose;
using test::MethodContext;

TEST(NoseMask, DrawsTheJoinOnlyWhileItIsUnderWay) {
  for (const char* mask : {"element", "token", "channel", "sample"}) {
    const auto model = golden_vit();
    MethodContext context(*model);
    context.length = 4;
    MethodStack nose = make_nose(cat("layers = [1]\nmask = '", mask, "'"));
    nose.apply(context);
    const Block& block = *model->blocks()[1];
    for (context.now = 0; context.now < 4; ++context.now) {
      nose.between_steps(context);
      const double lambda = std::max(0.0, 1.0 - static_cast<double>(context.now) / 3.0);
      const ResidualGains gains = block.attention_gains();
      EXPECT_EQ(gains.branch, lambda);
      EXPECT_EQ(gains.skip, 2.0 - lambda);
      const bool under_way = context.now == 1 || context.now == 2;
      EXPECT_EQ(mask_name(gains.mask), under_way ? mask : "none");
    }
    EXPECT_EQ(block.mixer(), nullptr);
    EXPECT_EQ(context.surgeon().edits(), (std::vector<Edit>{SetGains{1, 2, 0}, RemoveMixer{1}}));
  }
}

// The mean over layers is lambda at every step; each goes when its turn is over.
TEST(NoseMask, LayersGoOneAfterAnother) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 12;
  MethodStack nose = make_nose("layers = [0, 2]\nmask = 'layer'\ndilution_epochs = 8");
  nose.apply(context);
  const std::vector<double> first{1, .75, .5, .25, 0, 0, 0, 0, 0, 0, 0, 0};
  const std::vector<double> second{1, 1, 1, 1, 1, .75, .5, .25, 0, 0, 0, 0};
  for (context.now = 0; context.now < 12; ++context.now) {
    nose.between_steps(context);
    const auto step = static_cast<std::size_t>(context.now);
    const Block &a = *model->blocks()[0], &b = *model->blocks()[2];
    EXPECT_EQ(a.attention_gains().branch, first[step]) << step;
    EXPECT_EQ(b.attention_gains().branch, second[step]) << step;
    EXPECT_EQ(a.mixer() == nullptr, step >= 4);
    EXPECT_EQ(b.mixer() == nullptr, step >= 8);
    EXPECT_EQ(nose.settled(), step >= 8);
    if (step < 8) {
      EXPECT_EQ(
          context.metrics["nose/lambda"].empty() ? 1.0 : context.metrics["nose/lambda"].back(),
          (first[step] + second[step]) / 2);
    }
  }
}

TEST(NoseMask, ContinuesAmongLayersThatHaveGone) {
  const auto start = [](MethodContext& context) {
    context.length = 12;
    return make_nose("layers = [0, 2]\nmask = 'layer'\ndilution_epochs = 8");
  };
  const auto model = golden_vit(), restored = golden_vit();
  MethodContext context(*model), resumed(*restored);
  MethodStack nose = start(context), again = start(resumed);
  nose.apply(context);
  for (context.now = 0; context.now < 6; ++context.now) nose.between_steps(context);
  again.load(nlohmann::json::parse(nose.save().dump()));
  for (const Edit& edit : context.surgeon().edits()) resumed.surgeon().apply(edit);
  for (std::int64_t step = 6; step < 10; ++step) {
    context.now = resumed.now = step;
    nose.between_steps(context);
    again.between_steps(resumed);
    EXPECT_EQ(resumed.surgeon().edits(), context.surgeon().edits()) << step;
  }
  EXPECT_TRUE(again.settled());
}

TEST(NoseMask, FinalizesWhateverIsLeft) {
  const auto model = golden_vit();
  MethodContext context(*model);
  context.length = 12;
  MethodStack nose = make_nose("layers = [0, 2]\nmask = 'layer'\ndilution_epochs = 8");
  nose.apply(context);
  for (context.now = 0; context.now < 6; ++context.now) nose.between_steps(context);
  EXPECT_EQ(model->blocks()[0]->mixer(), nullptr);
  nose.finalize(context.surgeon());
  EXPECT_TRUE(nose.settled());
  EXPECT_EQ(model->blocks()[2]->mixer(), nullptr);
  EXPECT_EQ(model->blocks()[2]->attention_gains().skip, 2.0);
}

// A2: removed at once, as a plain skip and as a doubling.
TEST(Nose, RemovesAtOnceWithAndWithoutDoubling) {
  for (const bool doubling : {true, false}) {
    const auto model = golden_vit();
    MethodContext context(*model);
    context.length = 4;
    MethodStack nose =
        make_nose(cat("layers = [1]\ndirect = true\ncompensation = ", doubling ? "true" : "false"));
    nose.apply(context);
    EXPECT_TRUE(nose.settled());
    EXPECT_EQ(model->blocks()[1]->mixer(), nullptr);
    EXPECT_EQ(model->blocks()[1]->attention_gains().skip, doubling ? 2.0 : 1.0);
  }
}

}  // namespace
}  // namespace ablate
