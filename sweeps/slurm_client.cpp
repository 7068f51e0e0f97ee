#include "sweeps/slurm_client.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "runner/core/process.h"

namespace ablate {
namespace {

constexpr double kCommandSeconds = 60;  // a controller that hangs is given up after this
constexpr int kUsualArraySize = 1001;

constexpr std::array<std::string_view, 5> kWaiting = {"PENDING", "REQUEUED", "REQUEUE_FED",
                                                      "REQUEUE_HOLD", "SPECIAL_EXIT"};
constexpr std::array<std::string_view, 10> kOver = {
    "COMPLETED", "CANCELLED", "FAILED",   "TIMEOUT", "NODE_FAIL",
    "PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED", "OUT_OF_MEMORY"};
/// What the commands say when they could not talk to the controller, in the versions since 20.
constexpr std::array<std::string_view, 8> kSilence = {"Unable to contact slurm controller",
                                                      "Socket timed out",
                                                      "Communication connection failure",
                                                      "Zero Bytes were transmitted",
                                                      "Connection refused",
                                                      "Connection timed out",
                                                      "Transport endpoint is not connected",
                                                      "Slurm temporarily unable to accept job"};

template <std::size_t kCount>
bool is_one_of(const std::array<std::string_view, kCount>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string answer_of(std::vector<std::string> arguments) {
  ProcessOptions options;
  options.arguments = std::move(arguments);
  options.die_with_parent = true;
  const CapturedRun answer = run_and_capture(options, {}, kCommandSeconds);
  if (answer.status.success()) return answer.output;
  const std::string what = cat(options.arguments[0], ": ", answer.errors, answer.output);
  if (answer.timed_out) throw SlurmSilent(cat(options.arguments[0], ": no answer"));
  for (const std::string_view words : kSilence) {
    if (what.find(words) != std::string::npos) throw SlurmSilent(what);
  }
  throw Error(what);
}

std::string without_newline(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

bool SlurmElement::is_waiting() const { return is_one_of(kWaiting, state); }

bool SlurmElement::is_over() const { return state.empty() || is_one_of(kOver, state); }

std::string SlurmClient::submit(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), {"sbatch", "--parsable"});
  const std::string answer = without_newline(answer_of(std::move(arguments)));
  return answer.substr(0, answer.find(';'));  // a cluster's name may follow
}

std::map<std::string, std::map<int, SlurmElement>> SlurmClient::list(
    const std::vector<std::string>& names) const {
  std::map<std::string, std::map<int, SlurmElement>> found;
  const std::string answer =
      answer_of({"squeue", "--noheader", "--array", "--states=all",
                 cat("--name=", join(names, ",")), "--format=%j|%F|%K|%T|%r"});
  for (const std::string& line : split(answer, '\n')) {
    const std::vector<std::string> fields = split(line, '|');
    if (fields.size() != 5 || fields[2].empty() || fields[2] == "N/A") continue;
    found[fields[0]][std::stoi(fields[2])] = {fields[1], fields[3], fields[4]};
  }
  return found;
}

void SlurmClient::release(const std::vector<std::string>& elements) const {
  answer_of({"scontrol", "release", join(elements, ",")});
}

void SlurmClient::requeue(const std::string& element) const {
  answer_of({"scontrol", "requeue", element});
}

void SlurmClient::cancel(const std::vector<std::string>& elements) const {
  std::vector<std::string> arguments = {"scancel"};
  arguments.insert(arguments.end(), elements.begin(), elements.end());
  answer_of(std::move(arguments));
}

int SlurmClient::most_elements() const {
  constexpr std::string_view kKey = "MaxArraySize";
  for (const std::string& line : split(answer_of({"scontrol", "show", "config"}), '\n')) {
    if (!line.starts_with(kKey)) continue;
    return std::max(2, std::stoi(line.substr(line.find('=') + 1))) - 1;
  }
  return kUsualArraySize - 1;
}

std::string SlurmClient::version() const {
  return without_newline(answer_of({"sbatch", "--version"}));
}

void SlurmClient::ping() const {
  try {
    answer_of({"scontrol", "ping"});
  } catch (const Error& error) {
    throw SlurmSilent(error.what());  // it says only that the controller is down
  }
}

}  // namespace ablate
