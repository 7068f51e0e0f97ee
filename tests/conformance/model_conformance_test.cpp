#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "tests/support/datasets.h"
#include "tests/support/models.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// What every registered model and data set must do.

namespace ablate {
namespace {

using test::make_model;
using test::TempFolder;

class ModelConformance : public testing::TestWithParam<std::string> {
 protected:
  const ModelInfo& info() const { return Registry<ModelInfo>::get(GetParam()); }
};

std::map<std::string, std::vector<std::int64_t>> shapes_of(const Model& model) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& item : model.named_parameters()) {
    shapes[item.key()] = item.value().sizes().vec();
  }
  return shapes;
}

TEST_P(ModelConformance, KeepsWhatItsRegistrationSays) {
  EXPECT_EQ(info().name, GetParam());
  EXPECT_FALSE(info().summary.empty());
  EXPECT_GE(info().semantics, 1);
  const auto model = make_model(GetParam());
  EXPECT_EQ(model->image_size(), info().image_size);
  const bool mixes = std::ranges::find(info().offers, Slot::TokenMixer) != info().offers.end();
  EXPECT_EQ(mixes, !model->blocks().empty());
  EXPECT_EQ(info().batch_norm, std::ranges::any_of(model->named_buffers(), [](const auto& buffer) {
              return buffer.key().ends_with("running_mean");
            }));
  const auto shapes = shapes_of(*model);
  for (const std::string& name : model->no_weight_decay()) {
    EXPECT_TRUE(shapes.contains(name)) << name;
  }
  EXPECT_TRUE(std::ranges::any_of(Registry<ModelInfo>::names(),
                                  [&](const std::string& name) {
                                    const auto& other = Registry<ModelInfo>::get(name);
                                    return other.family == info().family && !other.example.empty();
                                  }))
      << "no model of the family \"" << info().family << "\" has an example to train";
}

TEST_P(ModelConformance, OnlyItsHeadsFollowTheNumberOfClasses) {
  const auto ten = make_model(GetParam(), "", 10), many = make_model(GetParam(), "", 77);
  const auto few = shapes_of(*ten), more = shapes_of(*many);
  std::set<std::string> differing;
  for (const auto& [name, shape] : few) {
    if (shape != more.at(name)) differing.insert(name.substr(0, name.rfind('.')));
  }
  const std::vector<std::string> heads = ten->head_names();
  EXPECT_EQ(differing, std::set(heads.begin(), heads.end()));
  for (const std::string& head : heads) EXPECT_EQ(more.at(head + ".weight")[0], 77);
}

INSTANTIATE_TEST_SUITE_P(All, ModelConformance, testing::ValuesIn(Registry<ModelInfo>::names()),
                         [](const auto& name) { return name.param; });

class SmallModelConformance : public testing::TestWithParam<std::string> {
 protected:
  std::string settings() const { return std::string(Registry<ModelInfo>::get(GetParam()).example); }
  bool dense() const { return Registry<ModelInfo>::get(GetParam()).dense; }
  /// Whose labels it learns.
  std::string dataset() const { return dense() ? "synthetic_segmentation" : "synthetic"; }
  std::shared_ptr<Model> model(std::uint64_t seed) const {
    auto made = make_model(GetParam(), settings(), 4, 8);
    made->initialize(seed);
    made->eval();
    return made;
  }
};

at::Tensor logits_of(Model& model, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  ForwardState state;
  return model.forward(images, state);
}

TEST_P(SmallModelConformance, InitialisesFromTheSeedAlone) {
  const auto first = model(1), again = model(1), other = model(2);
  const auto same = named_tensors(*again), different = named_tensors(*other);
  bool differs = false;
  std::size_t i = 0;
  for (const auto& [name, tensor] : named_tensors(*first)) {
    EXPECT_TRUE(at::equal(tensor, same[i].second)) << name;
    EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
    differs = differs || !at::equal(tensor, different[i].second);
    ++i;
  }
  EXPECT_TRUE(differs);
}

TEST_P(SmallModelConformance, EvaluatesEachImageByItself) {
  const auto net = model(1);
  net->to(at::kDouble);
  const at::Tensor images = test::wavy_images(5, net->image_size(), at::kDouble);
  const at::Tensor together = logits_of(*net, images);
  EXPECT_EQ(together.dim(), dense() ? 4 : 2);
  EXPECT_EQ(together.size(0), 5);
  EXPECT_EQ(together.size(1), 4);
  EXPECT_TRUE(
      at::allclose(logits_of(*net, images.narrow(0, 3, 1)), together.narrow(0, 3, 1), 0, 1e-12));
  net->to(at::kFloat);
  EXPECT_TRUE(
      at::allclose(logits_of(*net, images.to(at::kFloat)).to(at::kDouble), together, 1e-4, 1e-5));
}

TEST_P(SmallModelConformance, SurvivesAFile) {
  const TempFolder folder;
  const auto written = model(1), read = model(2);
  save_weights(*written, folder / "w.safetensors");
  load_weights(*read, folder / "w.safetensors");
  const at::Tensor images = test::wavy_images(3, written->image_size());
  EXPECT_TRUE(at::equal(logits_of(*written, images), logits_of(*read, images)));
}

TEST_P(SmallModelConformance, TrainsAndMicroBatchesAndRanksDoNotMatter) {
  const auto table = [&](const char* precision, int epochs) {
    return cat("epochs = ", epochs, "\nglobal_batch = 16\nbn_group = 8\nprecision = '", precision,
               "'\nseed = 3\n[dataset]\nname = '", dataset(),
               "'\ntrain_size = 80\ntest_size = 20\n",
               "classes = 4\nimage_size = 16\n[optimizer]\nname = 'adamw'\nlr = 2e-3\n[model]\n",
               "name = '", GetParam(), "'\n", settings());
  };
  const TempFolder out, exact, shared;
  const auto record = test::run_small(test::resolve_small(table("fp32", 4)), out.path());
  const auto& loss = record.series.at("train/loss");
  ASSERT_EQ(loss.size(), 20U);
  double before = 0, after = 0;
  for (std::int64_t i = 0; i < 5; ++i) {
    before += loss.at(i);
    after += loss.at(15 + i);
  }
  EXPECT_LT(after, before);

  const RunSpec spec = test::resolve_small(table("fp64", 1));
  const auto one = test::run_small(spec, exact.path());
  const auto two = test::run_small(spec, shared.path(), 2);
  for (const auto& [step, value] : one.series.at("train/loss")) {
    EXPECT_NEAR(two.series.at("train/loss").at(step), value, 1e-9) << step;
  }
  const char* headline = dense() ? "miou" : "top1";
  EXPECT_EQ(one.finals.at(headline), two.finals.at(headline));
}

INSTANTIATE_TEST_SUITE_P(Families, SmallModelConformance, testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const std::string& name : Registry<ModelInfo>::names()) {
                             if (!Registry<ModelInfo>::get(name).example.empty()) {
                               names.push_back(name);
                             }
                           }
                           return names;
                         }()),
                         [](const auto& name) { return name.param; });

class DatasetConformance : public testing::TestWithParam<std::string> {
 protected:
  const DatasetInfo& info() const { return Registry<DatasetInfo>::get(GetParam()); }
};

TEST_P(DatasetConformance, DescribesItself) {
  EXPECT_EQ(info().name, GetParam());
  EXPECT_FALSE(info().summary.empty());
  EXPECT_GE(info().semantics, 1);
}

class FiledDatasetConformance : public DatasetConformance {};

TEST_P(FiledDatasetConformance, SaysWhatIsMissingInAnEmptyFolder) {
  const TempFolder empty;
  try {
    test::open_dataset(GetParam(), "", empty.path());
    ADD_FAILURE() << "opened an empty folder";
  } catch (const SpecError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find(empty.path().string()), std::string::npos) << message;
    EXPECT_NE(message.find("expected"), std::string::npos) << message;
  }
}

/// A class for each pixel, or none, and the same ones from its twin.
void expect_labels(const Dataset& dataset, const Dataset& twin, std::int64_t index,
                   const Image& image) {
  LabelMap labels, again;
  dataset.load_labels(index, labels);
  twin.load_labels(index, again);
  EXPECT_EQ(labels, again);
  EXPECT_EQ(labels.width, image.width);
  EXPECT_EQ(labels.height, image.height);
  for (const std::uint8_t label : labels.classes) {
    ASSERT_TRUE(label < dataset.facts().classes || label == LabelMap::kIgnore) << int{label};
  }
}

// Those that need files have tests of their own, which make some.
class GeneratedDatasetConformance : public DatasetConformance {};

TEST_P(GeneratedDatasetConformance, SamplesAreWhatTheFactsSay) {
  const DatasetSplits first = test::open_dataset(GetParam()),
                      again = test::open_dataset(GetParam());
  EXPECT_EQ(first.holdout, nullptr);
  for (const auto& [part, twin] :
       {std::pair{first.train, again.train}, std::pair{first.test, again.test}}) {
    EXPECT_EQ(part->fingerprint(), twin->fingerprint());
    for (std::int64_t i = 0; i < std::min<std::int64_t>(part->size(), 20); ++i) {
      const Image image = test::load_image(*part, i);
      EXPECT_EQ(image, test::load_image(*twin, i));
      EXPECT_EQ(image.width, part->facts().image_size);
      EXPECT_EQ(image.height, part->facts().image_size);
      EXPECT_EQ(image.pixels.size(), image.stride() * static_cast<std::size_t>(image.height));
      EXPECT_GE(part->label(i), 0);
      EXPECT_LT(part->label(i), part->facts().classes);
      if (part->facts().dense) expect_labels(*part, *twin, i, image);
    }
  }
  EXPECT_NE(first.train->fingerprint(), first.test->fingerprint());
}

std::vector<std::string> datasets_with_files(bool with) {
  std::vector<std::string> names = Registry<DatasetInfo>::names();
  std::erase_if(names, [&](const std::string& name) {
    return Registry<DatasetInfo>::get(name).needs_root != with;
  });
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, DatasetConformance, testing::ValuesIn(Registry<DatasetInfo>::names()),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(All, FiledDatasetConformance, testing::ValuesIn(datasets_with_files(true)),
                         [](const auto& name) { return name.param; });
INSTANTIATE_TEST_SUITE_P(All, GeneratedDatasetConformance,
                         testing::ValuesIn(datasets_with_files(false)),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace ablate
