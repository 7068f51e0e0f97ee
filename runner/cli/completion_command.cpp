#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/cli/command.h"
#include "runner/core/error.h"

namespace ablate::cli::completion_command {
namespace {

/// Long and short option names of a parser: "--out", "-h".
std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

struct Words {
  std::vector<std::string> globals;
  std::vector<std::pair<std::string, std::vector<std::string>>> commands;
  std::vector<std::pair<std::string, std::string>> summaries;
};

Words collect_words() {
  CLI::App app;
  GlobalOptions globals;
  std::function<int()> action;
  build_parser(app, globals, action);
  Words words;
  words.globals = option_names(app);
  for (const CLI::App* command : app.get_subcommands({})) {
    words.commands.emplace_back(command->get_name(), option_names(*command));
    words.summaries.emplace_back(command->get_name(), command->get_description());
  }
  return words;
}

std::vector<std::string> names_of(const Words& words) {
  std::vector<std::string> names;
  for (const auto& [name, options] : words.commands) names.push_back(name);
  return names;
}

void print_bash(const Words& words) {
  std::cout << "# bash completion of ablate: source <(ablate completion bash)\n"
            << "_ablate() {\n"
            << "  local word=\"${COMP_WORDS[COMP_CWORD]}\" command=\"\" i\n"
            << "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
            << "    case \"${COMP_WORDS[i]}\" in\n"
            << "      " << join(names_of(words), "|")
            << ") command=\"${COMP_WORDS[i]}\"; break ;;\n"
            << "    esac\n"
            << "  done\n"
            << "  local words=\"" << join(words.globals, " ") << "\"\n"
            << "  case \"$command\" in\n"
            << "    \"\") words=\"$words " << join(names_of(words), " ") << "\" ;;\n";
  for (const auto& [name, options] : words.commands) {
    std::cout << "    " << name << ") words=\"$words " << join(options, " ") << "\" ;;\n";
  }
  std::cout << "  esac\n"
            << "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
            << "  [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- \"$word\"))\n"
            << "}\n"
            << "complete -o filenames -F _ablate ablate\n";
}

void print_zsh(const Words& words) {
  std::cout << "#compdef ablate\n"
            << "# zsh completion of ablate: ablate completion zsh > ~/.zfunc/_ablate\n"
            << "_ablate() {\n"
            << "  local -a commands\n  commands=(\n";
  for (const auto& [name, summary] : words.summaries) {
    std::cout << "    \"" << name << ":" << summary << "\"\n";
  }
  std::cout << "  )\n"
            << "  local -a options\n  options=(" << join(words.globals, " ") << ")\n"
            << "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
            << "  case $words[2] in\n";
  for (const auto& [name, options] : words.commands) {
    std::cout << "    " << name << ") options+=(" << join(options, " ") << ") ;;\n";
  }
  std::cout << "  esac\n"
            << "  if [[ $PREFIX == -* ]]; then compadd -a options; else _files; fi\n"
            << "}\n"
            << "compdef _ablate ablate\n";
}

void print_fish(const Words& words) {
  std::cout << "# fish completion of ablate: ablate completion fish | source\n"
            << "set -l commands " << join(names_of(words), " ") << "\n";
  for (const auto& [name, summary] : words.summaries) {
    std::cout << "complete -c ablate -n \"not __fish_seen_subcommand_from $commands\" -f -a "
              << name << " -d \"" << summary << "\"\n";
  }
  const auto long_name = [](const std::string& option) { return option.substr(2); };
  for (const std::string& option : words.globals) {
    std::cout << "complete -c ablate -l " << long_name(option) << "\n";
  }
  for (const auto& [name, options] : words.commands) {
    for (const std::string& option : options) {
      std::cout << "complete -c ablate -n \"__fish_seen_subcommand_from " << name << "\" -l "
                << long_name(option) << "\n";
    }
  }
}

int run(const std::string& shell) {
  const Words words = collect_words();
  if (shell == "bash") print_bash(words);
  if (shell == "zsh") print_zsh(words);
  if (shell == "fish") print_fish(words);
  return 0;
}

std::function<int()> add(CLI::App& app, const GlobalOptions&) {
  auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  return [shell] { return run(*shell); };
}

const CommandRegistration added{{
    .name = "completion",
    .position = 17,
    .summary = "Completion script of a shell",
    .examples = "  source <(ablate completion bash)\n"
                "  ablate completion zsh > ~/.zfunc/_ablate\n"
                "  ablate completion fish | source\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::completion_command
