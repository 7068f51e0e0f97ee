#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/text.h"
#include "tests/end_to_end/workbench.h"

// A sweep over images whose pixels have labels, from its file to its table.

namespace ablate {
namespace {

using test::contains;
using test::TempFolder;
using test::Workbench;

const std::string kDenseSweep = R"(name = "dense"
title = "Shapes"
[run]
dataset = { name = "synthetic_segmentation", train_size = 64, test_size = 21, image_size = 16, classes = 4, ragged = true }
model = { name = "linear_vit", image_size = 16, patch_size = 4, embed_dim = 16, depth = 2, num_heads = 2 }
epochs = 4
global_batch = 16
optimizer = { name = "adamw", lr = 1e-2 }
[[variant]]
label = "linear"
[[variant]]
label = "linear, asked twice"
from = "linear"
epochs = 0
task = { name = "segmentation", flip = true }
[seeds]
count = 2
[launch]
ranks = 2
[table]
columns = ["miou", "macc", "aacc", "params_m"]
baseline = "linear"
)";

TEST(SegmentationSweep, EndsInATableOfIou) {
  const TempFolder folder;
  const Workbench bench(folder.path());
  const CapturedRun sweep = bench.ablate({"sweep", bench.write("dense.toml", kDenseSweep)});
  ASSERT_EQ(sweep.status.code, 0) << sweep.errors << sweep.output;
  const CapturedRun table = bench.ablate({"table", "dense.toml", "--format", "csv"});
  ASSERT_EQ(table.status.code, 0) << table.errors;
  for (const char* metric : {"miou", "macc", "aacc"}) {
    EXPECT_TRUE(contains(table.output, cat(",", metric, ",%,"))) << table.output;
    const std::string count =
        bench.query(cat("SELECT count(*) FROM final JOIN metric USING(metric_id) WHERE name = '",
                        metric, "' AND better = 1 AND value BETWEEN 0 AND 100"));
    EXPECT_EQ(count, "4\n") << metric;
  }
  // The mean of what is kept of every class is the metric.
  const std::string gap = bench.query(
      "SELECT max(abs(4 * value - json_extract(body_json, '$.iou[0]') - json_extract(body_json, "
      "'$.iou[1]') - json_extract(body_json, '$.iou[2]') - json_extract(body_json, '$.iou[3]'))) "
      "< 1e-9 FROM event JOIN attempt USING(attempt_id) JOIN final USING(run_id) JOIN metric "
      "USING(metric_id) WHERE event.kind = 'evaluated' AND metric.name = 'miou'");
  EXPECT_EQ(gap, "1\n");
  EXPECT_EQ(bench.ablate({"sweep", "dense.toml"}).status.code, 0);
}

}  // namespace
}  // namespace ablate
