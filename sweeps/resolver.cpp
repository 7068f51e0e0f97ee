#include "sweeps/resolver.h"

#include <algorithm>
#include <map>
#include <set>

#include <sys/stat.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

using nlohmann::json;

json drafts_json(const std::vector<Draft>& drafts, int ranks) {
  json list = json::array();
  for (const Draft& draft : drafts) {
    json parents = json::array();
    for (const DraftParent& parent : draft.parents) {
      parents.push_back({{"role", parent.role}, {"draft", parent.draft}});
    }
    list.push_back({{"label", cat(draft.label, " seed ", draft.seed)},
                    {"spec", draft.spec.to_annotated_json()},
                    {"parents", std::move(parents)},
                    {"ranks", ranks}});
  }
  return {{"drafts", std::move(list)}};
}

/// Size and modification time, cheap stand-ins for content; "absent" for a missing file.
std::string fingerprint(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return cat(path.string(), " absent\n");
  return cat(path.string(), " ", info.st_size, " ", info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec,
             "\n");
}

std::string cache_key(const std::vector<Draft>& drafts, const std::string& request,
                      const Workspace& workspace) {
  std::string key = request + fingerprint(workspace.require_train_program());
  for (const auto& [name, folder] : workspace.data) key += name + "=" + fingerprint(folder);
  for (const Draft& draft : drafts) {
    for (const char* path : {"init.weights", "distillation.teacher.weights"}) {
      const Value* weights = draft.spec.find_path(path);
      if (weights != nullptr && weights->is_string()) key += fingerprint(weights->as_string());
    }
  }
  return hash128_hex(key);
}

ResolvedRun parse_run(const json& entry) {
  ResolvedRun run;
  run.id = entry.at("id").get<std::string>();
  run.spec = entry.at("spec");
  run.config = entry.at("config");
  run.config_hash = entry.at("config_hash").get<std::string>();
  for (const json& method : entry.at("methods")) {
    run.methods.push_back(
        {method.at("name").get<std::string>(), method.at("origin").get<std::string>()});
  }
  for (const json& parent : entry.at("parents")) {
    run.parents.push_back(
        {parent.at("role").get<std::string>(), parent.at("id").get<std::string>()});
  }
  const json& dataset = entry.at("dataset");
  run.dataset = dataset.at("name").get<std::string>();
  run.split = dataset.at("split").get<std::string>();
  run.train_size = dataset.at("train_size").get<std::int64_t>();
  run.test_size = dataset.at("test_size").get<std::int64_t>();
  run.steps_per_epoch = entry.at("steps_per_epoch").get<std::int64_t>();
  run.total_steps = entry.at("total_steps").get<std::int64_t>();
  run.images_seen = entry.at("images_seen").get<std::int64_t>();
  run.init_file = entry.value("init_file", "");
  run.teacher_file = entry.value("teacher_file", "");
  run.base_params = entry.at("base_params").get<std::int64_t>();
  run.base_macs = entry.at("base_macs").get<std::int64_t>();
  run.teacher_macs = entry.value("teacher_macs", std::int64_t{0});
  for (const json& note : entry.value("semantics_notes", json::array())) {
    run.notes.push_back(note.get<std::string>());
  }
  return run;
}

/// Every message once: the same mistake usually sits in all seeds of a row. Children of a run with
/// an error have one because of it, and are passed over.
[[noreturn]] void throw_errors(const std::vector<Draft>& drafts, const json& runs) {
  std::vector<std::string> messages;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto error = runs[i].find("error");
    const bool inherited = std::any_of(
        drafts[i].parents.begin(), drafts[i].parents.end(),
        [&](const DraftParent& parent) { return runs[parent.draft].contains("error"); });
    if (error == runs[i].end() || inherited) continue;
    const std::string text = error->get<std::string>();
    if (!seen.insert(text).second) continue;
    messages.push_back(cat(text, "\n  in variant \"", drafts[i].label, "\""));
  }
  throw SpecError(join(messages, "\n"));
}

std::vector<ResolvedRun> parse_answer(const std::vector<Draft>& drafts, const json& answer) {
  const json& runs = answer.at("runs");
  ABLATE_CHECK(runs.size() == drafts.size(), "ablate-train resolve answered ", runs.size(), " of ",
               drafts.size(), " drafts");
  for (const json& entry : runs) {
    if (entry.contains("error")) throw_errors(drafts, runs);
  }
  try {
    std::vector<ResolvedRun> result;
    for (const json& entry : runs) result.push_back(parse_run(entry));
    return result;
  } catch (const json::exception& error) {
    throw Error(cat("the answer of ablate-train resolve is not understood: ", error.what(),
                    "; build both programs from one source"));
  }
}

void check_distinct(const std::vector<Draft>& drafts, const std::vector<ResolvedRun>& runs) {
  std::map<std::string, std::size_t> first;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto [twin, fresh] = first.emplace(runs[i].id, i);
    if (fresh) continue;
    throw SpecError(cat(drafts[i].origin.str(), ": \"", drafts[twin->second].label, "\" and \"",
                        drafts[i].label,
                        "\" are the same run under two labels: every setting is equal; remove one "
                        "or let them differ"));
  }
}

json call_resolve(const std::string& request, const Workspace& workspace) {
  ProcessOptions options;
  options.arguments = {workspace.require_train_program().string(), "resolve"};
  for (std::string& argument : workspace.data_arguments()) {
    options.arguments.push_back(std::move(argument));
  }
  options.die_with_parent = true;
  const CapturedRun answer = run_and_capture(options, request);
  if (!answer.status.success()) {
    throw Error(cat("ablate-train resolve: ", answer.status.str(), "\n", answer.errors));
  }
  try {
    return json::parse(answer.output);
  } catch (const json::exception& error) {
    throw Error(cat("ablate-train resolve: the answer is no JSON: ", error.what()));
  }
}

/// The stored answer, or null when there is none or it is damaged: then it is asked for again.
json read_cache(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return nullptr;
  const json answer = json::parse(read_file(file), nullptr, false);
  return answer.is_discarded() ? json(nullptr) : answer;
}

}  // namespace

std::vector<ResolvedRun> resolve_drafts(const std::vector<Draft>& drafts, int ranks,
                                        const Workspace& workspace) {
  const std::string request = drafts_json(drafts, ranks).dump();
  const auto folder = workspace.out / ".cache";
  const auto file = folder / cat("resolve-", cache_key(drafts, request, workspace), ".json");
  json answer = read_cache(file);
  const bool known = !answer.is_null();
  if (!known) answer = call_resolve(request, workspace);
  std::vector<ResolvedRun> runs = parse_answer(drafts, answer);
  check_distinct(drafts, runs);
  if (!known && std::filesystem::is_directory(workspace.out)) {
    make_directories(folder);
    write_file_atomic(file, answer.dump());
  }
  return runs;
}

}  // namespace ablate
