#include "datasets/store/convert.h"

#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "datasets/store/verify.h"
#include "runner/core/cpu_quota.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/core/stop.h"
#include "runner/worker/verb.h"

namespace ablate::worker::convert {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct ConvertWords {
  std::vector<fs::path> folders;
  bool verify = false, repair = false;
  std::string form = "verbatim", on_bad = "error", duplicates = "keep";
  int side = 0, quality = 90, threads = 0;
};

ConvertOptions options_of(const ConvertWords& words) {
  ConvertOptions options;
  options.form =
      PackForm::from_json({{"kind", words.form}, {"side", words.side}, {"quality", words.quality}});
  options.skip_bad = words.on_bad == "skip";
  options.duplicates = words.duplicates == "skip"    ? ConvertOptions::Duplicates::Skip
                       : words.duplicates == "error" ? ConvertOptions::Duplicates::Error
                                                     : ConvertOptions::Duplicates::Keep;
  options.threads = words.threads > 0 ? words.threads : usable_cpus();
  return options;
}

/// Lines on how far the pass is, more seldom as it goes on; and stops when asked to.
PassHooks hooks_of(StopSignal& stop) {
  using Clock = std::chrono::steady_clock;
  auto told = std::make_shared<Clock::time_point>(Clock::now());
  const auto progress = [told](const PassProgress& pass) {
    constexpr std::chrono::seconds kBetween{10};
    if (pass.done != pass.total && Clock::now() - *told < kBetween) return;
    *told = Clock::now();
    const auto total = std::max<std::int64_t>(pass.total, 1);
    log_info(cat(pass.part, ": ", pass.done, " of ", pass.total, " images (",
                 100 * pass.done / total, " %), ", static_cast<std::int64_t>(pass.images_per_s),
                 " images/s, ", human_duration(pass.seconds_left), " left"));
  };
  return {.progress = progress, .stop = [&stop] { return stop.requested(); }};
}

json report_json(const std::string& part, const ConvertReport& report) {
  json counts = json::object();
  for (const auto& [kind, names] : report.findings.kinds()) counts[kind] = names.size();
  return {{"part", part},
          {"source_samples", report.source_samples},
          {"samples", report.samples},
          {"bytes", report.bytes},
          {"counts", counts},
          {"findings", report.findings.json()}};
}

int interrupted(const StopSignal& stop) {
  std::cerr << "ablate-train: stopped (" << stop.reason() << "); the same command goes on\n";
  return static_cast<int>(ExitCode::Interrupted);
}

int convert(const ConvertWords& words, StopSignal& stop) {
  const StoredParts source = open_stored(words.folders[0]);
  const ConvertOptions options = options_of(words);
  json reports = json::array();
  for (const auto& [name, part] :
       {std::pair("train", &source.train), std::pair("val", &source.test)}) {
    const PackFiles files(words.folders[1], name);
    const ConvertReport report = convert_part(*part, files, options, hooks_of(stop));
    if (!report.finished) return interrupted(stop);
    report.findings.log(name);
    reports.push_back(report_json(name, report));
    log_info(cat(name, ": ", report.samples, " of ", report.source_samples, " images, ",
                 human_bytes(static_cast<double>(report.bytes))));
  }
  const StoredParts packed = open_pack(words.folders[1]);
  const Findings shared =
      shared_samples(packed.train.samples->index(), packed.test.samples->index());
  shared.log("train and val");
  std::cout << json{{"parts", reports}, {"shared", shared.json()}}.dump(
                   1, ' ', false, json::error_handler_t::replace)
            << std::endl;
  return static_cast<int>(ExitCode::Done);
}

json damage_json(const std::string& part, const VerifyReport& report) {
  return {{"part", part},
          {"samples", report.samples},
          {"damaged", report.damaged},
          {"header_damaged", report.header_damaged}};
}

void tell_damage(const std::string& part, const VerifyReport& report, std::string_view what) {
  if (report.sound()) {
    log_info(cat(part, ": ", report.samples, " images, all sound"));
  } else {
    log_warning(cat(part, ": ", report.damaged.size(), " of ", report.samples, " images ", what,
                    ": ", some_of(report.damaged),
                    report.header_damaged ? "; and the head of the file" : ""));
  }
}

/// Verifies, or repairs from a source, each part that there is.
int check(const ConvertWords& words, StopSignal& stop) {
  const fs::path& folder = words.folders.back();
  std::optional<StoredParts> source;
  if (words.repair) source = open_stored(words.folders[0]);
  const int threads = options_of(words).threads;
  json reports = json::array();
  bool sound = true;
  for (const std::string name : {"train", "val"}) {
    const PackFiles files(folder, name);
    VerifyReport report;
    if (source) {
      const StoredPart& part = name == "train" ? source->train : source->test;
      report = repair_part(*part.samples, files, threads, hooks_of(stop));
    } else {
      report = verify_part(files, threads, hooks_of(stop));
      sound = sound && report.sound();
    }
    tell_damage(name, report, source ? "were repaired" : "are damaged");
    reports.push_back(damage_json(name, report));
  }
  std::cout << json{{"parts", reports}}.dump(1) << std::endl;
  if (!sound)
    std::cerr << "ablate-train: `ablate-train convert --repair SOURCE " << folder.string()
              << "` makes them anew\n";
  return static_cast<int>(sound ? ExitCode::Done : ExitCode::Failed);
}

int run(const ConvertWords& words) {
  if (words.verify && words.repair) throw SpecError("--repair verifies too; give one of the two");
  const std::size_t expected = words.verify ? 1 : 2;
  if (words.folders.size() != expected) {
    throw SpecError(cat("expected ", words.verify ? "DEST" : "SOURCE DEST", ", got ",
                        words.folders.size(), " folders"));
  }
  const StopHandlers handlers;
  StopSignal stop;
  return words.verify || words.repair ? check(words, stop) : convert(words, stop);
}

void add_options(CLI::App& app, ConvertWords& words) {
  app.add_option("folders", words.folders,
                 "SOURCE (an image folder, tar shards or a packed set) and DEST")
      ->required()
      ->expected(1, 2);
  app.add_flag("--verify", words.verify, "Read every byte of DEST and compare checksums");
  app.add_flag("--repair", words.repair, "Make what is damaged in DEST anew from SOURCE");
  app.add_option("--as", words.form,
                 "verbatim: the bytes of the source; jpeg, raw: shrunk to --side and encoded, or "
                 "as RGB pixels")
      ->check(CLI::IsMember({"verbatim", "jpeg", "raw"}))
      ->capture_default_str();
  app.add_option("--side", words.side, "Shorter side of larger images (bicubic); 0: as they are")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--quality", words.quality, "Of JPEGs that are written")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--on-bad", words.on_bad, "What cannot be read or decoded: an error, or left out")
      ->check(CLI::IsMember({"error", "skip"}))
      ->capture_default_str();
  app.add_option("--duplicates", words.duplicates, "Images of equal bytes within a part")
      ->check(CLI::IsMember({"keep", "skip", "error"}))
      ->capture_default_str();
  app.add_option("--threads", words.threads, "0: as many as there are CPUs to run on")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

const Registry<Verb>::Add added{{
    .name = "convert",
    .summary = "A data set as one packed file a part; interrupted, the same command goes on",
    .examples = "  ablate-train convert imagenet packed\n"
                "  ablate-train convert imagenet packed256 --as jpeg --side 256\n"
                "  ablate-train convert --verify packed\n"
                "  ablate-train convert --repair imagenet packed\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto words = std::make_shared<ConvertWords>();
      add_options(app, *words);
      return [words] { return run(*words); };
    },
}};

}  // namespace
}  // namespace ablate::worker::convert
