#include "runner/core/registry.h"

#include <functional>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "datasets/dataset.h"
#include "methods/method.h"
#include "methods/models/model.h"
#include "methods/models/slots.h"
#include "runner/train/optimizer.h"
#include "runner/train/task.h"
#include "runner/worker/verb.h"
#include "tests/support/source_tree.h"

namespace ablate {
namespace {

using NamesOf = std::function<std::vector<std::string>()>;

const std::map<std::string, NamesOf>& registries() {
  static const std::map<std::string, NamesOf> map{
      {"DatasetInfo", Registry<DatasetInfo>::names},
      {"LayerAttentionInfo", Registry<LayerAttentionInfo>::names},
      {"MethodInfo", Registry<MethodInfo>::names},
      {"ModelInfo", Registry<ModelInfo>::names},
      {"OptimizerInfo", Registry<OptimizerInfo>::names},
      {"TaskInfo", Registry<TaskInfo>::names},
      {"TokenReducerInfo", Registry<TokenReducerInfo>::names},
      {"Verb", Registry<Verb>::names},
  };
  return map;
}

// A linker that drops a file that nobody refers to drops its registration without a word.
TEST(RegistryAndFiles, EveryRegistrationInASourceFileReachedTheProgram) {
  const auto written = test::registered_literals();
  ASSERT_GE(written.size(), 4U);
  for (const auto& [path, info, name] : written) {
    if (path.starts_with("runner/cli/")) continue;  // commands are in the other program
    ASSERT_TRUE(registries().contains(info)) << path << ": unknown kind of plug-in " << info;
    const auto names = registries().at(info)();
    EXPECT_TRUE(std::set<std::string>(names.begin(), names.end()).contains(name))
        << path << ": \"" << name << "\" is not in Registry<" << info << ">";
  }
}

TEST(RegistryAndFiles, EveryKindHasSomething) {
  for (const auto& [info, names] : registries()) EXPECT_FALSE(names().empty()) << info;
}

}  // namespace
}  // namespace ablate
