#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "sweeps/launch.h"
#include "sweeps/slurm_array.h"
#include "tests/support/slurm.h"

namespace ablate {
namespace {

TEST(SlurmSeconds, AreReadAsSbatchReadsThem) {
  EXPECT_EQ(slurm_seconds("90"), 90 * 60);
  EXPECT_EQ(slurm_seconds("1:30"), 90);
  EXPECT_EQ(slurm_seconds("2:00:05"), 7205);
  EXPECT_EQ(slurm_seconds("1-0"), 86'400);
  EXPECT_EQ(slurm_seconds("1-12:30"), 86'400 + 12 * 3600 + 30 * 60);
  EXPECT_EQ(slurm_seconds("2-01:02:03"), 2 * 86'400 + 3723);
  for (const char* text : {"", "UNLIMITED", "1:2:3:4", "-1", "1h", "1-", "1:-2"}) {
    EXPECT_FALSE(slurm_seconds(text)) << text;
  }
}

TEST(SlurmResources, SpreadTheRanksEvenly) {
  SlurmSettings settings;
  settings.nodes = 2;
  settings.gpus = 2;
  settings.time = "4:00:00";
  settings.partition = "gpu";
  settings.options = {"--exclusive"};
  EXPECT_EQ(join(slurm_resources(settings, 4, 3), " "),
            "--nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --gres=gpu:2 "
            "--time=4:00:00 --partition=gpu --exclusive");
  EXPECT_THROW(slurm_resources(settings, 3, 1), SpecError);
}

Launch parsed(const std::string& text) { return parse_launch(parse_toml(text, "s.toml")); }

TEST(SlurmSettingsOfALaunch, AreCheckedWhereTheyStand) {
  const Launch launch = parsed("executor = \"slurm\"\nslurm = { time = \"1:00:00\", gpus = 1 }\n");
  EXPECT_EQ(launch.slurm.gpus, 1);
  EXPECT_EQ(launch.slurm.launcher, "auto");
  try {
    parsed("executor = \"slurm\"\nslurm = { time = \"an hour\" }\n");
    FAIL() << "accepted";
  } catch (const SpecError& error) {
    EXPECT_NE(std::string(error.what()).find("s.toml:2:"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("H:MIN:SEC"), std::string::npos) << error.what();
  }
  EXPECT_THROW(parsed("slurm = { partitions = \"x\" }\n"), SpecError);
}

TEST(SlurmTicketText, IsReadByTheShellWordByWord) {
  SlurmTicket ticket;
  ticket.number = 7;
  ticket.command = {"/a b/train", "it's", "$HOME", "", "two\nlines"};
  ticket.stop_files = {"/o/stop"};
  ticket.setup = "module load \"x\"";
  ProcessOptions options;
  options.arguments = {"bash", "-c",
                       ticket.text() + "printf '<%s>' \"$ticket\" \"$setup\" \"${command[@]}\""};
  EXPECT_EQ(run_and_capture(options).output,
            "<7><module load \"x\"></a b/train><it's><$HOME><><two\nlines>");
}

TEST(SlurmArrayFolder, ElementsKeepTheirRunsAndTickets) {
  const test::TempFolder folder;
  SlurmArray array = SlurmArray::create(folder.path(), {"run-a", "run-b"}, {"--nodes=1"});
  array.set_job("41");
  EXPECT_EQ(array.element_id(1), "41_1");
  const std::string submission = join(array.submission(3, 60), " ");
  EXPECT_NE(submission.find("--hold"), std::string::npos);
  EXPECT_NE(submission.find("--array=0-1%3"), std::string::npos);
  EXPECT_NE(submission.find("--signal=B:USR2@60"), std::string::npos);
  const auto loaded = SlurmArray::load(folder.path());
  ASSERT_EQ(loaded.size(), 1U);
  EXPECT_EQ(loaded[0].runs(), array.runs());
  EXPECT_EQ(loaded[0].job(), "41");
  EXPECT_EQ(loaded[0].options(), array.options());
  EXPECT_FALSE(array.exit_status(1, 5));
  std::ofstream(array.folder() / "exit-1.5") << "3\n";
  EXPECT_EQ(array.exit_status(1, 5), 3);
  EXPECT_FALSE(array.exit_status(0, 5)) << "another run's";
  EXPECT_FALSE(array.exit_status(1, 6)) << "another attempt's";
}

}  // namespace
}  // namespace ablate
