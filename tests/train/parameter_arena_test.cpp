#include "runner/train/parameter_arena.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/train/optimizer.h"
#include "tests/support/run_ranks.h"
#include "tests/train/arena_model.h"

namespace ablate::test {
namespace {

std::unique_ptr<Optimizer> make_optimizer(const std::string& name) {
  const Value table;
  Params params(table, "optimizer");
  return Registry<OptimizerInfo>::get(name).make(params);
}

TEST(ParameterArena, LaysOutInReverseOrderOnAlignedPlaces) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    ArenaModel model(type);
    const at::Tensor before = model.get("first").clone();
    ParameterArena arena(model);
    std::vector<std::string> names;
    for (const ArenaSegment& segment : arena.segments()) {
      names.push_back(segment.name);
      const at::Tensor value = model.get(segment.name);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(value.data_ptr()) % 256, 0U);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(value.grad().data_ptr()) % 256, 0U);
      EXPECT_EQ(value.data_ptr(), arena.parameters().narrow(0, segment.offset, 1).data_ptr());
      EXPECT_EQ(value.grad().data_ptr(), arena.gradients().narrow(0, segment.offset, 1).data_ptr());
      EXPECT_TRUE(value.is_leaf() && value.requires_grad());
    }
    EXPECT_EQ(names, (std::vector<std::string>{"last", "table", "bias", "first"}));
    EXPECT_TRUE(at::equal(model.get("first"), before));
    EXPECT_TRUE(arena.segment("bias").decay_exempt);
    EXPECT_TRUE(arena.segment("table").decay_exempt);
    EXPECT_FALSE(arena.segment("last").decay_exempt);
    EXPECT_THROW(arena.segment("lost"), BugError);
  }
}

TEST(ParameterArena, BackwardAccumulatesInTheBuffer) {
  ArenaModel plain;
  plain.loss(rows(0, 4)).backward();
  ArenaModel model;
  ParameterArena arena(model);
  for (int step = 0; step < 2; ++step) {
    arena.zero_grad();
    model.loss(rows(0, 4)).backward();
    model.loss(rows(0, 4)).backward();
    for (const ArenaSegment& segment : arena.segments()) {
      const at::Tensor part = arena.gradients().narrow(0, segment.offset, segment.numel);
      EXPECT_TRUE(at::allclose(part, 2 * plain.get(segment.name).grad().flatten(), 1e-14, 1e-16));
    }
  }
}

TEST(ParameterArena, NoticesWhatLeavesTheBuffers) {
  ArenaModel model;
  ParameterArena arena(model);
  model.get("bias").mutable_grad() = at::zeros({5}, at::kDouble);
  EXPECT_THROW(arena.zero_grad(), BugError);
  ArenaModel other;
  ParameterArena its_arena(other);
  other.get("last").set_data(at::zeros({2, 5}, at::kDouble));
  EXPECT_THROW(its_arena.zero_grad(), BugError);
}

TEST(ParameterArena, FrozenParametersStayOutside) {
  ArenaModel model;
  model.get("table").set_requires_grad(false);
  ParameterArena arena(model);
  EXPECT_EQ(arena.segments().size(), 3U);
}

TEST(ParameterArena, RebuildKeepsTheStateOfSurvivors) {
  ArenaModel model;
  ParameterArena arena(model);
  const auto optimizer = make_optimizer("adamw");
  arena.state(kEmaState, ParameterArena::StateInit::Parameters);
  arena.configure("last", {.lr_factor = 0.5});
  arena.zero_grad();
  model.loss(rows(0, 4)).backward();
  optimizer->step(arena, {.lr = 0.1, .ema_decay = 0.9});
  std::map<std::string, at::Tensor> before;
  arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    before[cat(buffer, "/", segment.name)] = view.clone();
  });

  model.remove("table");
  model.add("extra", {7, 2}, at::kDouble);
  const at::Tensor extra = model.get("extra").clone();
  arena.rebuild(model, 3);

  EXPECT_EQ(arena.generation(), 3);
  EXPECT_EQ(arena.updates(), 1);
  EXPECT_EQ(arena.segments()[0].name, "extra");
  EXPECT_EQ(arena.segment("last").settings.lr_factor, 0.5);
  int survivors = 0;
  arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    if (segment.name == "extra") {
      const bool is_copy = buffer.empty() || buffer == kEmaState;
      EXPECT_TRUE(at::equal(view, is_copy ? extra : at::zeros_like(extra))) << buffer;
    } else {
      EXPECT_TRUE(at::equal(view, before.at(cat(buffer, "/", segment.name)))) << buffer;
      ++survivors;
    }
  });
  EXPECT_EQ(survivors, 3 * 4);  // values, two moments, average
  EXPECT_NO_THROW(arena.zero_grad());
}

TEST(ParameterArena, RebuildRefusesAnotherShape) {
  ArenaModel model;
  ParameterArena arena(model);
  model.remove("last");
  model.add("last", {4, 5}, at::kDouble);
  EXPECT_THROW(arena.rebuild(model, 1), BugError);
}

TEST(ParameterArena, NamedTensorsAreTheWholeState) {
  ArenaModel model;
  ParameterArena arena(model);
  const auto optimizer = make_optimizer("adamw");
  const auto step = [&](ArenaModel& of, ParameterArena& in, std::int64_t first) {
    in.zero_grad();
    of.loss(rows(first, 4)).backward();
    optimizer->step(in, {.lr = 0.01});
  };
  step(model, arena, 0);
  step(model, arena, 4);
  std::map<std::string, at::Tensor> saved;
  arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    saved[cat(buffer, "/", segment.name)] = view.clone();
  });

  ArenaModel resumed;
  ParameterArena its_arena(resumed);
  optimizer->prepare(its_arena);
  its_arena.for_each([&](const std::string& buffer, const ArenaSegment& segment, at::Tensor view) {
    view.copy_(saved.at(cat(buffer, "/", segment.name)));
  });
  its_arena.set_updates(arena.updates());
  step(model, arena, 8);
  step(resumed, its_arena, 8);
  EXPECT_TRUE(at::equal(its_arena.parameters(), arena.parameters()));
}

/// Five steps on 2 and 4 ranks end where one rank ends.
TEST(ParameterArena, RanksTrainAsOne) {
  const std::int64_t batch = 8;
  const auto train = [&](Communicator& comm) {
    ArenaModel model;
    ParameterArena arena(model);
    GradientReducer reducer(comm, arena.gradients(), arena.gradient_segments(),
                            arena.parameter_tensors());
    const auto optimizer = make_optimizer("adamw");
    const std::int64_t share = batch / comm.size();
    for (int step = 0; step < 5; ++step) {
      arena.zero_grad();
      reducer.arm();
      model.loss(rows(step * batch + comm.rank() * share, share)).backward();
      reducer.finish();
      optimizer->step(arena, {.lr = 0.01});
    }
    return arena.parameters().clone();
  };
  const at::Tensor alone = train(*make_self_communicator());
  for (const int size : {2, 4}) {
    run_ranks(size, [&](Communicator& comm) {
      const at::Tensor mine = train(comm);
      EXPECT_LT((mine - alone).norm().item<double>() / alone.norm().item<double>(), 1e-13);
    });
  }
}

}  // namespace
}  // namespace ablate::test
