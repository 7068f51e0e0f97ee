#include "datasets/store/convert.h"

#include <optional>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "datasets/store/ordered_work.h"
#include "datasets/store/pack_writer.h"
#include "datasets/store/pass_clock.h"
#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/lease.h"

namespace ablate {
namespace {

using nlohmann::json;
using Duplicates = ConvertOptions::Duplicates;

constexpr std::string_view kDuplicate = "same content twice";
constexpr std::string_view kDuplicateOtherClass = "same content twice, in two classes";

/// What the files are a function of. Not the policy for bad samples: who changes it does not begin
/// anew.
std::string key_of(const StoredDataset& source, const ConvertOptions& options) {
  return hash128_hex(cat("pack 1\n", source.fingerprint(), "\n", options.form.json().dump(), "\n",
                         options.duplicates == Duplicates::Skip ? "once" : "as often as it comes"));
}

/// Refuses at once what is known not to fit: samples of which some may be there already.
void check_space(const StoredDataset& source, const PackFiles& files) {
  std::uint64_t needed = 0;
  for (std::int64_t i = 0; i < source.size(); ++i) {
    needed += source.index().entry(i).length + kSampleAlignment / 2;
  }
  std::error_code none;
  const std::uintmax_t written = std::filesystem::file_size(files.samples(), none);
  if (!none) needed -= std::min<std::uint64_t>(needed, written);
  const std::uint64_t free = free_bytes(files.folder());
  if (needed <= free) return;
  throw TransientError(cat(files.folder().string(), ": ", human_bytes(static_cast<double>(needed)),
                           " are needed, ", human_bytes(static_cast<double>(free)),
                           " are free; make room, choose another folder, or shrink by --side"));
}

/// Decides what becomes of each prepared sample, in order.
class PartConverter {
 public:
  PartConverter(const StoredDataset& source, const ConvertOptions& options, PackWriter& writer)
      : source_(source), options_(options), writer_(writer) {
    const auto& entries = writer.index().entries();
    for (std::size_t i = 0; i < entries.size(); ++i) first_with_.emplace(entries[i].origin, i);
  }

  void take(std::int64_t number, const PreparedSample& sample) {
    writer_.add(sample.findings);
    if (!sample.bad && !is_dropped_duplicate(number, sample)) {
      first_with_.emplace(sample.entry.origin, writer_.index().entries().size());
      writer_.add(sample.entry, source_.index().name(number), sample.bytes);
    }
    writer_.advance();
  }

 private:
  bool is_dropped_duplicate(std::int64_t number, const PreparedSample& sample) {
    const auto first = first_with_.find(sample.entry.origin);
    if (first == first_with_.end()) return false;
    const bool other = writer_.index().entries()[first->second].label != sample.entry.label;
    Findings found;
    found.add(other ? kDuplicateOtherClass : kDuplicate, std::string(source_.index().name(number)));
    writer_.add(found);
    return options_.duplicates == Duplicates::Skip;
  }

  const StoredDataset& source_;
  const ConvertOptions& options_;
  PackWriter& writer_;
  std::unordered_map<std::uint64_t, std::size_t> first_with_;  // origin -> place
};

/// Throws when what was found is not acceptable.
void apply(const ConvertOptions& options, const Findings& findings, const PackFiles& files) {
  std::vector<std::string> reasons;
  const auto refuse = [&](std::string_view kind) {
    if (findings.count(kind) > 0) reasons.push_back(findings.line(kind));
  };
  if (!options.skip_bad) {
    refuse(kUnreadable);
    refuse(kUndecodable);
  }
  const std::size_t bad = reasons.size();
  if (options.duplicates == Duplicates::Error) {
    refuse(kDuplicate);
    refuse(kDuplicateOtherClass);
  }
  if (reasons.empty()) return;
  throw SpecError(cat(files.part(), ": ", join(reasons, "; "), "; ",
                      bad > 0 ? "repair the source, or leave them out by --on-bad skip"
                              : "accepted with --duplicates keep or skip"));
}

/// Side of the images when they are raw squares of one size, as sets that stay on a device are.
int common_side(const IndexBuilder& index) {
  if (index.size() == 0) return 0;
  const std::uint32_t side = index.entries().front().width;
  for (const SampleEntry& entry : index.entries()) {
    if (entry.width != side || entry.height != side) return 0;
  }
  return static_cast<int>(side);
}

/// The classes that have lost all their samples, or had none.
Findings empty_classes(const IndexBuilder& index, const std::vector<std::string>& classes) {
  IndexBuilder view = index;
  view.head.classes = classes;
  Findings findings;
  note_empty_classes(view, findings);
  return findings;
}

json facts_of(const StoredDataset& source, const ConvertOptions& options, const PackFiles& files,
              const PackWriter& writer, const Findings& findings) {
  return {{"part", files.part()},
          {"form", options.form.json()},
          {"source", source.fingerprint()},
          {"source_samples", source.size()},
          {"image_size", common_side(writer.index())},
          {"findings", findings.json()}};
}

ConvertReport report_of(const StoredDataset& pack, const PackFiles& files) {
  const json& facts = pack.index().head().facts;
  return {.source_samples = facts.at("source_samples").get<std::int64_t>(),
          .samples = pack.size(),
          .bytes = std::filesystem::file_size(files.samples()),
          .findings = Findings::from_json(facts.at("findings")),
          .finished = true};
}

/// What an earlier call finished; nothing when there is no index.
std::optional<ConvertReport> finished_before(const PackFiles& files, const std::string& key) {
  if (!std::filesystem::exists(files.index())) return std::nullopt;
  const auto pack = open_pack_part(files);
  if (pack->index().head().key != key) {
    throw SpecError(
        cat(files.index().string(), ": made from another source or in another form; remove ",
            files.folder().string(), "/", files.part(), ".*, or choose another folder"));
  }
  std::filesystem::remove(files.journal());  // of a call that ended between the two
  return report_of(*pack, files);
}

}  // namespace

ConvertReport convert_part(const StoredPart& part, const PackFiles& files,
                           const ConvertOptions& options, const PassHooks& hooks) {
  const StoredDataset& source = *part.samples;
  const std::string key = key_of(source, options);
  if (auto report = finished_before(files, key)) return *report;
  const Lease lease = Lease::take(files.lease(), files.samples().string());
  if (auto report = finished_before(files, key)) return *report;  // by who had the lease
  if (options.form.kind == PackForm::Kind::Verbatim) check_space(source, files);
  PackWriter writer(files, key);
  PartConverter converter(source, options, writer);
  PassClock clock(hooks, files.part(), writer.done(), source.size());
  in_order(
      writer.done(), source.size(), options.threads,
      [&](std::int64_t number) { return prepare_sample(source, number, options.form); },
      [&](const PreparedSample& sample) {
        converter.take(writer.done(), sample);
        return clock.tick(writer.done());
      });
  writer.flush();
  Findings findings = part.findings;
  findings.add(writer.findings());
  ConvertReport report{.source_samples = source.size(),
                       .samples = writer.index().size(),
                       .bytes = writer.bytes(),
                       .findings = findings,
                       .finished = writer.done() == source.size()};
  if (!report.finished) return report;
  apply(options, findings, files);
  if (report.samples == 0) throw SpecError(cat(files.part(), ": no sample is left"));
  const auto& classes = source.index().head().classes;
  if (findings.count(kEmptyClass) == 0) findings.add(empty_classes(writer.index(), classes));
  writer.finish(facts_of(source, options, files, writer, findings), classes);
  report.findings = findings;
  return report;
}

Findings shared_samples(const SampleIndex& train, const SampleIndex& test) {
  std::unordered_map<std::uint64_t, std::int64_t> in_train;
  for (std::int64_t i = 0; i < train.size(); ++i) in_train.emplace(train.entry(i).origin, i);
  Findings findings;
  for (std::int64_t i = 0; i < test.size(); ++i) {
    const auto found = in_train.find(test.entry(i).origin);
    if (found == in_train.end()) continue;
    findings.add("same content in training and test",
                 cat(test.name(i), " = ", train.name(found->second)));
  }
  return findings;
}

}  // namespace ablate
