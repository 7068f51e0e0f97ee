#include "runner/train/gemm_record.h"

#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// What the file holds; empty when it is missing, damaged or of another platform.
kernels::GemmChoices read_choices(const fs::path& file, const std::string& platform) {
  if (!fs::exists(file)) return {};
  try {
    const json content = json::parse(read_file(file));
    if (content.at("platform") != platform) return {};
    return content.at("choices").get<kernels::GemmChoices>();
  } catch (const std::exception& error) {
    log_warning(cat(file.string(), " is not readable and will be replaced: ", error.what()));
    return {};
  }
}

}  // namespace

GemmRecord::GemmRecord(const fs::path& out, const std::string& platform, Communicator& world)
    : file_(out / "gemm" / (sha256_hex(std::string_view(platform)).substr(0, 16) + ".json")),
      platform_(platform),
      world_(world) {
  json known = json::object();
  if (world.rank() == 0) known = read_choices(file_, platform_);
  choices_ = json::parse(world.broadcast(known.dump())).get<kernels::GemmChoices>();
}

const kernels::GemmChoices& GemmRecord::settle(const kernels::GemmChoices& found) {
  if (world_.rank() == 0) {
    // Other runs may have settled a shape since; the file's word counts before one's own finding.
    choices_.merge(read_choices(file_, platform_));
    const std::size_t recorded = choices_.size();
    choices_.insert(found.begin(), found.end());
    if (choices_.size() > recorded) {
      make_directories(file_.parent_path());
      write_file_atomic(file_, save().dump(1));
    }
  }
  choices_ = json::parse(world_.broadcast(json(choices_).dump())).get<kernels::GemmChoices>();
  return choices_;
}

json GemmRecord::save() const { return {{"platform", platform_}, {"choices", choices_}}; }

void GemmRecord::load(const json& saved) {
  const auto platform = saved.at("platform").get<std::string>();
  if (platform != platform_) {
    log_warning(cat("the checkpoint was written on ", platform, ", this is ", platform_,
                    ": the run goes on, equal within rounding"));
    return;
  }
  auto choices = saved.at("choices").get<kernels::GemmChoices>();
  choices.merge(choices_);
  choices_ = std::move(choices);
}

}  // namespace ablate
