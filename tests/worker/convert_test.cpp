#include <thread>

#include <gtest/gtest.h>
#include <signal.h>

#include "runner/core/files.h"
#include "tests/store/image_sets.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using test::json_of_ablate_train;
using test::run_ablate_train;
using test::TempFolder;

std::string pack_bytes(const fs::path& folder) {
  std::string bytes;
  for (const char* name : {"train.samples", "train.index", "val.samples", "val.index"}) {
    bytes += read_file(folder / name);
  }
  return bytes;
}

TEST(ConvertVerb, PacksVerifiesAndRepairs) {
  const TempFolder root;
  test::write_image_folder(root / "source", 2, 3);
  test::write_text(root / "source/train/class0/notes.txt", "x");
  const std::string source = root / "source", dest = root / "dest";
  const auto report = json_of_ablate_train({"convert", source, dest});
  ASSERT_EQ(report.at("parts").size(), 2U);
  EXPECT_EQ(report["parts"][0]["part"], "train");
  EXPECT_EQ(report["parts"][0]["samples"], 6);
  EXPECT_EQ(report["parts"][0]["counts"]["not an image file, left out"], 1);
  EXPECT_EQ(report["parts"][1]["samples"], 2);
  EXPECT_FALSE(fs::exists(root / "dest/train.journal"));
  const std::string whole = pack_bytes(dest);
  EXPECT_EQ(json_of_ablate_train({"convert", source, dest}), report) << "done once, told again";
  EXPECT_EQ(pack_bytes(dest), whole);

  json_of_ablate_train({"convert", "--verify", dest});
  std::string samples = read_file(root / "dest/train.samples");
  samples[samples.size() - 5] = static_cast<char>(samples[samples.size() - 5] ^ 4);
  test::write_text(root / "dest/train.samples", samples);
  const CapturedRun damaged = run_ablate_train({"convert", "--verify", dest});
  EXPECT_EQ(damaged.status.code, 1);
  EXPECT_NE(damaged.output.find("class1/2.jpg"), std::string::npos);
  EXPECT_NE(damaged.errors.find("--repair"), std::string::npos);
  const auto repaired = json_of_ablate_train({"convert", "--repair", source, dest});
  EXPECT_EQ(repaired["parts"][0]["damaged"], nlohmann::json::array({"class1/2.jpg"}));
  EXPECT_EQ(pack_bytes(dest), whole);

  // A packed set is a source, too.
  json_of_ablate_train({"convert", dest, (root / "raw").string(), "--as", "raw", "--side", "16"});
  EXPECT_EQ(run_ablate_train({"convert", "--verify", (root / "raw").string()}).status.code, 0);
}

TEST(ConvertVerb, SaysWhatIsWrong) {
  const TempFolder root;
  const auto refusal = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "convert");
    const CapturedRun run = run_ablate_train(arguments);
    EXPECT_EQ(run.status.code, 2) << run.errors;
    return run.errors;
  };
  EXPECT_NE(refusal({root.path().string()}).find("expected SOURCE DEST"), std::string::npos);
  EXPECT_NE(refusal({"--verify", "a", "b"}).find("expected DEST"), std::string::npos);
  EXPECT_NE(refusal({(root / "none").string(), "x"}).find("none: expected a folder"),
            std::string::npos);
  EXPECT_NE(refusal({root.path().string(), "x"}).find("expected a folder train"),
            std::string::npos);
  test::write_image_folder(root.path(), 1, 1);
  test::write_text(root / "train/class0/bad.jpg", "bad");
  const std::string dest = (root / "dest").string();
  EXPECT_NE(refusal({root.path().string(), dest}).find("bad.jpg"), std::string::npos);
  json_of_ablate_train({"convert", root.path().string(), dest, "--on-bad", "skip"});
}

/// How far a conversion is by the journal of its training part.
std::size_t journal_lines(const fs::path& dest) {
  if (!fs::exists(dest / "train.journal")) return 0;
  const std::string text = read_file(dest / "train.journal");
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

// However a conversion ends, the same command goes on and leaves what an undisturbed one leaves.
TEST(ConvertVerb, GoesOnAfterKillAndInterrupt) {
  const TempFolder root;
  test::write_image_folder(root / "source", 4, 150);
  const std::string source = root / "source", dest = root / "dest";
  json_of_ablate_train({"convert", source, (root / "whole").string()});
  int ended_by_signal = 0;
  for (int time = 0; time < 12 && !fs::exists(root / "dest/val.index"); ++time) {
    ProcessOptions options;
    options.arguments = {
        test::program("ablate-train").string(), "convert", source, dest, "--threads", "1"};
    options.output_file = options.error_file = root / "log";
    ChildProcess child(options);
    const std::size_t before = journal_lines(dest);
    while (!child.poll() && journal_lines(dest) <= before) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * time));
    child.signal_group(time % 3 == 2 ? SIGTERM : SIGKILL);
    const ExitStatus status = child.wait();
    if (status.signal == SIGKILL) ++ended_by_signal;
    if (status.signal == 0) {
      EXPECT_TRUE(status.code == 0 || status.code == 3) << status.str();
    }
  }
  json_of_ablate_train({"convert", source, dest});
  EXPECT_GT(ended_by_signal, 0);
  EXPECT_EQ(pack_bytes(dest), pack_bytes(root / "whole"));
}

}  // namespace
}  // namespace ablate
