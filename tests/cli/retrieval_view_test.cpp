#include "runner/cli/retrieval_view.h"

#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace ablate::cli {
namespace {

using test::has;

EventInfo epoch_event(std::int64_t step, const std::string& body, int attempt = 1) {
  return {.attempt = attempt,
          .rank = -1,
          .step = step,
          .t_us = step,
          .kind = "ela_epoch",
          .body_json = body};
}

std::string body(const std::string& phase, const std::string& skipped, const std::string& more) {
  return R"({"phase": ")" + phase + R"(", "blocks": [1, 4], "stages": [0, 1], "skipped": )" +
         skipped + ", " + more + "}";
}

const std::string kFirst =
    body("warm-up", "[0, 0]", R"("divergence": [0.5, 0.25], "average": [0.5, 0.25])");
const std::string kSecond =
    body("search", "[0, 1]", R"("divergence": [0.75, 0.125], "z": [0.7, 0.2],
         "score": [0.6, null], "fits": [{"alpha": 1.25, "beta": 2.5, "tau": 0.375}])");
const std::string kThird = body("freeze", "[1, 1]", R"("divergence": [1.0, null])");

TEST(RetrievalView, ShowsMasksDivergencesAndTheLastDecision) {
  const RetrievalView view =
      view_retrievals({epoch_event(4, kFirst), epoch_event(8, kSecond), epoch_event(12, kThird)});
  ASSERT_EQ(view.grid.size(), 3U);
  EXPECT_EQ(view.grid[1][0], "0");
  EXPECT_EQ(view.grid[1][1], "1");
  EXPECT_EQ(view.grid[1][2], "··█");
  EXPECT_EQ(view.grid[2][2], "·██");
  EXPECT_TRUE(has(view.grid[1][3], "▁▅█")) << view.grid[1][3];
  EXPECT_TRUE(has(view.grid[2][3], "×")) << "not measured: " << view.grid[2][3];
  EXPECT_EQ(view.grid[1][4], "0.700");
  EXPECT_EQ(view.grid[1][5], "0.600");
  EXPECT_EQ(view.grid[2][5], "");
  EXPECT_EQ(view.summary, "2 of 2 skipped, for good; alpha 1.25, beta 2.50, tau 0.375");
}

TEST(RetrievalView, DrawsTheMeanWeightsOfTheLastEpochThatHasAny) {
  const std::string early = body("warm-up", "[0, 0]", R"("profiles": [[[1.0]], [[1.0]]])");
  const std::string late = body("search", "[0, 1]", R"("profiles":
      [[[1.0, 0, 0], [0.1, 0.9, 0], [0.25, 0.5, 0.75]], [[1.0, 0], [0.4, 0.6]]])");
  const RetrievalView view =
      view_retrievals({epoch_event(4, early), epoch_event(8, late), epoch_event(12, kThird)});
  using Grid = std::vector<std::vector<std::string>>;
  EXPECT_EQ(view.weights,
            (Grid{{"stage 0", "stage 1"}, {"█  ", "█ "}, {"·█ ", "▒▒"}, {"░▒▓", ""}}));
  EXPECT_TRUE(view_retrievals({epoch_event(4, kFirst)}).weights.empty());
}

TEST(RetrievalView, LaterAttemptsHaveTheLastWord) {
  const RetrievalView view =
      view_retrievals({epoch_event(4, kFirst), epoch_event(8, kFirst), epoch_event(8, kSecond, 2)});
  EXPECT_EQ(view.grid[2][2], "·█");
  EXPECT_TRUE(has(view.summary, "1 of 2 skipped, so far"));
}

TEST(RetrievalView, ManyEpochsStayInOneLine) {
  std::vector<EventInfo> events;
  for (int epoch = 0; epoch < 180; ++epoch) {
    events.push_back(epoch_event(epoch, epoch < 90 ? kFirst : kSecond));
  }
  const std::string line = view_retrievals(events).grid[2][2];
  std::string expected;
  for (int i = 0; i < 60; ++i) expected += i < 30 ? "·" : "█";
  EXPECT_EQ(line, expected);
}

TEST(RetrievalView, NothingForOtherRunsAndDamagedEvents) {
  EXPECT_TRUE(view_retrievals({}).grid.empty());
  EventInfo other = epoch_event(1, kFirst);
  other.kind = "surgery";
  EXPECT_TRUE(view_retrievals({other, epoch_event(2, "{")}).grid.empty());
}

}  // namespace
}  // namespace ablate::cli
