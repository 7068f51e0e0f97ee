#include <gtest/gtest.h>

#include "tests/end_to_end/workbench.h"

// Students of a sweep whose teacher is a file of weights, here and where there is no `ablate`.

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::TempFolder;
using test::Workbench;

constexpr const char* kTeacher = R"(name = "teacher"
[run]
dataset = { name = "synthetic", train_size = 64, test_size = 32, classes = 5, image_size = 16 }
model = { name = "resnet20", image_size = 16 }
epochs = 1
global_batch = 32
bn_group = 32
[[variant]]
label = "teacher"
[seeds]
count = 1
)";

constexpr const char* kStudents = R"(name = "students"
[run]
dataset = { name = "synthetic", train_size = 64, test_size = 32, classes = 5, image_size = 16 }
model = { name = "vit", image_size = 16, patch_size = 8, embed_dim = 16, depth = 1, num_heads = 2, distilled = true }
epochs = 1
global_batch = 32
distillation = { teacher = { model = { name = "resnet20", image_size = 16 }, weights = "teacher.safetensors" } }
[[variant]]
label = "hard"
[[variant]]
label = "soft"
distillation = { mode = "soft", teacher = { model = { name = "resnet20", image_size = 16 }, weights = "teacher.safetensors" } }
[seeds]
count = 1
)";

std::string student_losses(const Workbench& bench) {
  return bench.query(
      "SELECT label, value FROM final JOIN metric m USING(metric_id) JOIN run USING(run_id) JOIN "
      "sweep_variant USING(variant_id) JOIN sweep s USING(sweep_id) WHERE m.name = 'loss' AND "
      "s.name = 'students' ORDER BY label");
}

TEST(TeacherFile, IsLearntFromInASweepAndElsewhere) {
  const TempFolder here_folder, there_folder;
  const Workbench here(here_folder.path()), there(there_folder.path());
  const CapturedRun trained = here.ablate({"sweep", here.write("teacher.toml", kTeacher)});
  ASSERT_EQ(trained.status.code, 0) << trained.errors;
  ASSERT_EQ(here.ablate({"export", "teacher seed 0", "--to", "exported"}).status.code, 0);
  fs::copy_file(here / "exported/model.safetensors", here / "teacher.safetensors");

  const CapturedRun swept = here.ablate({"sweep", here.write("students.toml", kStudents)});
  EXPECT_EQ(swept.status.code, 0) << swept.errors;
  const std::string expected = student_losses(here);
  EXPECT_NE(expected.find("hard,"), std::string::npos) << expected;
  EXPECT_NE(expected.find("soft,"), std::string::npos) << expected;

  fs::copy_file(here / "teacher.safetensors", there / "teacher.safetensors");
  there.ablate({"sweep", there.write("students.toml", kStudents), "--specs-only"});
  const CapturedRun unnamed = there.train({"--all", "--device", "cpu"});
  EXPECT_EQ(unnamed.status.code, 2) << unnamed.errors;
  EXPECT_TRUE(test::contains(unnamed.errors, "name it with --init FILE")) << unnamed.errors;
  const CapturedRun job =
      there.train({"--all", "--device", "cpu", "--init", "teacher.safetensors"});
  EXPECT_EQ(job.status.code, 0) << job.errors;
  EXPECT_EQ(there.ablate({"sweep", "students.toml"}).status.code, 0);
  EXPECT_EQ(student_losses(there), expected);
}

}  // namespace
}  // namespace ablate
