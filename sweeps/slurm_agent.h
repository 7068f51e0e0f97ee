#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "sweeps/slurm_array.h"

namespace ablate {

/// Brings the queue of a cluster in line with what the sweep wants, whatever happens on either
/// side: elements with a ticket that nobody has taken are released or put back into the queue,
/// those that are not wanted are cancelled, and those that ended without a word are told. A thread
/// compares both every now and then, and less often while the controller is silent. Nothing depends
/// on a command having been heard.
class SlurmAgent {
 public:
  struct Options {
    std::vector<std::string> submission;  ///< resources, for sbatch
    int at_a_time = 1;
    int grace = 120;
    double look_every = 10;  ///< seconds
    double settle = 2;       ///< seconds until files of another machine are seen for certain
  };
  /// An element with a ticket, of the array of this name.
  struct Seat {
    std::string array;
    int element = 0;
    std::int64_t ticket = 0;
  };
  struct View {
    bool started = false;     ///< a batch script works on the ticket
    std::optional<int> code;  ///< once it has ended: exit status of the ranks, -1: nobody knows
    bool suspended = false;   ///< another job has its processors for a while
    bool judged = false;      ///< the queue shows how the element ended
    bool withdrawn = false;   ///< it was cancelled, and not by us
  };

  /// Takes up the arrays that a predecessor left below `folder`.
  SlurmAgent(std::filesystem::path folder, Options options);
  /// Cancels the elements that nobody works on; the others go on.
  ~SlurmAgent();
  SlurmAgent(const SlurmAgent&) = delete;
  SlurmAgent& operator=(const SlurmAgent&) = delete;

  /// The runs that may be started: they become one array as soon as the first one is.
  void expect(const std::vector<std::string>& runs);
  /// Has the element of a run work on a ticket. Throws Error when Slurm refuses the array; silence
  /// is waited out.
  Seat send(const std::string& run, const SlurmTicket& ticket);
  /// Whether the seat is one of a predecessor's that is still to be followed.
  bool take_up(const Seat& seat);
  View look(const Seat& seat);
  void cancel(const Seat& seat);
  /// The job of a seat, for people: "123_4".
  std::string name_of(const Seat& seat);
  /// What happened between us and the controller, a line each.
  std::vector<std::string> take_notes();

 private:
  using Clock = std::chrono::steady_clock;
  struct Element {
    std::int64_t ticket = 0;  // 0: none
    bool live = false;        // somebody follows it
    bool going = false;       // released or put back for this ticket
    bool cancel = false;      // by us
    bool lost = false;        // the controller does not know it any more
    bool ended = false, judged = false, withdrawn = false;
    int starts = 0;  // that failed before the batch script began
    std::optional<Clock::time_point>
        silent_since{};  // ended for Slurm, but its files do not say so
    SlurmElement seen{};
  };
  struct Entry {
    SlurmArray array;
    std::vector<Element> elements;
    bool ours = false;   // made or taken up
    bool doubt = false;  // a submission was not answered
  };
  struct Wishes {
    std::vector<std::string> release, cancel;
    std::vector<std::pair<Entry*, int>> requeue;
  };

  Entry* find(const std::string& name);
  static int element_of(const Entry& entry, const std::string& run);
  Entry* serving(const std::string& run);
  Entry& make(std::vector<std::string> runs);
  Entry& make_for(const std::string& run);
  void submit(Entry& entry);
  void give_up(Entry& entry);
  void work();
  void look_around();
  Entry* take_in(const std::string& name, const std::map<int, SlurmElement>* found);
  void resubmit(Entry& entry, const std::map<int, SlurmElement>* found);
  bool any_live() const;
  bool settling() const;
  void judge(Entry& entry, int element, Wishes& wishes);
  bool has_place(const Entry& entry, int element, const Wishes& wishes) const;
  static void end(Element& element, bool withdrawn);
  void end_when_settled(Element& element, bool withdrawn);
  void carry_out(const Wishes& wishes);
  void requeue(Entry& entry, int element);
  void note(const std::string& text);
  static bool is_followed(const Entry& entry, int element);
  void cancel_unused();

  const std::filesystem::path folder_;
  const Options options_;
  const SlurmClient client_{};
  std::mutex mutex_;  // of all below; commands run without it
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::vector<std::string> expected_, notes_;
  bool due_ = false, over_ = false;
  double silence_ = 0;  // seconds until the next try; 0: the controller answers
  std::thread thread_;
};

}  // namespace ablate
