#include "sweeps/slurm_agent.h"

#include <algorithm>
#include <utility>

#include "runner/core/text.h"

namespace ablate {
namespace {

constexpr std::size_t kUsualMost = 1000;  // elements of an array

}  // namespace

SlurmAgent::SlurmAgent(std::filesystem::path folder, Options options)
    : folder_(std::move(folder)), options_(std::move(options)) {
  for (SlurmArray& array : SlurmArray::load(folder_)) {
    auto entry = std::make_unique<Entry>(Entry{std::move(array), {}});
    entry->elements.resize(entry->array.runs().size());
    entry->doubt = entry->array.job().empty();
    entries_.push_back(std::move(entry));
  }
  thread_ = std::thread([this] { work(); });
}

SlurmAgent::~SlurmAgent() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  wake_.notify_all();
  thread_.join();
  cancel_unused();
}

SlurmAgent::Entry* SlurmAgent::find(const std::string& name) {
  for (const auto& entry : entries_) {
    if (entry->array.name() == name) return entry.get();
  }
  return nullptr;
}

SlurmAgent::Entry& SlurmAgent::make(std::vector<std::string> runs) {
  auto entry = std::make_unique<Entry>(
      Entry{SlurmArray::create(folder_, std::move(runs), options_.submission), {}});
  entry->elements.resize(entry->array.runs().size());
  entry->ours = true;
  entries_.push_back(std::move(entry));
  return *entries_.back();
}

void SlurmAgent::expect(const std::vector<std::string>& runs) {
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(entry->array.name());
  std::map<std::string, std::map<int, SlurmElement>> known;
  bool silent = false;
  try {
    if (!names.empty()) known = client_.list(names);
  } catch (const SlurmSilent&) {
    silent = true;
  }
  const std::lock_guard lock(mutex_);
  expected_ = runs;
  // An array of a predecessor serves on where it asked for the same and is still known.
  for (const auto& entry : entries_) {
    const auto& list = entry->array.runs();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const bool there = silent || known[entry->array.name()].contains(static_cast<int>(i));
      if (std::find(runs.begin(), runs.end(), list[i]) == runs.end()) continue;
      entry->ours = true;
      entry->elements[i].lost =
          !entry->elements[i].live && (!there || entry->array.options() != options_.submission);
    }
  }
}

/// The element of an array that still serves a run; -1: none.
int SlurmAgent::element_of(const Entry& entry, const std::string& run) {
  const auto& runs = entry.array.runs();
  const auto at = std::find(runs.begin(), runs.end(), run) - runs.begin();
  const bool there = entry.ours && at < std::ssize(runs);
  return there && !entry.elements[static_cast<std::size_t>(at)].lost ? static_cast<int>(at) : -1;
}

SlurmAgent::Entry* SlurmAgent::serving(const std::string& run) {
  for (const auto& entry : entries_) {
    if (element_of(*entry, run) >= 0) return entry.get();
  }
  return nullptr;
}

/// One array for all runs that have none, which at the first start is the whole sweep.
SlurmAgent::Entry& SlurmAgent::make_for(const std::string& run) {
  std::size_t most = kUsualMost;
  try {
    most = static_cast<std::size_t>(client_.most_elements());
  } catch (const SlurmSilent&) {
    // The submission will be waited for, too.
  }
  std::vector<std::string> runs = {run};
  for (const std::string& other : expected_) {
    if (other != run && runs.size() < most && serving(other) == nullptr) runs.push_back(other);
  }
  return make(std::move(runs));
}

SlurmAgent::Seat SlurmAgent::send(const std::string& run, const SlurmTicket& ticket) {
  const std::lock_guard lock(mutex_);
  Entry* entry = serving(run);
  if (entry == nullptr) entry = &make_for(run);
  const int at = element_of(*entry, run);
  Element& element = entry->elements[static_cast<std::size_t>(at)];
  const SlurmElement seen = element.seen;
  element = {.ticket = ticket.number, .live = true, .seen = seen};
  entry->array.write_ticket(at, ticket);
  try {
    if (entry->array.job().empty() && !entry->doubt) submit(*entry);
  } catch (const Error&) {
    give_up(*entry);
    throw;
  }
  due_ = true;
  wake_.notify_all();
  return {entry->array.name(), at, ticket.number};
}

/// Under the lock, which keeps the thread from submitting it, too.
void SlurmAgent::submit(Entry& entry) {
  try {
    entry.array.set_job(client_.submit(entry.array.submission(options_.at_a_time, options_.grace)));
    entry.doubt = false;
    note(cat("array    ", entry.array.job(), " of ", entry.array.runs().size(), " runs, at most ",
             options_.at_a_time, " at a time (", entry.array.name(), ")"));
  } catch (const SlurmSilent&) {
    entry.doubt = true;
  }
}

/// An array that Slurm does not take.
void SlurmAgent::give_up(Entry& entry) {
  entry.doubt = false;
  for (Element& element : entry.elements) {
    element.lost = element.ended = element.judged = true;
    element.live = false;
  }
}

bool SlurmAgent::take_up(const Seat& seat) {
  const std::lock_guard lock(mutex_);
  Entry* entry = find(seat.array);
  if (entry == nullptr || seat.element < 0 || seat.element >= std::ssize(entry->elements)) {
    return false;
  }
  if (entry->array.exit_status(seat.element, seat.ticket)) return false;
  entry->ours = true;
  entry->elements[static_cast<std::size_t>(seat.element)] = {.ticket = seat.ticket, .live = true};
  due_ = true;
  wake_.notify_all();
  return true;
}

SlurmAgent::View SlurmAgent::look(const Seat& seat) {
  const std::lock_guard lock(mutex_);
  Entry& entry = *find(seat.array);
  const Element& element = entry.elements[static_cast<std::size_t>(seat.element)];
  View view;
  view.started = entry.array.is_taken(seat.element, seat.ticket);
  view.code = entry.array.exit_status(seat.element, seat.ticket);
  if (!view.code && element.ended) view.code = -1;
  view.judged = element.judged || entry.array.is_started_again(seat.element, seat.ticket);
  view.withdrawn = element.withdrawn;
  view.suspended = element.seen.state == "SUSPENDED";
  return view;
}

void SlurmAgent::cancel(const Seat& seat) {
  const std::lock_guard lock(mutex_);
  find(seat.array)->elements[static_cast<std::size_t>(seat.element)].cancel = true;
  due_ = true;
  wake_.notify_all();
}

std::string SlurmAgent::name_of(const Seat& seat) {
  const std::lock_guard lock(mutex_);
  const Entry* entry = find(seat.array);
  return entry->array.job().empty() ? entry->array.name() : entry->array.element_id(seat.element);
}

void SlurmAgent::note(const std::string& text) { notes_.push_back(text); }

std::vector<std::string> SlurmAgent::take_notes() {
  const std::lock_guard lock(mutex_);
  return std::exchange(notes_, {});
}

}  // namespace ablate
