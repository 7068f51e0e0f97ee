#include <gtest/gtest.h>

#include "tests/conformance/method_examples.h"
#include "tests/support/run_records.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

// What every method must do, for settings that draw random numbers or take another way than the
// example of the method's file.

namespace ablate {
namespace {

using test::RunRecord;
using test::TempFolder;

struct MethodSettings {
  std::string name;
  std::string table;
};

std::ostream& operator<<(std::ostream& out, const MethodSettings& settings) {
  return out << settings.name;
}

class MethodWithSettings : public testing::TestWithParam<MethodSettings> {
 protected:
  static RunSpec spec(int epochs, const std::string& precision) {
    MethodExample example = test::example_of("tome");
    example.model_params += "\ndrop_path = 0.2\n";
    MethodExample method = example;
    method.params = GetParam().table;
    return test::resolve_small(test::example_run(example, {method}, epochs, precision));
  }
};

TEST_P(MethodWithSettings, TrainsOnTwoRanksAndInMicroBatchesAsAtOnce) {
  const TempFolder alone, shared, cut;
  const RunSpec whole = spec(3, "fp64");
  const RunRecord one = test::run_small(whole, alone.path());
  const RunRecord two = test::run_small(whole, shared.path(), 2);
  EXPECT_EQ(one.structure, two.structure);
  EXPECT_LT(test::weight_distance(one.weights, two.weights), 1e-9);
  const RunRecord four = test::run_small(whole, cut.path(), 1, 8);
  EXPECT_EQ(one.structure, four.structure);
  EXPECT_LT(test::weight_distance(one.weights, four.weights), 1e-9) << "micro-batches";
}

// Stopped after every single step and continued from its checkpoint each time.
TEST_P(MethodWithSettings, EndsWithTheSameBitsWhenInterrupted) {
  const TempFolder whole, broken;
  const RunSpec run = spec(3, "fp32");
  const RunRecord undisturbed = test::run_small(run, whole.path());
  Environment environment = test::environment_in(broken.path());
  Outcome outcome;
  for (environment.attempt = 1; environment.attempt <= 13; ++environment.attempt) {
    outcome = test::run_attempt(run, environment, 1, true);
    if (outcome.state == OutcomeState::Done) break;
  }
  ASSERT_EQ(outcome.state, OutcomeState::Done);
  EXPECT_EQ(environment.attempt, 12) << "one attempt a step";
  test::expect_same_bits(undisturbed, test::read_run(run, environment, environment.attempt));
}

std::string nose(const std::string& settings) {
  return "name = 'nose'\nlayers = [0, 2]\ndilution_epochs = 2\ndilution_per = 'step'\n" + settings;
}

INSTANTIATE_TEST_SUITE_P(
    All, MethodWithSettings,
    testing::Values(MethodSettings{"nose_element", nose("mask = 'element'")},
                    MethodSettings{"nose_token", nose("mask = 'token'")},
                    MethodSettings{"nose_channel", nose("mask = 'channel'")},
                    MethodSettings{"nose_sample", nose("mask = 'sample'\ncompensation = false")},
                    MethodSettings{"nose_layer", nose("mask = 'layer'")},
                    MethodSettings{"nose_random",
                                   "name = 'nose'\nremove = 1\nsamples = 32\n"
                                   "selection = 'random'\ndilution_epochs = 2"},
                    MethodSettings{"nose_lowest_entropy",
                                   "name = 'nose'\nremove = 1\nsamples = 32\n"
                                   "selection = 'lowest_entropy'\ndirect = true"},
                    MethodSettings{"tome_prune", "name = 'tome'\nr = 3\noperation = 'prune'"},
                    MethodSettings{"tome_random", "name = 'tome'\nr = 3\nmetric = 'random'"},
                    MethodSettings{"evit_drop", "name = 'evit'\nkeep = 0.6\nfuse_token = false"}),
    [](const auto& settings) { return settings.param.name; });

}  // namespace
}  // namespace ablate
