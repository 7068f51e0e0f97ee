#include <gtest/gtest.h>

#include "tests/conformance/method_examples.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

/// Events of one kind in the spool of a rank, with their steps.
std::vector<std::pair<std::int64_t, nlohmann::json>> spooled_events(
    const std::filesystem::path& spool, std::string_view kind) {
  std::vector<std::pair<std::int64_t, nlohmann::json>> found;
  SpoolReader reader(spool);
  while (const auto frame = reader.next()) {
    const auto* event = std::get_if<Event>(&frame->record);
    if (event && event->kind == kind) {
      found.emplace_back(event->step, nlohmann::json::parse(event->body));
    }
  }
  return found;
}

// The example dilutes over the first epoch: attention goes at step 4, in the midst of training.
TEST(NeutralEdits, AreCheckedAndSpooledWhenTheyAreMade) {
  const test::TempFolder out;
  const MethodExample nose = test::example_of("nose");
  const RunSpec spec = test::resolve_small(test::example_run(nose, {nose}, 2, "fp32"), 2);
  test::run_small(spec, out.path(), 2);
  const RunPaths paths(out.path(), spec.id());
  const auto checks = spooled_events(paths.spool(1, 0), "neutral_edit");
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_EQ(checks[0].first, 0);
  EXPECT_EQ(checks[0].second.at("edits").at(0).at("edit"), "mark_retiring");
  EXPECT_EQ(checks[1].first, 4);
  EXPECT_EQ(checks[1].second.at("edits").at(0).at("edit"), "remove_mixer");
  for (const auto& [step, body] : checks) {
    EXPECT_EQ(body.at("max_logit_change").get<double>(), 0.0);
  }
  EXPECT_TRUE(spooled_events(paths.spool(1, 1), "neutral_edit").empty()) << "once for all ranks";
}

}  // namespace
}  // namespace ablate
