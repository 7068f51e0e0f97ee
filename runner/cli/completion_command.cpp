#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>

#include "runner/cli/command.h"
#include "runner/core/error.h"

namespace ablate::cli::completion_command {
namespace {

/// What may follow where: an option with its choices, or the first argument of a command.
struct Place {
  std::string name;                  ///< "--format"; of an argument its kind: "RUN"
  std::vector<std::string> choices;  ///< empty: anything
};

struct CommandWords {
  std::string name, summary;
  std::vector<Place> options;
  Place argument;
};

struct Words {
  std::vector<Place> globals;
  std::vector<CommandWords> commands;
};

/// "TEXT:{csv,json}" -> csv, json.
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t begin = type.find('{'), end = type.rfind('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return split(type.substr(begin + 1, end - begin - 1), ',');
}

std::vector<Place> options_of(const CLI::App& app) {
  std::vector<Place> places;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames() == std::vector<std::string>{"help"}) continue;
    for (const std::string& name : option->get_lnames()) {
      places.push_back({"--" + name, choices_of(*option)});
    }
    for (const std::string& name : option->get_snames()) {
      places.push_back({"-" + name, choices_of(*option)});
    }
  }
  return places;
}

Place argument_of(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) return {option->get_type_name(), choices_of(*option)};
  }
  return {};
}

Words collect_words() {
  CLI::App app;
  GlobalOptions globals;
  std::function<int()> action;
  build_parser(app, globals, action);
  Words words{options_of(app), {}};
  for (const CLI::App* command : app.get_subcommands({})) {
    words.commands.push_back({command->get_name(), command->get_description(), options_of(*command),
                              argument_of(*command)});
  }
  return words;
}

std::string names_of(const std::vector<CommandWords>& commands, const char* separator) {
  std::vector<std::string> names;
  for (const CommandWords& command : commands) names.push_back(command.name);
  return join(names, separator);
}

std::string names_of(const std::vector<Place>& places) {
  std::vector<std::string> names{"--help"};
  for (const Place& place : places) names.push_back(place.name);
  return join(names, " ");
}

/// What prints the possible words of an argument; `ablate` stands for the program with the line's
/// --out and --db. Empty: file names.
std::string source_of(const Place& argument, const std::string& ablate) {
  const auto column = [&](const char* sql) {
    return cat(ablate, " query --format csv \"", sql, "\" 2>/dev/null | tail -n +2");
  };
  if (!argument.choices.empty()) return "echo " + join(argument.choices, " ");
  if (argument.name.find("SWEEP") != std::string::npos) return column("SELECT name FROM sweep");
  if (argument.name == "RUN") return column("SELECT substr(run_uid, 1, 8) FROM run");
  if (argument.name == "KIND") return ablate + " list 2>/dev/null | grep -v \"^ \"";
  return "";
}

void print_bash_values(const std::string& command, const std::vector<Place>& places) {
  for (const Place& place : places) {
    if (place.choices.empty()) continue;
    std::cout << "    " << command << "\\ " << place.name << ") words=\""
              << join(place.choices, " ") << "\" ;;\n";
  }
}

void print_bash(const Words& words) {
  std::cout
      << "# bash completion of ablate: source <(ablate completion bash)\n"
      << "_ablate() {\n"
      << "  local word=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      << "  local command=\"\" words=\"\" i\n"
      << "  local -a ablate=(\"${COMP_WORDS[0]}\")\n"
      << "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      << "    case \"${COMP_WORDS[i]}\" in\n"
      << "      --out|--db) ablate+=(\"${COMP_WORDS[i]}\" \"${COMP_WORDS[i+1]}\"); ((++i)) ;;\n"
      << "      " << names_of(words.commands, "|")
      << ") [[ -n $command ]] || command=\"${COMP_WORDS[i]}\" ;;\n"
      << "    esac\n"
      << "  done\n"
      << "  case \"$command $previous\" in\n";
  print_bash_values("*", words.globals);
  for (const CommandWords& command : words.commands) {
    print_bash_values(command.name, command.options);
  }
  std::cout << "    *) case \"$command:$word\" in\n"
            << "      :-*) words=\"" << names_of(words.globals) << "\" ;;\n"
            << "      :*) words=\"" << names_of(words.commands, " ") << "\" ;;\n";
  for (const CommandWords& command : words.commands) {
    std::vector<Place> options = command.options;
    options.insert(options.end(), words.globals.begin(), words.globals.end());
    std::cout << "      " << command.name << ":-*) words=\"" << names_of(options) << "\" ;;\n";
    const std::string source = source_of(command.argument, "\"${ablate[@]}\"");
    if (!source.empty()) {
      std::cout << "      " << command.name << ":*) words=\"$(" << source << ")\" ;;\n";
    }
  }
  std::cout << "    esac ;;\n"
            << "  esac\n"
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
  for (const CommandWords& command : words.commands) {
    std::cout << "    \"" << command.name << ":" << command.summary << "\"\n";
  }
  std::cout << "  )\n"
            << "  local -a options values\n  options=(" << names_of(words.globals) << ")\n"
            << "  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
            << "  case \"$words[2] $words[CURRENT-1]\" in\n";
  for (const CommandWords& command : words.commands) {
    for (const Place& option : command.options) {
      if (option.choices.empty()) continue;
      std::cout << "    \"" << command.name << " " << option.name << "\") values=("
                << join(option.choices, " ") << ") ;;\n";
    }
  }
  std::cout << "  esac\n"
            << "  if (( $#values )); then compadd -a values; return; fi\n"
            << "  case $words[2] in\n";
  for (const CommandWords& command : words.commands) {
    const std::string source = source_of(command.argument, "ablate");
    std::cout << "    " << command.name << ") options+=(" << names_of(command.options) << ")";
    if (!source.empty()) std::cout << "; values=($(" << source << "))";
    std::cout << " ;;\n";
  }
  std::cout << "  esac\n"
            << "  if [[ $PREFIX == -* ]]; then compadd -a options\n"
            << "  else (( $#values )) && compadd -a values; _files; fi\n"
            << "}\n"
            << "compdef _ablate ablate\n";
}

void print_fish_option(const std::string& condition, const Place& option) {
  const bool is_long = option.name.starts_with("--");
  std::cout << "complete -c ablate" << condition << (is_long ? " -l " : " -s ")
            << option.name.substr(is_long ? 2 : 1);
  if (!option.choices.empty()) std::cout << " -x -a \"" << join(option.choices, " ") << "\"";
  std::cout << "\n";
}

void print_fish(const Words& words) {
  std::cout << "# fish completion of ablate: ablate completion fish | source\n"
            << "set -l commands " << names_of(words.commands, " ") << "\n";
  for (const CommandWords& command : words.commands) {
    std::cout << "complete -c ablate -n \"not __fish_seen_subcommand_from $commands\" -f -a "
              << command.name << " -d \"" << command.summary << "\"\n";
  }
  for (const Place& option : words.globals) print_fish_option("", option);
  for (const CommandWords& command : words.commands) {
    const std::string condition = cat(" -n \"__fish_seen_subcommand_from ", command.name, "\"");
    for (const Place& option : command.options) print_fish_option(condition, option);
    const std::string source = source_of(command.argument, "ablate");
    if (source.empty()) continue;
    std::cout << "complete -c ablate" << condition << " -a '(" << source << ")'\n";
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
    .position = 18,
    .summary = "Completion script of a shell",
    .examples = "  source <(ablate completion bash)\n"
                "  ablate completion zsh > ~/.zfunc/_ablate\n"
                "  ablate completion fish | source\n",
    .add = add,
}};

}  // namespace
}  // namespace ablate::cli::completion_command
