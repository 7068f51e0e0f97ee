#include <gtest/gtest.h>

#include "runner/train/run_data.h"
#include "runner/train/run_model.h"
#include "runner/train/task.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// One global batch, however the work on it is cut: ranks, passes of a rank, loader threads.

namespace ablate::test {
namespace {

struct WorkCut {
  int ranks = 1;
  std::int64_t micro_batch = 0;
  int loader_threads = 1;
};

std::ostream& operator<<(std::ostream& out, const WorkCut& cut) {
  return out << cut.ranks << " ranks, passes of " << cut.micro_batch << ", " << cut.loader_threads
             << " loader threads";
}

Environment environment_of(const WorkCut& cut, const std::filesystem::path& out) {
  Environment environment = environment_in(out);
  environment.micro_batch = cut.micro_batch;
  environment.loader_threads = cut.loader_threads;
  return environment;
}

/// The batches of a run's first steps, put together from all ranks and passes.
struct GlobalBatch {
  std::vector<std::int64_t> samples;
  at::Tensor images, labels, other_labels, mix;
};

std::vector<GlobalBatch> first_batches(const RunSpec& spec, const WorkCut& cut, int steps) {
  const Environment environment = environment_of(cut, "unused");
  const TrainingOptions options = options_of(spec);
  std::vector<std::unique_ptr<RunData>> data;
  std::vector<std::unique_ptr<TrainLoader>> loaders;
  for (int rank = 0; rank < cut.ranks; ++rank) {
    data.push_back(std::make_unique<RunData>(spec, options, environment, Shard{rank, cut.ranks}));
    loaders.push_back(data.back()->train_loader());
    loaders.back()->seek(0, 0);
  }
  std::vector<GlobalBatch> batches;
  for (int step = 0; step < steps; ++step) {
    GlobalBatch& whole = batches.emplace_back();
    std::vector<at::Tensor> images, labels, other, mix;
    for (const auto& loader : loaders) {
      for (std::int64_t i = 0; i < loader->micro_batches_per_step(); ++i) {
        const Batch part = loader->next();
        EXPECT_EQ(part.first_position, static_cast<std::int64_t>(whole.samples.size()));
        whole.samples.insert(whole.samples.end(), part.indices.begin(), part.indices.end());
        images.push_back(part.images);
        labels.push_back(part.labels);
        other.push_back(part.other_labels);
        mix.push_back(part.mix);
      }
    }
    whole.images = at::cat(images);
    whole.labels = at::cat(labels);
    whole.other_labels = at::cat(other);
    whole.mix = at::cat(mix);
  }
  return batches;
}

TEST(RunBatches, AreTheSameSamplesAndPixelsHoweverTheWorkIsCut) {
  const RunSpec spec = resolve_table(kTinyVit, all_randomness());
  constexpr int kSteps = 6;  // across an epoch boundary
  const auto reference = first_batches(spec, {1, 0, 0}, kSteps);
  const GlobalBatch& first = reference[0];
  EXPECT_EQ(first.samples[0], first.samples[4]) << "each image is drawn three times, for groups";
  EXPECT_EQ(first.samples[0], first.samples[8]) << "of four images that follow each other";
  EXPECT_FALSE(at::equal(first.images[0], first.images[4])) << "and augmented anew";
  EXPECT_TRUE((reference[0].mix != 1).any().item<bool>());
  for (const WorkCut& cut : {WorkCut{1, 0, 3}, WorkCut{1, 8, 1}, WorkCut{2, 0, 0}, WorkCut{2, 4, 2},
                             WorkCut{4, 0, 1}, WorkCut{4, 0, 3}, WorkCut{4, 4, 2}}) {
    const auto batches = first_batches(spec, cut, kSteps);
    for (std::size_t step = 0; step < kSteps; ++step) {
      const GlobalBatch &a = reference[step], &b = batches[step];
      EXPECT_EQ(a.samples, b.samples) << cut << ", step " << step;
      EXPECT_TRUE(at::equal(a.images, b.images)) << cut << ", step " << step;
      EXPECT_TRUE(at::equal(a.labels, b.labels)) << cut << ", step " << step;
      EXPECT_TRUE(at::equal(a.other_labels, b.other_labels)) << cut << ", step " << step;
      EXPECT_TRUE(at::equal(a.mix, b.mix)) << cut << ", step " << step;
    }
  }
}

using Gradient = std::map<std::string, at::Tensor>;

constexpr double kGradientLr = 1000.0;

/// Overrides of a run that makes one step w1 = w0 - lr g, with a rate that makes g the larger part
/// of w1, so that hardly a digit of it is rounded off.
std::vector<std::string> one_plain_step() {
  return {"dataset.train_size=32", "epochs=1",
          R"(optimizer={name="sgd",lr=1000.0,momentum=0.0,weight_decay=0.0})", "schedule=constant"};
}

/// The averaged gradient that a run's first step used, by parameter.
Gradient gradient_of_run(const std::vector<std::string>& overrides, std::string_view toml,
                         const WorkCut& cut) {
  const TempFolder before, after;
  std::vector<std::string> all = joined(one_plain_step(), overrides);
  const RunSpec step = resolve_table(toml, all, cut.ranks);
  const Environment environment = environment_of(cut, after.path());
  run_attempt(step, environment, cut.ranks);
  const auto moved = read_run(step, environment).weights;
  all.emplace_back("epochs=0");
  const auto start = run_small(resolve_table(toml, all), before.path()).weights;
  Gradient gradient;
  for (const auto& [name, weight] : moved) {
    if (name.find("running_") != std::string::npos || name.ends_with("num_batches_tracked")) {
      continue;
    }
    gradient[name] = (start.at(name).to(at::kDouble) - weight.to(at::kDouble)) / kGradientLr;
  }
  return gradient;
}

double gradient_distance(const Gradient& a, const Gradient& b) {
  double difference = 0, norm = 0;
  for (const auto& [name, tensor] : a) {
    difference += (tensor - b.at(name)).square().sum().item<double>();
    norm += tensor.square().sum().item<double>();
  }
  EXPECT_GT(norm, 1e-6);
  return std::sqrt(difference / norm);
}

TEST(FirstStep, AveragedGradientOfATransformerIsThatOfOneRank) {
  const auto overrides = joined(all_randomness(), {"model.drop_path=0.2"});
  const Gradient one = gradient_of_run(overrides, kTinyVit, {});
  for (const WorkCut& cut :
       {WorkCut{2}, WorkCut{4}, WorkCut{1, 16}, WorkCut{1, 8}, WorkCut{2, 4}, WorkCut{4, 4}}) {
    EXPECT_LE(gradient_distance(one, gradient_of_run(overrides, kTinyVit, cut)), 1e-5) << cut;
  }
}

struct GroupedWork {
  int bn_group;
  std::vector<WorkCut> cuts;
};

// Groups inside a pass, as large as one, and over two and four ranks.
const GroupedWork kGroupedWork[] = {{8, {{1, 8}, {2}, {4}}}, {16, {{2}, {4}}}, {32, {{2}, {4}}}};

// In single precision an input of a ReLU may lie within rounding of zero, so that the unit opens on
// one side only and its whole share of the gradient differs. That does not happen at every seed.
TEST(FirstStep, AveragedGradientOfANetworkWithBatchNormIsThatOfOneRank) {
  for (const auto& [bn_group, cuts] : kGroupedWork) {
    std::vector<WorkCut> open = cuts;
    for (int seed = 1; seed <= 4 && !open.empty(); ++seed) {
      const auto overrides =
          joined(all_randomness(), {cat("bn_group=", bn_group), cat("seed=", seed)});
      const Gradient one = gradient_of_run(overrides, kTinyResNet, {});
      std::erase_if(open, [&](const WorkCut& cut) {
        return gradient_distance(one, gradient_of_run(overrides, kTinyResNet, cut)) <= 1e-5;
      });
    }
    EXPECT_TRUE(open.empty()) << "bn_group " << bn_group << ": " << join(open, "; ");
  }
}

TEST(FirstStep, InDoublePrecisionNoUnitIsThatNearToZero) {
  for (const auto& [bn_group, cuts] : kGroupedWork) {
    const auto overrides = joined(all_randomness(), {cat("bn_group=", bn_group), "precision=fp64"});
    const Gradient one = gradient_of_run(overrides, kTinyResNet, {});
    for (const WorkCut& cut : cuts) {
      EXPECT_LE(gradient_distance(one, gradient_of_run(overrides, kTinyResNet, cut)), 1e-12)
          << cut << ", bn_group " << bn_group;
    }
  }
}

/// The gradient written down anew: model, loss and batch without trainer, arena and reducer.
Gradient gradient_by_hand(const RunSpec& spec, const GlobalBatch& batch) {
  const auto self = make_self_communicator();
  const RunModel made = make_start_model(spec, options_of(spec), environment_in("unused"), 6,
                                         at::kDouble, at::kCPU, *self);
  made.model->train();
  for (const at::Tensor& parameter : made.model->parameters()) parameter.requires_grad_(true);
  ForwardState state;
  state.seed = spec.seed;
  const at::Tensor logits = made.model->forward(batch.images.to(at::kDouble), state);
  constexpr double kSmoothing = 0.1, kClasses = 6;
  const auto target = [&](const at::Tensor& labels) {
    return at::one_hot(labels, 6).to(at::kDouble) * (1 - kSmoothing) + kSmoothing / kClasses;
  };
  const at::Tensor mix = batch.mix.to(at::kDouble).unsqueeze(1);
  const at::Tensor soft = mix * target(batch.labels) + (1 - mix) * target(batch.other_labels);
  (-(soft * at::log_softmax(logits, -1)).sum() / batch.images.size(0)).backward();
  Gradient gradient;
  for (const auto& item : made.model->named_parameters())
    gradient[item.key()] = item.value().grad();
  return gradient;
}

TEST(FirstStep, GradientIsThatOfTheMeanLossOverTheGlobalBatch) {
  const auto overrides =
      joined(all_randomness(), {"precision=fp64", "model.drop_path=0.2", "clip_norm=0.0"});
  const RunSpec spec = resolve_table(kTinyVit, joined(one_plain_step(), overrides));
  const Gradient expected = gradient_by_hand(spec, first_batches(spec, {}, 1).front());
  for (const WorkCut& cut : {WorkCut{1}, WorkCut{4}, WorkCut{2, 8}}) {
    EXPECT_LE(gradient_distance(expected, gradient_of_run(overrides, kTinyVit, cut)), 1e-12) << cut;
  }
}

/// What must come out equal within rounding of double precision.
struct Trained {
  RunRecord record;
  std::map<std::string, at::Tensor> average;  // EMA of weights and buffers
};

Trained train(const RunSpec& spec, const WorkCut& cut) {
  const TempFolder out;
  const Environment environment = environment_of(cut, out.path());
  const Outcome outcome = run_attempt(spec, environment, cut.ranks);
  EXPECT_EQ(outcome.state, OutcomeState::Done) << outcome.detail;
  return {read_run(spec, environment),
          read_tensors(RunPaths(out.path(), spec.id()).final_directory() / "ema.safetensors")};
}

/// The buffers among a run's tensors: BatchNorm's running statistics and counters.
std::map<std::string, at::Tensor> running_statistics(const std::map<std::string, at::Tensor>& all) {
  std::map<std::string, at::Tensor> some;
  for (const auto& [name, tensor] : all) {
    if (name.find("running_") != std::string::npos) some[name] = tensor;
  }
  return some;
}

void expect_equal_within_rounding(const Trained& one, const Trained& other, const WorkCut& cut) {
  constexpr double kTolerance = 1e-9;
  EXPECT_LE(weight_distance(one.record.weights, other.record.weights), kTolerance) << cut;
  EXPECT_LE(weight_distance(one.average, other.average), kTolerance) << cut << ", average";
  const auto statistics = running_statistics(one.record.weights);
  if (!statistics.empty()) {
    EXPECT_LE(weight_distance(statistics, running_statistics(other.record.weights)), kTolerance)
        << cut << ", running statistics";
  }
  EXPECT_EQ(one.record.structure, other.record.structure);
  EXPECT_EQ(one.record.finals.at("top1"), other.record.finals.at("top1")) << cut;
  const auto& losses = one.record.series.at("train/loss");
  EXPECT_EQ(losses.size(), other.record.series.at("train/loss").size());
  for (const auto& [step, loss] : other.record.series.at("train/loss")) {
    EXPECT_NEAR(loss, losses.at(step), kTolerance) << cut << ", step " << step;
  }
}

/// Everything that could depend on the cut, in double precision.
std::vector<std::string> full_recipe(int epochs) {
  return joined(all_randomness(), {"precision=fp64", "ema_decay=0.9", "clip_norm=0.5",
                                   cat("epochs=", epochs), "dataset.train_size=160"});
}

void expect_equal_training(std::string_view toml, const std::vector<std::string>& overrides,
                           const std::vector<WorkCut>& cuts) {
  const Trained one = train(resolve_table(toml, overrides), {});
  for (const WorkCut& cut : cuts) {
    const RunSpec spec = resolve_table(toml, overrides, cut.ranks);
    expect_equal_within_rounding(one, train(spec, cut), cut);
  }
}

// Ten epochs of five steps.
TEST(FiftySteps, OfATransformerDoNotDependOnTheCut) {
  expect_equal_training(kTinyVit, joined(full_recipe(10), {"model.drop_path=0.2"}),
                        {{2, 0, 2}, {4, 0, 0}, {1, 16}, {1, 8}, {2, 4, 3}, {4, 4}});
}

TEST(FewSteps, OfANetworkWithBatchNormDoNotDependOnTheCut) {
  expect_equal_training(kTinyResNet, joined(full_recipe(2), {"bn_group=16"}), {{2}, {4}, {1, 16}});
}

class FiftyStepsLong : public testing::TestWithParam<GroupedWork> {};

TEST_P(FiftyStepsLong, OfANetworkWithBatchNormDoNotDependOnTheCut) {
  expect_equal_training(kTinyResNet,
                        joined(full_recipe(10), {cat("bn_group=", GetParam().bn_group)}),
                        GetParam().cuts);
}

// The slice of a rank is 16 or 8 images: groups are parts of it, all of it, or several.
INSTANTIATE_TEST_SUITE_P(BatchNormGroups, FiftyStepsLong,
                         testing::Values(GroupedWork{4, {{2}, {4}, {1, 8}, {2, 4}, {4, 4}}},
                                         GroupedWork{8, {{2}, {4}, {1, 16}, {2, 8}}},
                                         GroupedWork{16, {{2}, {4}, {1, 16}}},
                                         GroupedWork{32, {{2}, {4}}}),
                         [](const auto& of) { return cat("Of", of.param.bn_group); });

}  // namespace
}  // namespace ablate::test
