#include <algorithm>

#include "runner/core/text.h"
#include "sweeps/slurm_agent.h"

// The rounds of the agent's thread; what others ask of it is in slurm_agent.cpp.

namespace ablate {
namespace {

constexpr double kLongestSilence = 60;
/// Tickets that are sent one after the other are told to the controller together.
constexpr std::chrono::milliseconds kGather{200};

/// Times that a node may fail to start a job before that counts as the end of an attempt.
constexpr int kMostStarts = 5;

bool says(const SlurmElement& element, const char* words) {
  return element.reason.find(words) != std::string::npos;
}

/// Slurm itself put it back and holds it, since a node could not start it.
bool has_not_started(const SlurmElement& element) {
  return says(element, "equeued held") || says(element, "equeued_held");
}

bool is_held(const SlurmElement& element) {
  return says(element, "JobHeldUser") || has_not_started(element);
}

}  // namespace

bool SlurmAgent::any_live() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) {
    return std::any_of(entry->elements.begin(), entry->elements.end(),
                       [](const Element& element) { return element.live; });
  });
}

bool SlurmAgent::settling() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) {
    return std::any_of(entry->elements.begin(), entry->elements.end(), [](const Element& element) {
      return element.live && !element.judged && element.silent_since;
    });
  });
}

void SlurmAgent::work() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    const std::chrono::duration<double> pause(
        std::max(settling() ? std::min(options_.settle, options_.look_every) : options_.look_every,
                 silence_));
    // While the controller is silent, new wishes do not make it answer sooner.
    wake_.wait_for(lock, pause, [&] { return over_ || (due_ && silence_ == 0); });
    if (over_) return;
    wake_.wait_for(lock, kGather, [&] { return over_; });
    due_ = false;
    if (!any_live()) continue;
    lock.unlock();
    std::string problem;
    try {
      look_around();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    lock.lock();
    if (!problem.empty() && silence_ == 0) {
      note(cat("slurm    no answer; waited for, jobs go on: ", problem));
    }
    if (problem.empty() && silence_ > 0) note("slurm    the controller answers again");
    silence_ = problem.empty() ? 0 : std::min(kLongestSilence, std::max(1.0, 2 * silence_));
  }
}

/// An array whose submission was not answered: it may have been heard all the same.
void SlurmAgent::resubmit(Entry& entry, const std::map<int, SlurmElement>* found) {
  due_ = true;
  if (found != nullptr) {
    entry.array.set_job(found->begin()->second.job);
    entry.doubt = false;
    return;
  }
  try {
    submit(entry);
  } catch (const Error& error) {
    note(cat("slurm    ", error.what()));
    give_up(entry);  // and the next attempt at a run tells the reason
  }
}

/// One round: what is asked for against what there is.
void SlurmAgent::look_around() {
  std::vector<std::string> names;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      if (entry->ours) names.push_back(entry->array.name());
    }
  }
  const auto known = client_.list(names);
  Wishes wishes;
  {
    const std::lock_guard lock(mutex_);
    std::vector<Entry*> asked;
    for (const std::string& name : names) {
      const auto found = known.find(name);
      Entry* entry = take_in(name, found == known.end() ? nullptr : &found->second);
      if (entry != nullptr) asked.push_back(entry);
    }
    for (Entry* entry : asked) {
      for (int i = 0; i < std::ssize(entry->elements); ++i) judge(*entry, i, wishes);
    }
  }
  carry_out(wishes);
}

/// What the controller said about an array, if it is known to have it. Null: there is nothing to
/// judge yet.
SlurmAgent::Entry* SlurmAgent::take_in(const std::string& name,
                                       const std::map<int, SlurmElement>* found) {
  Entry* entry = find(name);
  if (entry == nullptr) return nullptr;
  if (entry->array.job().empty()) {
    if (entry->doubt) resubmit(*entry, found);
    return nullptr;
  }
  for (int i = 0; i < std::ssize(entry->elements); ++i) {
    SlurmElement& seen = entry->elements[static_cast<std::size_t>(i)].seen;
    const bool there = found != nullptr && found->contains(i);
    seen = there ? found->at(i) : SlurmElement();
  }
  if (found != nullptr) entry->array.write_queue(*found);
  return entry;
}

/// Slurm keeps to the number of jobs at a time within an array. While others are at work in another
/// one (for more runs than an array may have elements, or a predecessor's) only so many are let go.
bool SlurmAgent::has_place(const Entry& entry, int at, const Wishes& wishes) const {
  const auto at_work = [](const Element& element) {
    const bool held = element.seen.is_waiting() && is_held(element.seen);
    return !element.seen.is_over() && (element.going || !held);
  };
  std::ptrdiff_t here = 0, elsewhere = 0;
  for (const auto& other : entries_) {
    if (!other->ours) continue;
    std::ptrdiff_t& count = other.get() == &entry ? here : elsewhere;
    count += std::count_if(other->elements.begin(), other->elements.end(), at_work);
  }
  if (at_work(entry.elements[static_cast<std::size_t>(at)])) --here;
  for (const auto& wish : wishes.requeue) ++(wish.first == &entry ? here : elsewhere);
  return elsewhere == 0 || here + elsewhere < options_.at_a_time;
}

void SlurmAgent::judge(Entry& entry, int at, Wishes& wishes) {
  Element& element = entry.elements[static_cast<std::size_t>(at)];
  if (!element.live || element.judged) return;
  const SlurmElement& seen = element.seen;
  const std::string id = entry.array.element_id(at);
  const bool cancelled = seen.state == "CANCELLED";
  if (entry.array.exit_status(at, element.ticket)) {
    element.silent_since = Clock::now();  // to be looked at soon
    element.judged = seen.is_over() || seen.is_waiting();
    element.live = !element.judged;
    element.withdrawn = cancelled && !element.cancel;
    return;
  }
  if (entry.array.is_taken(at, element.ticket)) {
    if (element.cancel && !seen.is_over()) wishes.cancel.push_back(id);
    // Waiting again: its node failed, or a job with more right came.
    if (seen.is_over() || seen.is_waiting()) {
      end_when_settled(element, cancelled && !element.cancel);
    } else {
      element.silent_since.reset();
    }
  } else if (element.cancel) {
    if (seen.is_over()) {
      end(element, false);
    } else {
      wishes.cancel.push_back(id);
    }
  } else if (seen.is_waiting()) {
    if (!is_held(seen) || !has_place(entry, at, wishes)) return;
    if (element.going && has_not_started(seen) && ++element.starts == kMostStarts) {
      note(cat("slurm    ", id, " could not be started ", kMostStarts, " times: ", seen.reason));
      end(element, false);
      return;
    }
    wishes.release.push_back(id);
    element.going = true;
  } else if (seen.is_over() && element.going && cancelled) {
    end_when_settled(element, true);
  } else if (seen.is_over() && has_place(entry, at, wishes)) {
    wishes.requeue.emplace_back(&entry, at);
  }
}

/// The batch script has had no time to say how its ranks ended, or its files are still under way.
void SlurmAgent::end_when_settled(Element& element, bool withdrawn) {
  const auto now = Clock::now();
  if (!element.silent_since) element.silent_since = now;
  if (now - *element.silent_since < std::chrono::duration<double>(options_.settle)) return;
  end(element, withdrawn);
}

void SlurmAgent::end(Element& element, bool withdrawn) {
  element.ended = element.judged = true;
  element.live = false;
  element.withdrawn = withdrawn;
}

void SlurmAgent::carry_out(const Wishes& wishes) {
  if (!wishes.cancel.empty()) client_.cancel(wishes.cancel);
  try {
    if (!wishes.release.empty()) client_.release(wishes.release);
  } catch (const SlurmSilent&) {
    throw;
  } catch (const Error&) {
    // One that has started or ended meanwhile: the next round sees it.
  }
  for (const auto& [entry, element] : wishes.requeue) requeue(*entry, element);
}

void SlurmAgent::requeue(Entry& entry, int at) {
  std::string refusal;
  try {
    client_.requeue(entry.array.element_id(at));
  } catch (const SlurmSilent&) {
    throw;
  } catch (const Error& error) {
    refusal = error.what();
  }
  const std::lock_guard lock(mutex_);
  Element& element = entry.elements[static_cast<std::size_t>(at)];
  element.going = true;
  if (refusal.empty()) return;
  // The controller forgets jobs some minutes after their end: the run gets an element elsewhere.
  element.lost = element.ended = element.judged = true;
  element.live = false;
  note(cat("slurm    element ", entry.array.element_id(at), " cannot be put back: ", refusal));
}

/// Elements whose ranks have ended are nobody's any more, also when the queue has not told so yet.
bool SlurmAgent::is_followed(const Entry& entry, int at) {
  const Element& element = entry.elements.at(static_cast<std::size_t>(at));
  return element.live && !entry.array.exit_status(at, element.ticket);
}

void SlurmAgent::cancel_unused() {
  for (const auto& entry : entries_) {
    if (!entry->ours) continue;
    try {
      bool followed = false;
      std::vector<std::string> unused;
      auto known = client_.list({entry->array.name()});
      for (const auto& [at, seen] : known[entry->array.name()]) {
        if (entry->array.job().empty()) entry->array.set_job(seen.job);
        const bool leaving =
            entry->array.exit_status(at, entry->elements.at(static_cast<std::size_t>(at)).ticket)
                .has_value();
        followed = followed || is_followed(*entry, at);
        if (!is_followed(*entry, at) && !seen.is_over() && (seen.is_waiting() || !leaving)) {
          unused.push_back(entry->array.element_id(at));
        }
      }
      if (!unused.empty()) client_.cancel(unused);
      if (!followed) entry->array.remove();
    } catch (const std::exception&) {
      // Held elements cost nothing; the next start takes them up.
    }
  }
}

}  // namespace ablate
