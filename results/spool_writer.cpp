#include "results/spool_writer.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "results/spool_file.h"
#include "results/spool_frame.h"
#include "results/spool_ring.h"
#include "runner/core/error.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

// With a failed disk the writer holds this much before log() gives up.
constexpr std::size_t kMaxBacklog = 64U << 20;
// Points in one frame: what a torn or damaged frame costs at most.
constexpr std::size_t kFramePoints = 4096;

std::string make_uid() {
  std::random_device random;
  std::string uid;
  for (int i = 0; i < 4; ++i) {
    char word[9];
    std::snprintf(word, sizeof word, "%08x", static_cast<unsigned>(random()));
    uid += word;
  }
  return uid;
}

}  // namespace

class SpoolWriter::Impl {
 public:
  Impl(const std::filesystem::path& path, SpoolHeader header, SpoolOptions options);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  const SpoolHeader& header() const { return header_; }
  std::uint64_t stalls() const { return stalls_; }
  std::uint32_t define(MetricDef def);
  void push(const Point& point);
  void push(Record record);
  void flush();
  void close();

 private:
  void wake();
  void wait_for_space();
  void run();
  std::string service(bool sync);
  void append(const Record& record);
  void append_points();
  void stop();

  const SpoolHeader header_;
  const SpoolOptions options_;
  SpoolFile file_;
  SpoolRing ring_;

  std::mutex metrics_mutex_;
  std::map<std::string, MetricDef, std::less<>> metrics_;

  // Of the background thread alone.
  std::vector<Point> points_;
  std::uint32_t sequence_ = 0;
  std::uint64_t points_written_ = 0;

  std::mutex mutex_;  // never held during I/O
  std::condition_variable wake_cv_, done_cv_;
  bool wake_ = false;
  bool stop_ = false;
  std::uint64_t flush_wanted_ = 0, flush_done_ = 0;
  std::string error_;

  std::atomic<bool> wake_sent_{false};
  std::atomic<bool> hopeless_{false};  // the disk fails and the backlog is full
  std::atomic<std::uint64_t> stalls_{0};
  std::atomic<bool> closed_{false};
  std::thread thread_;
};

SpoolWriter::Impl::Impl(const std::filesystem::path& path, SpoolHeader header, SpoolOptions options)
    : header_(std::move(header)), options_(options), file_(path), ring_(options.ring_slots) {
  append(header_);
  if (const std::string error = file_.write_pending(); !error.empty()) throw TransientError(error);
  points_.reserve(ring_.slots());
  thread_ = std::thread([this] { run(); });
}

SpoolWriter::Impl::~Impl() {
  if (!closed_) stop();
  if (!error_.empty()) log_error(cat("spool left incomplete: ", error_));
}

std::uint32_t SpoolWriter::Impl::define(MetricDef def) {
  ABLATE_CHECK(def.per_rank || header_.rank == 0, "metric \"", def.name,
               "\" is reduced over ranks: rank 0 logs it, not rank ", header_.rank);
  const std::lock_guard lock(metrics_mutex_);
  if (const auto found = metrics_.find(def.name); found != metrics_.end()) {
    const MetricDef& known = found->second;
    ABLATE_CHECK(known.unit == def.unit && known.better == def.better && known.kind == def.kind &&
                     known.final_rule == def.final_rule && known.per_rank == def.per_rank,
                 "metric \"", def.name, "\" is defined twice with different attributes");
    return known.id;
  }
  def.id = static_cast<std::uint32_t>(metrics_.size());
  push(Record(def));  // before the id is known to anybody, hence before any point of it
  metrics_.emplace(def.name, def);
  return def.id;
}

void SpoolWriter::Impl::push(const Point& point) {
  ABLATE_CHECK(!closed_, "logging into a closed spool");
  while (!ring_.try_push(point)) wait_for_space();
  if (ring_.size() * kPointBytes >= options_.batch_bytes) wake();
}

void SpoolWriter::Impl::push(Record record) {
  ABLATE_CHECK(!closed_, "logging into a closed spool");
  auto owned = std::make_unique<Record>(std::move(record));
  while (!ring_.try_push(owned)) wait_for_space();
}

void SpoolWriter::Impl::wake() {
  if (wake_sent_.load(std::memory_order_relaxed) || wake_sent_.exchange(true)) return;
  {
    const std::lock_guard lock(mutex_);
    wake_ = true;
  }
  wake_cv_.notify_one();
}

void SpoolWriter::Impl::wait_for_space() {
  ++stalls_;
  wake();
  if (hopeless_) {
    const std::lock_guard lock(mutex_);
    throw TransientError(cat(error_, "; no memory is left for more records"));
  }
  std::this_thread::sleep_for(std::chrono::microseconds(100));
}

void SpoolWriter::Impl::run() {
  auto last_sync = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_cv_.wait_for(lock, options_.period,
                      [this] { return wake_ || stop_ || flush_wanted_ != flush_done_; });
    wake_ = false;
    const std::uint64_t ticket = flush_wanted_;
    const bool stopping = stop_;
    const auto now = std::chrono::steady_clock::now();
    const bool sync = stopping || ticket != flush_done_ || now - last_sync > options_.sync_period;
    lock.unlock();
    wake_sent_ = false;
    std::string error = service(sync);
    if (sync) last_sync = now;
    lock.lock();
    error_ = std::move(error);
    flush_done_ = ticket;
    done_cv_.notify_all();
    if (stopping) return;
  }
}

// One drain takes everything that was pushed before the call, which is what flush() promises.
std::string SpoolWriter::Impl::service(bool sync) {
  if (file_.backlog() < kMaxBacklog) {
    ring_.drain(
        ring_.slots(), points_, [this] { append_points(); },
        [this](std::unique_ptr<Record> record) { append(*record); });
  }
  std::string error = file_.write_pending();
  hopeless_ = file_.backlog() >= kMaxBacklog;
  if (error.empty() && sync) error = file_.sync();
  return error;
}

void SpoolWriter::Impl::append(const Record& record) {
  if (std::holds_alternative<Seal>(record)) {
    append_frame(file_.pending(), sequence_++, encode(Seal{points_written_}));
    return;
  }
  append_frame(file_.pending(), sequence_++, encode(record));
}

void SpoolWriter::Impl::append_points() {
  for (std::size_t i = 0; i < points_.size(); i += kFramePoints) {
    const auto begin = points_.begin() + static_cast<std::ptrdiff_t>(i);
    const auto n = static_cast<std::ptrdiff_t>(std::min(kFramePoints, points_.size() - i));
    append_frame(file_.pending(), sequence_++, encode(Points{{begin, begin + n}}));
  }
  points_written_ += points_.size();
  points_.clear();
}

void SpoolWriter::Impl::flush() {
  ABLATE_CHECK(!closed_, "flushing a closed spool");
  std::unique_lock lock(mutex_);
  const std::uint64_t ticket = ++flush_wanted_;
  wake_cv_.notify_one();
  done_cv_.wait(lock, [&] { return flush_done_ >= ticket; });
  if (!error_.empty()) throw TransientError(error_);
}

void SpoolWriter::Impl::stop() {
  closed_ = true;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_cv_.notify_one();
  thread_.join();
}

void SpoolWriter::Impl::close() {
  if (closed_) return;
  push(Record(Seal{}));
  stop();
  if (error_.empty()) return;
  throw TransientError(std::exchange(error_, {}));
}

SpoolWriter::SpoolWriter(const std::filesystem::path& path, SpoolHeader header,
                         SpoolOptions options) {
  if (header.spool_uid.empty()) header.spool_uid = make_uid();
  if (header.start_us == 0) header.start_us = now_us();
  impl_ = std::make_unique<Impl>(path, std::move(header), options);
}
SpoolWriter::~SpoolWriter() = default;

const SpoolHeader& SpoolWriter::header() const { return impl_->header(); }

std::uint32_t SpoolWriter::metric(const std::string& name, const std::string& unit, Better better,
                                  MetricKind kind, FinalRule final_rule, bool per_rank) {
  return impl_->define({0, name, unit, better, kind, final_rule, per_rank});
}

void SpoolWriter::log(std::uint32_t metric, std::int64_t step, double value) {
  impl_->push(Point{metric, step, value});
}
void SpoolWriter::event(std::int64_t step, std::string kind, std::string body) {
  impl_->push(Record(Event{step, now_us(), std::move(kind), std::move(body)}));
}
void SpoolWriter::bits(SampleBits bits) {
  ABLATE_CHECK(bits.bits.size() == static_cast<std::size_t>((bits.n + 7) / 8),
               "bytes do not match the number of items");
  impl_->push(Record(std::move(bits)));
}
void SpoolWriter::facts(FactKind kind, std::string json) {
  impl_->push(Record(Facts{kind, std::move(json)}));
}
void SpoolWriter::checkpoint(CheckpointNote note) { impl_->push(Record(std::move(note))); }
void SpoolWriter::bench(BenchNote note) { impl_->push(Record(std::move(note))); }
void SpoolWriter::final_value(std::uint32_t metric, std::int64_t step, double value) {
  impl_->push(Record(FinalValue{metric, step, value}));
}
void SpoolWriter::outcome(Outcome outcome) {
  ABLATE_CHECK(is_known_cause(outcome.cause), "unknown cause \"", outcome.cause, "\"");
  if (outcome.end_us == 0) outcome.end_us = now_us();
  impl_->push(Record(std::move(outcome)));
}

void SpoolWriter::flush() { impl_->flush(); }
void SpoolWriter::close() { impl_->close(); }
std::uint64_t SpoolWriter::stalls() const { return impl_->stalls(); }

}  // namespace ablate
