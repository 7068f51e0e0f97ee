#include "sweeps/slurm_array.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kNameLetters = 8;

/// No two arrays of a cluster have one name: it is how an array is found whose submission was not
/// answered.
std::string new_name(const std::vector<std::string>& runs) {
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  const std::string what = cat(host_name(), ":", ::getpid(), ":", now, ":", join(runs));
  return "ablate-" + hash128_hex(what).substr(0, kNameLetters);
}

json read_json(const fs::path& file) {
  std::error_code missing;
  if (!fs::exists(file, missing)) return {};
  return json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
}

}  // namespace

fs::path slurm_folder(const fs::path& out) { return out / "slurm"; }

SlurmArray SlurmArray::create(const fs::path& below, std::vector<std::string> runs,
                              std::vector<std::string> options) {
  SlurmArray array;
  array.folder_ = fs::absolute(below / new_name(runs));
  array.runs_ = std::move(runs);
  array.options_ = std::move(options);
  make_directories(array.folder_);
  write_file_atomic(array.folder_ / "script", slurm_script());
  array.save();
  return array;
}

std::vector<SlurmArray> SlurmArray::load(const fs::path& below) {
  std::vector<SlurmArray> arrays;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(below, missing)) {
    const json text = read_json(entry.path() / "array.json");
    if (!text.is_object()) continue;
    SlurmArray array;
    try {
      array.folder_ = fs::absolute(entry.path());
      text.at("runs").get_to(array.runs_);
      text.at("options").get_to(array.options_);
      text.at("job").get_to(array.job_);
    } catch (const json::exception&) {
      continue;
    }
    arrays.push_back(std::move(array));
  }
  return arrays;
}

void SlurmArray::save() const {
  const json text = {{"job", job_}, {"runs", runs_}, {"options", options_}};
  write_file_atomic(folder_ / "array.json", text.dump());
}

void SlurmArray::set_job(const std::string& job) {
  job_ = job;
  save();
}

std::string SlurmArray::element_id(int element) const { return cat(job_, "_", element); }

std::vector<std::string> SlurmArray::submission(int at_a_time, int grace) const {
  std::vector<std::string> arguments = {"--hold",
                                        "--requeue",
                                        "--open-mode=append",
                                        cat("--array=0-", runs_.size() - 1, "%", at_a_time),
                                        cat("--job-name=", name()),
                                        cat("--output=", folder_.string(), "/slurm-%a.out"),
                                        cat("--signal=B:USR2@", grace)};
  arguments.insert(arguments.end(), options_.begin(), options_.end());
  arguments.push_back((folder_ / "script").string());
  arguments.push_back(folder_.string());
  return arguments;
}

fs::path SlurmArray::file(const char* kind, int element, std::int64_t ticket) const {
  return folder_ / cat(kind, "-", element, ".", ticket);
}

void SlurmArray::write_ticket(int element, const SlurmTicket& ticket) const {
  write_file_atomic(folder_ / cat("ticket-", element), ticket.text());
}

bool SlurmArray::is_taken(int element, std::int64_t ticket) const {
  std::error_code missing;
  return fs::exists(file("taken", element, ticket), missing);
}

bool SlurmArray::is_started_again(int element, std::int64_t ticket) const {
  std::error_code missing;
  return fs::exists(file("again", element, ticket), missing);
}

std::optional<int> SlurmArray::exit_status(int element, std::int64_t ticket) const {
  const fs::path left = file("exit", element, ticket);
  std::error_code missing;
  if (!fs::exists(left, missing)) return std::nullopt;
  const std::string text = read_file(left);
  int status = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), status);
  return parsed.ec == std::errc() ? status : -1;
}

void SlurmArray::write_queue(const std::map<int, SlurmElement>& elements) const {
  json list = json::object();
  for (const auto& [element, seen] : elements) {
    list[std::to_string(element)] = {{"state", seen.state}, {"reason", seen.reason}};
  }
  write_file_atomic(folder_ / "queue.json", json{{"job", job_}, {"elements", list}}.dump());
}

void SlurmArray::remove() const {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::optional<SlurmElement> read_queue(const fs::path& out, const std::string& name, int element) {
  const json queue = read_json(slurm_folder(out) / name / "queue.json");
  if (!queue.is_object() || !queue.contains("elements")) return std::nullopt;
  const json seen = queue["elements"].value(std::to_string(element), json());
  if (!seen.is_object()) return std::nullopt;
  return SlurmElement{cat(queue.value("job", ""), "_", element), seen.value("state", ""),
                      seen.value("reason", "")};
}

}  // namespace ablate
