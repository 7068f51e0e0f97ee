#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/files.h"
#include "runner/core/process.h"
#include "runner/core/text.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

/// Environment variables that this process has while the object lives.
class Variables {
 public:
  Variables() = default;
  ~Variables() {
    for (auto saved = saved_.rbegin(); saved != saved_.rend(); ++saved) {
      if (saved->second.empty()) {
        ::unsetenv(saved->first.c_str());
      } else {
        ::setenv(saved->first.c_str(), saved->second.c_str(), 1);
      }
    }
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

  void set(const std::string& name, const std::string& value) {
    const char* before = std::getenv(name.c_str());
    saved_.emplace_back(name, before == nullptr ? "" : before);
    ::setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  std::vector<std::pair<std::string, std::string>> saved_;
};

/// The stand-in for Slurm (tests/support/fake_slurm) before everything else on the PATH.
class FakeSlurm {
 public:
  FakeSlurm() {
    for (const char* name : {"sbatch", "squeue", "scontrol", "scancel"}) {
      std::filesystem::create_symlink(source_root() / "tests/support/fake_slurm", folder_ / name);
    }
    const char* path = std::getenv("PATH");
    variables_.set("PATH", folder_.path().string() + ":" + (path == nullptr ? "" : path));
    variables_.set("FAKE_SLURM", folder_.path().string());
    variables_.set("ABLATE_SLURM_PATIENCE", "5");
  }

  /// Makes it misbehave, as its script says.
  void be(const std::string& what, const std::string& content = "") const {
    std::ofstream(folder_ / what) << content;
  }
  void be_well(const std::string& what) const { std::filesystem::remove(folder_ / what); }
  /// Another command that jobs find, as a shell script.
  void add(const std::string& command, const std::string& script) const {
    std::ofstream(folder_ / command) << "#!/bin/bash\n" << script;
    std::filesystem::permissions(folder_ / command, std::filesystem::perms::owner_all);
  }
  /// Lines of a file of its own ("calls", "running").
  std::vector<std::string> lines(const std::string& file) const {
    std::vector<std::string> lines;
    std::ifstream in(folder_ / file);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  std::vector<std::string> calls(const std::string& of) const {
    std::vector<std::string> some;
    for (const std::string& line : lines("calls")) {
      if (line.starts_with(of)) some.push_back(line);
    }
    return some;
  }

 private:
  TempFolder folder_;
  Variables variables_;
};

/// A real Slurm of this machine with nodes n1 and n2, while the object lives.
class SlurmCluster {
 public:
  explicit SlurmCluster(int cores_of_a_node = 2) {
    const CapturedRun started =
        script({"start", folder_.path().string(), "2", std::to_string(cores_of_a_node)});
    constexpr int kImpossible = 77;
    if (!started.status.success()) {
      EXPECT_EQ(started.status.code, kImpossible) << started.output << started.errors;
      why_not_ = started.errors.empty() ? started.status.str() : started.errors;
      return;
    }
    variables_.set("SLURM_CONF", (folder_ / "slurm.conf").string());
  }
  ~SlurmCluster() { script({"stop", folder_.path().string()}); }
  SlurmCluster(const SlurmCluster&) = delete;
  SlurmCluster& operator=(const SlurmCluster&) = delete;

  /// Why there is none; empty when there is.
  const std::string& why_not() const { return why_not_; }
  void end(const std::string& daemon) const { script({"end", folder_.path().string(), daemon}); }
  /// Kills everything on a node.
  void fail(const std::string& node) const { script({"fail", folder_.path().string(), node}); }
  /// Starts the daemons that have ended.
  void revive() const { script({"start", folder_.path().string()}); }

  static CapturedRun run(std::vector<std::string> command) {
    ProcessOptions options;
    options.arguments = std::move(command);
    return run_and_capture(options, {}, 60);
  }
  static std::string ask(std::vector<std::string> command) {
    return run(std::move(command)).output;
  }

 private:
  static CapturedRun script(std::vector<std::string> arguments) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    options.arguments.insert(options.arguments.begin(),
                             (source_root() / "tests/support/slurm_cluster").string());
    return run_and_capture(options, {}, 90);
  }

  TempFolder folder_;
  Variables variables_;
  std::string why_not_;
};

}  // namespace ablate::test
