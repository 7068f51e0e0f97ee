#include "sweeps/packs.h"

#include <algorithm>
#include <map>
#include <memory>

namespace ablate {
namespace {

using Clock = Pack::Clock;

constexpr double kMebibyte = 1 << 20;
/// Attempts without progress after which a run is tried alone: another of the process may be at
/// fault.
constexpr int kTriesInCompany = 2;

double images_seen(const std::vector<ScheduleEntry*>& members) {
  double images = 0;
  for (const ScheduleEntry* member : members) {
    images += static_cast<double>(member->live->progress().step * member->run->global_batch);
  }
  return images;
}

/// The live runs of every pack.
std::map<Pack*, std::vector<ScheduleEntry*>> live_packs(std::vector<ScheduleEntry>& entries) {
  std::map<Pack*, std::vector<ScheduleEntry*>> packs;
  for (ScheduleEntry& entry : entries) {
    if (entry.live && entry.pack) packs[entry.pack.get()].push_back(&entry);
  }
  return packs;
}

}  // namespace

std::vector<ScheduleEntry*> Packs::next(std::vector<ScheduleEntry>& entries) const {
  std::vector<ScheduleEntry*> pack;
  std::size_t most = 1;
  for (ScheduleEntry& entry : entries) {
    if (pack.size() == most) break;
    if (!is_ready(entries, entry)) continue;
    const bool alone = entry.tries >= kTriesInCompany;
    if (pack.empty()) {
      most = alone ? 1 : static_cast<std::size_t>(sizes_.next(entry.run->shape));
    } else if (alone || entry.run->shape != pack[0]->run->shape) {
      continue;
    }
    pack.push_back(&entry);
  }
  return pack;
}

void Packs::began(const std::vector<ScheduleEntry*>& runs, std::uint64_t gpu_bytes) {
  const auto pack = std::make_shared<Pack>();
  pack->shape = runs[0]->run->shape;
  pack->runs = static_cast<int>(runs.size());
  pack->gpu_bytes = gpu_bytes;
  pack->trial = sizes_.is_trial(pack->shape, pack->runs);
  for (ScheduleEntry* entry : runs) entry->pack = pack;
}

void Packs::follow(std::vector<ScheduleEntry>& entries) {
  for (const auto& [pack, members] : live_packs(entries)) {
    if (!pack->trial || std::ssize(members) != pack->runs) continue;
    measure(*pack, members);
    if (pack->trial || sizes_.next(pack->shape) <= pack->runs) continue;
    const bool others =
        std::any_of(entries.begin(), entries.end(), [&](const ScheduleEntry& entry) {
          return is_ready(entries, entry) && entry.run->shape == pack->shape;
        });
    if (!others) continue;
    for (ScheduleEntry* member : members) {
      member->regrouped = true;
      member->live->ask_to_stop();
    }
  }
}

void Packs::measure(Pack& pack, const std::vector<ScheduleEntry*>& members) {
  const auto now = Clock::now();
  if (!pack.at_work_since) {
    const bool all = std::all_of(members.begin(), members.end(), [](const ScheduleEntry* member) {
      return member->live->progress().step_s.has_value();
    });
    if (all) pack.at_work_since = now;
    return;
  }
  if (!pack.measured_since) {
    if (now - *pack.at_work_since < std::chrono::duration<double>(times_.warm_up_s)) return;
    pack.measured_since = now;
    pack.images_before = images_seen(members);
    return;
  }
  const std::chrono::duration<double> took = now - *pack.measured_since;
  if (took.count() < times_.measured_s) return;
  pack.trial = false;
  sizes_.measured(pack.shape, pack.runs,
                  (images_seen(members) - pack.images_before) / took.count());
  double mebibytes = 0;
  for (const ScheduleEntry* member : members) {
    mebibytes = std::max(mebibytes, member->live->progress().device_mib.value_or(0));
  }
  sizes_.took_memory(pack.shape, pack.runs, mebibytes * kMebibyte,
                     static_cast<double>(pack.gpu_bytes));
}

void Packs::ended(const ScheduleEntry& entry, const Outcome& outcome) {
  if (!entry.pack) return;
  Pack& pack = *entry.pack;
  if (outcome.cause == "oom" && pack.runs > 1) sizes_.out_of_memory(pack.shape, pack.runs);
  // A run that is over before its pack could be measured: by the time of its steps.
  const auto step_s = entry.live->progress().step_s;
  if (pack.trial && outcome.state == OutcomeState::Done && step_s && *step_s > 0) {
    pack.trial = false;
    sizes_.measured(pack.shape, pack.runs,
                    pack.runs * static_cast<double>(entry.run->global_batch) / *step_s);
  }
}

}  // namespace ablate
