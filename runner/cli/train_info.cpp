#include "runner/cli/train_info.h"

#include "runner/core/error.h"
#include "runner/core/process.h"

namespace ablate {
namespace {

constexpr double kDescribeSeconds = 60;

}  // namespace

nlohmann::json describe_train_program(const Workspace& workspace) {
  ProcessOptions options;
  options.arguments = {workspace.require_train_program().string(), "describe"};
  options.die_with_parent = true;
  const CapturedRun answer = run_and_capture(options, {}, kDescribeSeconds);
  if (answer.timed_out || !answer.status.success()) {
    throw Error(cat(options.arguments[0],
                    " describe: ", answer.timed_out ? "no answer in a minute" : answer.status.str(),
                    "\n", answer.errors));
  }
  nlohmann::json description = nlohmann::json::parse(answer.output, nullptr, false);
  if (!description.is_object()) {
    throw Error(cat(options.arguments[0], " describe: the answer is no JSON object"));
  }
  return description;
}

}  // namespace ablate
