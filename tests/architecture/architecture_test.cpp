#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/source_tree.h"

namespace ablate {
namespace {

using test::SourceFile;
using Names = std::set<std::string>;

/// The part of the program a file belongs to.
std::string part_of(const std::string& path) {
  static const std::vector<std::pair<std::string, std::string>> prefixes{
      {"runner/core/", "core"},
      {"results/record", "spool"},
      {"results/spool", "spool"},
      {"results/", "results"},
      {"sweeps/", "sweeps"},
      {"runner/torch/", "torch"},
      {"distributed/", "distributed"},
      {"methods/kernels/", "kernels"},
      {"datasets/", "datasets"},
      {"methods/models/", "models"},
      {"methods/", "methods"},
      {"runner/train/", "train"},
      {"runner/measure/", "measure"},
      {"runner/cli/", "cli"},
      {"runner/worker/", "worker"},
      {"tests/", "tests"},
      {"bench/", "bench"},
  };
  for (const auto& [prefix, part] : prefixes) {
    if (path.starts_with(prefix)) return part;
  }
  return "";
}

/// Who may include whom, besides itself. Arrows only go down.
const std::map<std::string, Names>& allowed_parts() {
  static const Names measure{"core",        "torch",    "kernels", "spool",
                             "distributed", "datasets", "models",  "methods"};
  const auto with = [](Names names, std::initializer_list<std::string> more) {
    names.insert(more);
    return names;
  };
  // A run counts its multiply-accumulates, hence train sees measure and not the other way round.
  static const Names train = with(measure, {"measure"});
  static const Names worker = with(train, {"train"});
  static const std::map<std::string, Names> table{
      {"core", {}},
      {"spool", {"core"}},
      {"results", {"core", "spool"}},
      {"sweeps", {"core", "spool", "results"}},
      {"cli", {"core", "spool", "results", "sweeps"}},
      {"torch", {}},
      {"distributed", {"core", "torch"}},
      {"kernels", {"core"}},
      {"datasets", {"core", "torch", "kernels"}},
      {"models", {"core", "torch", "kernels", "distributed"}},
      {"methods", {"core", "torch", "kernels", "distributed", "models"}},
      {"measure", measure},
      {"train", train},
      {"worker", worker},
  };
  return table;
}

struct Library {
  std::string header;  ///< how an include of it starts
  std::string where;   ///< regular expression of the files that may include it
};

/// Libraries that only some files may see. Tests and benchmarks have their own line where they may.
const std::vector<Library>& libraries() {
  static const std::vector<Library> table{
      {"torch/", R"(runner/torch/.*\.h)"},
      {"ATen/", R"(runner/torch/.*\.h)"},
      {"c10/", R"(runner/torch/.*\.h)"},
      {"kineto/", R"(runner/torch/.*\.h)"},
      {"mpi.h", R"(distributed/.*\.cpp|tests/support/mpi_.*|tests/.*_mpi_test\.cpp)"},
      {"nccl.h", R"(distributed/nccl_.*\.cpp)"},
      {"cuda",
       R"(distributed/nccl_.*\.cpp|methods/kernels/.*|runner/torch/.*\.h|tests/.*|bench/.*)"},
      {"sqlite3.h", R"(results/(?!spool|record).*|tests/.*|bench/.*)"},
      {"SQLiteCpp/", R"(results/(?!spool|record).*|tests/.*|bench/.*)"},
      {"boost/", R"(results/(?!spool|record).*\.cpp|methods/[^/]*\.cpp|tests/.*)"},
      {"spdlog/", R"(runner/core/log\.cpp)"},
      {"fmt/", "none"},
      {"toml++/", R"(runner/core/.*\.cpp|tests/.*)"},
      {"xxhash.h", R"(runner/core/.*\.cpp)"},
      {"openssl/", R"(runner/core/.*\.cpp)"},
      {"CLI/", R"(runner/cli/.*|runner/worker/.*)"},
      {"jpeglib.h", R"(datasets/(.*\.cpp|jpeg_decoder\.h)|bench/decode_bench\.cpp|tests/.*)"},
      {"png.h", R"(datasets/.*\.cpp|tests/.*)"},
      {"archive", R"(datasets/.*\.cpp|tests/.*)"},
      {"gtest/", R"(tests/.*)"},
  };
  return table;
}

struct Include {
  std::string header;
  bool ours = false;  ///< written with quotes
  std::size_t line = 0;
};

std::vector<Include> includes_of(const SourceFile& file) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
  std::vector<Include> result;
  for (std::size_t i = 0; i < file.lines.size(); ++i) {
    std::smatch match;
    if (!std::regex_search(file.lines[i], match, pattern)) continue;
    result.push_back({match[2], match[1] == "\"", i + 1});
  }
  return result;
}

std::string at(const SourceFile& file, std::size_t line) {
  return file.path + ":" + std::to_string(line);
}

TEST(Architecture, SourcesAreFound) {
  const auto files = test::cpp_sources();
  const auto has = [&](const char* path) {
    return std::ranges::any_of(files, [&](const SourceFile& f) { return f.path == path; });
  };
  EXPECT_TRUE(has("runner/core/error.h"));
  EXPECT_TRUE(has("runner/torch/torch.h"));
  EXPECT_TRUE(has("tests/architecture/architecture_test.cpp"));
}

TEST(Architecture, EveryFileBelongsToAPart) {
  for (const SourceFile& file : test::cpp_sources()) {
    EXPECT_NE(part_of(file.path), "") << file.path << " is in a folder that design does not know";
  }
}

TEST(Architecture, IncludesOfOursGoDown) {
  const auto files = test::cpp_sources();
  Names known;
  for (const SourceFile& file : files) known.insert(file.path);
  for (const SourceFile& file : files) {
    const std::string from = part_of(file.path);
    for (const Include& include : includes_of(file)) {
      if (!include.ours || include.header == "build_facts.h") continue;
      if (!known.contains(include.header)) {
        ADD_FAILURE() << at(file, include.line) << ": \"" << include.header
                      << "\" is not a file, as a path from the root of the repository";
        continue;
      }
      const std::string to = part_of(include.header);
      if (from == to || from == "tests" || from == "bench") continue;
      EXPECT_TRUE(allowed_parts().at(from).contains(to))
          << at(file, include.line) << ": " << from << " must not include " << to << " ("
          << include.header << ")";
    }
  }
}

TEST(Architecture, NobodyIncludesTestsOrBenchmarks) {
  for (const SourceFile& file : test::cpp_sources()) {
    if (part_of(file.path) == "tests" || part_of(file.path) == "bench") continue;
    for (const Include& include : includes_of(file)) {
      EXPECT_FALSE(include.header.starts_with("tests/") || include.header.starts_with("bench/"))
          << at(file, include.line);
    }
  }
}

// Models average over ranks through the interface; everything else of distributed is not theirs.
TEST(Architecture, ModelsAndMethodsSeeOnlyTheCommunicatorInterface) {
  for (const SourceFile& file : test::cpp_sources()) {
    const std::string from = part_of(file.path);
    if (from != "models" && from != "methods") continue;
    for (const Include& include : includes_of(file)) {
      if (part_of(include.header) != "distributed") continue;
      EXPECT_EQ(include.header, "distributed/communicator.h") << at(file, include.line);
    }
  }
}

// Whoever includes a communicator must not pay for LibTorch's headers.
TEST(Architecture, HeadersOfDistributedAreFreeOfTorch) {
  for (const SourceFile& file : test::cpp_sources()) {
    if (part_of(file.path) != "distributed" || !file.path.ends_with(".h")) continue;
    for (const Include& include : includes_of(file)) {
      EXPECT_NE(part_of(include.header), "torch") << at(file, include.line);
    }
  }
}

TEST(Architecture, LibrariesAreSeenOnlyWhereAllowed) {
  for (const SourceFile& file : test::cpp_sources()) {
    for (const Include& include : includes_of(file)) {
      for (const Library& library : libraries()) {
        if (!include.header.starts_with(library.header)) continue;
        if (include.ours && !part_of(include.header).empty()) continue;
        EXPECT_TRUE(std::regex_match(file.path, std::regex(library.where)))
            << at(file, include.line) << ": <" << include.header << "> is allowed in "
            << library.where << " only";
      }
    }
  }
}

TEST(Architecture, PluginsRegisterUnderTheNameOfTheirFile) {
  for (const auto& [path, info, name] : test::registered_literals()) {
    const std::string stem = std::filesystem::path(path).stem();
    EXPECT_TRUE(name.starts_with(stem))
        << path << " registers \"" << name << "\": the file name must start the name";
  }
}

TEST(Architecture, FilesAreShort) {
  constexpr std::size_t kMaxLines = 400;
  for (const SourceFile& file : test::cpp_sources()) {
    EXPECT_LE(file.lines.size(), kMaxLines) << file.path;
  }
}

TEST(Architecture, HeadersAreGuarded) {
  for (const SourceFile& file : test::cpp_sources()) {
    if (!file.path.ends_with(".h") && !file.path.ends_with(".cuh")) continue;
    EXPECT_TRUE(std::ranges::find(file.lines, "#pragma once") != file.lines.end()) << file.path;
  }
}

// A path of one machine works on no other. (Written in two halves, or this file would match.)
TEST(Architecture, NoPathOfOneMachine) {
  const std::regex personal(std::string("(^|[^A-Za-z0-9_.})/-])/(ho") + "me|ro" + "ot|Us" +
                            "ers|wo" + "rk)/[A-Za-z0-9_.]");
  for (const SourceFile& file : test::text_files()) {
    for (std::size_t i = 0; i < file.lines.size(); ++i) {
      EXPECT_FALSE(std::regex_search(file.lines[i], personal))
          << at(file, i + 1) << ": " << file.lines[i];
    }
  }
}

}  // namespace
}  // namespace ablate
