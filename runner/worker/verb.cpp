#include "runner/worker/verb.h"

#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/core/build_info.h"
#include "runner/core/error.h"
#include "runner/train/outcome.h"

namespace ablate {
namespace {

void build_parser(CLI::App& app, std::function<int()>& action) {
  app.name("ablate-train");
  app.description(
      "The rank program: trains, evaluates and measures. Users start it through `ablate`.");
  app.set_version_flag("--version", [] { return build_info().version_line(); });
  app.require_subcommand(1);
  for (const std::string& name : Registry<Verb>::names()) {
    const Verb& verb = Registry<Verb>::get(name);
    CLI::App* sub = app.add_subcommand(name, std::string(verb.summary));
    if (!verb.examples.empty()) sub->footer(cat("Examples:\n", verb.examples));
    auto run = std::make_shared<std::function<int()>>(verb.add(*sub));
    sub->callback([run, &action] { action = *run; });
  }
}

}  // namespace

int run_verb_line(int argc, const char* const* argv) {
  CLI::App app;
  std::function<int()> action;
  build_parser(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "ablate-train: " << error.what() << "\n"
              << "`ablate-train --help` lists the verbs, `ablate-train VERB --help` its options\n";
    return static_cast<int>(ExitCode::BadSpec);
  }
  try {
    return action();
  } catch (const std::exception& error) {
    std::cerr << "ablate-train: " << error.what() << "\n";
    return outcome_of(error).exit_code;
  }
}

}  // namespace ablate
