#include "sweeps/resolver.h"

#include <cstdlib>

#include "runner/core/files.h"
#include "sweeps/plan.h"
#include "tests/sweeps/schedule_fixture.h"

namespace ablate {
namespace {

class Resolver : public test::Schedule {
 protected:
  std::string error_of(const std::string& text) {
    try {
      resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_);
    } catch (const SpecError& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(Resolver, CollectsAllErrorsAtOnceEachOnlyOnce) {
  const std::string message = error_of(
      head() + "[[variant]]\nlabel = \"a\"\ntypo = 1\n[[variant]]\nlabel = \"b\"\ntypo = 2\n");
  EXPECT_NE(message.find("s.toml:9:"), std::string::npos) << message;
  EXPECT_NE(message.find("s.toml:12:"), std::string::npos) << message;
  EXPECT_NE(message.find("in variant \"b\""), std::string::npos) << message;
}

TEST_F(Resolver, TwoLabelsOfOneRunAreAnError) {
  const std::string message =
      error_of(head() + "[[variant]]\nlabel = \"a\"\n[[variant]]\nlabel = \"b\"\n");
  EXPECT_NE(message.find("same run under two labels"), std::string::npos) << message;
}

TEST_F(Resolver, AsksOnceForEqualDrafts) {
  const auto counter = folder_ / "count";
  ::setenv("FAKE_TRAIN_RESOLVES", counter.c_str(), 1);
  const std::string text = head() + "[[variant]]\nlabel = \"a\"\n";
  const auto first = resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_);
  const auto second = resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_);
  resolve_sweep(parse_sweep_text(text + "epochs = 7\n", "s.toml"), workspace_);
  ::unsetenv("FAKE_TRAIN_RESOLVES");
  EXPECT_EQ(first.runs[0].id, second.runs[0].id);
  EXPECT_EQ(read_file(counter), "resolve\nresolve\n");
}

TEST_F(Resolver, ADamagedCacheIsAskedForAgain) {
  const std::string text = head() + "[[variant]]\nlabel = \"a\"\n";
  const auto first = resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_);
  for (const auto& entry : std::filesystem::directory_iterator(workspace_.out / ".cache")) {
    write_file_atomic(entry.path(), "{\"runs\": [");
  }
  EXPECT_EQ(resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_).runs[0].id,
            first.runs[0].id);
}

TEST_F(Resolver, MoreSeedsAndOtherVariantsLeaveIdsAlone) {
  const auto ids = [&](const std::string& text) {
    std::vector<std::string> result;
    for (const auto& run : resolve_sweep(parse_sweep_text(text, "s.toml"), workspace_).runs) {
      result.push_back(run.id);
    }
    return result;
  };
  const auto before = ids(head() + "[[variant]]\nlabel = \"a\"\n");
  const auto after =
      ids(head() + "[[variant]]\nlabel = \"a\"\n[[variant]]\nlabel = \"b\"\nepochs = 3\n");
  EXPECT_EQ(before[0], after[0]);
}

TEST_F(Resolver, PlanCountsWhatIsDoneAndEstimatesFromIt) {
  const std::string text = head() +
                           "[[variant]]\nlabel = \"a\"\n[[variant]]\nlabel = \"bad\"\n"
                           "model = { script = [\"fail@1\"] }\n"
                           "[[variant]]\nlabel = \"child\"\nfrom = \"bad\"\n";
  run(text);
  const SweepSpec sweep = parse_sweep_text(text, "s.toml", {"seeds.count=2"});
  const ResolvedSweep resolved = resolve_sweep(sweep, workspace_);
  ResultStore store(workspace_.database, ResultStore::Mode::ReadOnly);
  const Plan plan = make_plan(sweep.launch, resolved.drafts, resolved.runs, &store, workspace_);
  EXPECT_EQ(plan.done, 1U);
  EXPECT_EQ(plan.ended, 2U);  // the failure and its child
  EXPECT_EQ(plan.to_do, 3U);
  EXPECT_EQ(plan.runs[2].state, "blocked");
  EXPECT_GT(plan.work_s, 0);
  // Variants "a" and "bad" of the second seed.
  EXPECT_EQ(plan.runs[3].source, EstimateSource::SameConfiguration);
  EXPECT_EQ(plan.runs[4].source, EstimateSource::OtherRows);
  std::ostringstream out;
  print_plan(out, {}, sweep, resolved.drafts, resolved.runs, plan, workspace_);
  EXPECT_NE(out.str().find("6 runs: 1 done, 3 to do, 2 ended"), std::string::npos) << out.str();
}

TEST(CollectData, NeedsAnExistingFolder) {
  EXPECT_EQ(collect_data({"x=/tmp"}).at("x"), "/tmp");
  EXPECT_THROW(collect_data({"x=/nonexistent/folder"}), SpecError);
  EXPECT_THROW(collect_data({"x"}), SpecError);
  ::setenv("ABLATE_DATA_CIFAR100", "/tmp", 1);
  EXPECT_EQ(collect_data({}).at("cifar100"), "/tmp");
  EXPECT_EQ(collect_data({"cifar100=/"}).at("cifar100"), "/");
  ::unsetenv("ABLATE_DATA_CIFAR100");
}

}  // namespace
}  // namespace ablate
