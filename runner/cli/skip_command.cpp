#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/cli/command.h"
#include "runner/cli/store_access.h"
#include "runner/core/error.h"

namespace ablate::cli::skip_command {
namespace {

int run(const std::vector<std::string>& texts, const GlobalOptions& globals) {
  const auto store = open_store(globals.workspace(), ResultStore::Mode::ReadWrite);
  std::vector<std::string> runs;
  for (const std::string& text : texts) runs.push_back(find_run(*store, text));
  for (const std::string& id : runs) {
    const std::string state = describe_run(*store, id).run.state;
    std::cout << short_id(id)
              << (store->skip(id) ? " is skipped" : cat(" is ", state, ": left alone")) << "\n";
  }
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions& globals) {
  auto runs = std::make_shared<std::vector<std::string>>();
  add_runs_argument(app, *runs, /*required=*/true);
  return [runs, &globals] { return run(*runs, globals); };
}

const CommandRegistration added{{
    .name = "skip",
    .position = 9,
    .summary = "Leave runs out: sweeps pass over them until `ablate retry`",
    .examples = "  ablate skip 3f2a\n"
                "  ablate skip \"NOSE seed 2\" \"NOSE seed 3\"\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::skip_command
