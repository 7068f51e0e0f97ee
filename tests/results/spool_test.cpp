#include <cmath>
#include <csignal>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "results/spool_frame.h"
#include "results/spool_reader.h"
#include "results/spool_writer.h"
#include "runner/core/error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::TempFolder;

void write_all(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

SpoolHeader header_of(const std::string& run, int attempt = 1, int rank = 0) {
  SpoolHeader header;
  header.run_uid = run;
  header.attempt = attempt;
  header.rank = rank;
  return header;
}

std::vector<Frame> frames_of(SpoolReader& reader) {
  std::vector<Frame> frames;
  while (auto frame = reader.next()) frames.push_back(std::move(*frame));
  return frames;
}

template <typename T>
T round_trip(const T& record) {
  std::string bytes;
  append_frame(bytes, 7, encode(record));
  Frame frame;
  EXPECT_TRUE(parse_frame(bytes, frame));
  EXPECT_EQ(frame.size, bytes.size());
  EXPECT_EQ(frame.sequence, 7U);
  return std::get<T>(frame.record);
}

// Frames with every kind of record, and the offset where each ends.
struct Sample {
  std::string bytes;
  std::vector<std::size_t> ends;
};
Sample sample_file() {
  Sample sample;
  std::uint32_t sequence = 0;
  const auto add = [&](const Record& record) {
    append_frame(sample.bytes, sequence++, encode(record));
    sample.ends.push_back(sample.bytes.size());
  };
  add(header_of("run"));
  add(MetricDef{0, "loss", "nat", Better::Lower});
  add(Points{{{0, 1, 0.5}, {0, 2, 0.25}}});
  add(Event{3, 4, "surgery", R"({"block": 3})"});
  add(SampleBits{"top1", 5, 12, "\xff\x0f"});
  add(Outcome{});
  add(Seal{2});
  return sample;
}

TEST(Record, EveryKindSurvivesAFrame) {
  const auto header = round_trip(SpoolHeader{"u", "r", 3, 2, 1, 1LL << 40, 5});
  EXPECT_EQ(header.spool_uid, "u");
  EXPECT_EQ(header.run_uid, "r");
  EXPECT_EQ(header.attempt, 3);
  EXPECT_EQ(header.rank, 2);
  EXPECT_EQ(header.first_step, 1LL << 40);
  EXPECT_EQ(header.start_us, 5);
  const auto metric = round_trip(
      MetricDef{4, "top1", "%", Better::Higher, MetricKind::Timing, FinalRule::MeanLastK, true});
  EXPECT_EQ(metric.name, "top1");
  EXPECT_EQ(metric.unit, "%");
  EXPECT_EQ(metric.better, Better::Higher);
  EXPECT_EQ(metric.kind, MetricKind::Timing);
  EXPECT_EQ(metric.final_rule, FinalRule::MeanLastK);
  EXPECT_TRUE(metric.per_rank);
  const auto points = round_trip(Points{{{1, -2, 0.1}, {9, 3, -INFINITY}, {2, 4, NAN}}});
  ASSERT_EQ(points.points.size(), 3U);
  EXPECT_EQ(points.points[0].step, -2);
  EXPECT_EQ(points.points[0].value, 0.1);
  EXPECT_EQ(points.points[1].value, -INFINITY);
  EXPECT_TRUE(std::isnan(points.points[2].value));
  const auto event = round_trip(Event{1, 2, "hang", "{\"a\": \"\xc3\xa9\"}"});
  EXPECT_EQ(event.body, "{\"a\": \"\xc3\xa9\"}");
  const auto bits = round_trip(SampleBits{"top5", 9, 9, std::string("\x00\x01", 2)});
  EXPECT_EQ(bits.bits, std::string("\x00\x01", 2));
  EXPECT_EQ(round_trip(Facts{FactKind::Data, "{}"}).kind, FactKind::Data);
  const auto note = round_trip(CheckpointNote{8, "c/8", 100, "ab", "cd", true});
  EXPECT_EQ(note.structure_hash, "cd");
  EXPECT_TRUE(note.deployable);
  EXPECT_EQ(round_trip(BenchNote{"{\"macs\":1}"}).json, "{\"macs\":1}");
  EXPECT_EQ(round_trip(FinalValue{3, 4, 5.5}).value, 5.5);
  const auto outcome = round_trip(Outcome{OutcomeState::Transient, "oom", "detail", 7, 8, 9, 4});
  EXPECT_EQ(outcome.state, OutcomeState::Transient);
  EXPECT_EQ(outcome.cause, "oom");
  EXPECT_EQ(outcome.images_seen, 8);
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_EQ(round_trip(Seal{11}).points, 11U);
}

TEST(Record, LayoutOfAFrameIsFixed) {
  std::string bytes;
  append_frame(bytes, 0x01020304, encode(Seal{5}));
  ASSERT_EQ(bytes.size(), 28U);
  EXPECT_EQ(bytes.substr(0, 4), "ABLF");
  EXPECT_EQ(bytes.substr(4, 4), std::string("\x08\0\0\0", 4));
  EXPECT_EQ(bytes.substr(8, 4), "\x04\x03\x02\x01");
  EXPECT_EQ(bytes.substr(12, 4), std::string("\x0b\0\0\0", 4));
  EXPECT_EQ(bytes.substr(16, 8), std::string("\x05\0\0\0\0\0\0\0", 8));
}

TEST(Record, AnyFlippedBitIsNoticed) {
  std::string bytes;
  append_frame(bytes, 1, encode(MetricDef{1, "loss"}));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    Frame frame;
    EXPECT_FALSE(parse_frame(damaged, frame)) << "bit " << bit;
  }
}

TEST(Record, UnknownTypesAreSkippable) {
  std::string bytes;
  append_frame(bytes, 1, Payload{999, "from the future"});
  Frame frame;
  ASSERT_TRUE(parse_frame(bytes, frame));
  EXPECT_EQ(std::get<UnknownRecord>(frame.record).type, 999);
}

TEST(SpoolReader, TornAtEveryByteLosesOnlyTheTornFrame) {
  const TempFolder folder;
  const Sample sample = sample_file();
  const auto path = folder / "torn.spool";
  for (std::size_t cut = 0; cut <= sample.bytes.size(); ++cut) {
    write_all(path, sample.bytes.substr(0, cut));
    SpoolReader reader(path);
    std::size_t whole = 0;
    while (whole < sample.ends.size() && sample.ends[whole] <= cut) ++whole;
    EXPECT_EQ(frames_of(reader).size(), whole) << "cut at " << cut;
    EXPECT_EQ(reader.offset(), whole == 0 ? 0 : sample.ends[whole - 1]);
    EXPECT_EQ(reader.tail_bytes(), cut - reader.offset());
    EXPECT_EQ(reader.lost_bytes(), 0U);
    EXPECT_EQ(is_sealed(path), cut == sample.bytes.size());
    EXPECT_EQ(read_spool_header(path).has_value(), whole > 0);
  }
}

TEST(SpoolReader, DamageInTheMiddleIsCountedAndStoppedAtOrSkipped) {
  const TempFolder folder;
  const Sample sample = sample_file();
  const auto path = folder / "damaged.spool";
  for (std::size_t byte = sample.ends[1]; byte < sample.ends[2]; ++byte) {
    std::string damaged = sample.bytes;
    damaged[byte] = static_cast<char>(damaged[byte] ^ 0x5a);
    write_all(path, damaged);
    SpoolReader skipping(path);
    EXPECT_EQ(frames_of(skipping).size(), sample.ends.size() - 1) << "byte " << byte;
    EXPECT_EQ(skipping.lost_bytes(), sample.ends[2] - sample.ends[1]);
    SpoolReader stopping(path, 0, SpoolReader::Gaps::Stop);
    EXPECT_EQ(frames_of(stopping).size(), 2U);
    EXPECT_TRUE(stopping.stopped_at_gap());
    EXPECT_EQ(stopping.offset(), sample.ends[1]);
  }
}

TEST(SpoolReader, FollowsAGrowingFileFromAnyFrame) {
  const TempFolder folder;
  const Sample sample = sample_file();
  const auto path = folder / "growing.spool";
  write_all(path, "");
  SpoolReader reader(path);
  std::size_t seen = 0;
  for (std::size_t size = 1; size <= sample.bytes.size(); ++size) {
    std::ofstream(path, std::ios::binary | std::ios::app) << sample.bytes[size - 1];
    seen += frames_of(reader).size();
    EXPECT_EQ(reader.offset(), seen == 0 ? 0 : sample.ends[seen - 1]);
  }
  EXPECT_EQ(seen, sample.ends.size());
  for (std::size_t i = 0; i < sample.ends.size(); ++i) {
    SpoolReader later(path, sample.ends[i]);
    EXPECT_EQ(frames_of(later).size(), sample.ends.size() - 1 - i);
    EXPECT_TRUE(checksum_before(path, sample.ends[i]).has_value());
  }
  EXPECT_FALSE(checksum_before(path, sample.bytes.size() + 1).has_value());
}

TEST(SpoolReader, MissingFileIsAClearError) {
  try {
    SpoolReader reader("/nonexistent/file.spool");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/file.spool"), std::string::npos);
  }
}

TEST(SpoolWriter, KeepsEverythingInOrder) {
  const TempFolder folder;
  const auto path = folder / "sub/a.spool";
  {
    SpoolWriter writer(path, header_of("run", 2));
    EXPECT_EQ(writer.header().spool_uid.size(), 32U);
    const auto loss = writer.metric("loss", "nat", Better::Lower);
    EXPECT_EQ(writer.metric("loss", "nat", Better::Lower), loss);
    const auto top1 = writer.metric("top1", "%", Better::Higher);
    EXPECT_NE(loss, top1);
    writer.log(loss, 1, 2.5);
    writer.log(top1, 1, 10);
    writer.event(1, "surgery", "{}");
    writer.log(loss, 2, 2.25);
    writer.bits({"top1", 2, 3, "\x05"});
    writer.checkpoint({2, "ckpt/2", 10, "sha", "structure", false});
    writer.final_value(top1, 2, 11);
    writer.outcome({});
    writer.close();
    writer.close();
  }
  EXPECT_TRUE(is_sealed(path));
  SpoolReader reader(path);
  const auto frames = frames_of(reader);
  std::vector<std::size_t> kinds;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    EXPECT_EQ(frames[i].sequence, i);
    kinds.push_back(frames[i].record.index());
  }
  // header, metric, metric, points, event, points, bits, checkpoint, final, outcome, seal; the
  // background thread may split runs of points into more frames.
  std::erase(kinds, Record(Points{}).index());
  EXPECT_EQ(kinds, (std::vector<std::size_t>{0, 1, 1, 3, 4, 6, 8, 9, 10}));
  EXPECT_EQ(std::get<Seal>(frames.back().record).points, 3U);
}

TEST(SpoolWriter, FlushMakesEverythingVisible) {
  const TempFolder folder;
  SpoolOptions slow;
  slow.period = std::chrono::hours(1);
  SpoolWriter writer(folder / "a.spool", header_of("run"), slow);
  const auto loss = writer.metric("loss");
  for (int step = 0; step < 10'000; ++step) writer.log(loss, step, step);
  writer.flush();
  SpoolReader reader(folder / "a.spool");
  std::size_t points = 0;
  for (const Frame& frame : frames_of(reader))
    if (const auto* some = std::get_if<Points>(&frame.record)) points += some->points.size();
  EXPECT_EQ(points, 10'000U);
  EXPECT_EQ(reader.tail_bytes(), 0U);
}

TEST(SpoolWriter, AFullRingMakesLogWaitAndLosesNothing) {
  const TempFolder folder;
  SpoolOptions tiny;
  tiny.ring_slots = 4;
  SpoolWriter writer(folder / "a.spool", header_of("run"), tiny);
  const auto loss = writer.metric("loss");
  const auto log_half = [&](int begin) {
    for (int step = begin; step < begin + 500; ++step) writer.log(loss, step, step);
  };
  std::thread other([&] { log_half(500); });
  log_half(0);
  other.join();
  writer.close();
  EXPECT_GT(writer.stalls(), 0U);
  SpoolReader reader(folder / "a.spool");
  std::vector<int> seen(1000);
  for (const Frame& frame : frames_of(reader))
    if (const auto* some = std::get_if<Points>(&frame.record))
      for (const Point& point : some->points) ++seen[static_cast<std::size_t>(point.value)];
  EXPECT_EQ(seen, std::vector<int>(1000, 1));
}

TEST(SpoolWriter, DestructionWithoutCloseLeavesNoSeal) {
  const TempFolder folder;
  {
    SpoolWriter writer(folder / "a.spool", header_of("run"));
    writer.log(writer.metric("loss"), 1, 1);
  }
  EXPECT_FALSE(is_sealed(folder / "a.spool"));
  SpoolReader reader(folder / "a.spool");
  EXPECT_EQ(frames_of(reader).size(), 3U);
}

TEST(SpoolWriter, RefusesMisuse) {
  const TempFolder folder;
  SpoolWriter writer(folder / "a.spool", header_of("run"));
  EXPECT_THROW(SpoolWriter(folder / "a.spool", header_of("run")), Error);
  writer.metric("loss", "nat");
  EXPECT_THROW(writer.metric("loss", "bit"), BugError);
  EXPECT_THROW(writer.outcome({OutcomeState::Done, "because"}), BugError);
  EXPECT_THROW(writer.bits({"top1", 1, 9, "\xff"}), BugError);
  writer.close();
  EXPECT_THROW(writer.log(0, 1, 1), BugError);
  SpoolWriter other(folder / "b.spool", header_of("run", 1, 1));
  EXPECT_THROW(other.metric("loss"), BugError);
  EXPECT_NO_THROW(other.metric("memory", "B", Better::Lower, MetricKind::Timing, FinalRule::Max,
                               /*per_rank=*/true));
}

TEST(SpoolWriter, UnwritableFolderIsAClearError) {
  try {
    SpoolWriter writer("/proc/nowhere/a.spool", header_of("run"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/proc/nowhere"), std::string::npos);
  }
}

// A file size limit stands for a full disk: write() fails in the same place with EFBIG.
TEST(SpoolWriter, AFailingDiskIsReportedAndNothingIsLostOnceItRecovers) {
  const TempFolder folder;
  const auto path = folder / "a.spool";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlimit before = limit;
    SpoolWriter writer(path, header_of("run"));
    const auto loss = writer.metric("loss");
    limit.rlim_cur = 2000;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    for (int step = 0; step < 1000; ++step) writer.log(loss, step, step);
    bool reported = false;
    try {
      writer.flush();
    } catch (const Error& error) {
      const std::string message = error.what();
      reported = message.find(path.string()) != std::string::npos &&
                 message.find("File too large") != std::string::npos;
    }
    ::setrlimit(RLIMIT_FSIZE, &before);
    writer.close();
    ::_exit(reported ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(is_sealed(path));
  SpoolReader reader(path);
  std::size_t points = 0;
  for (const Frame& frame : frames_of(reader))
    if (const auto* some = std::get_if<Points>(&frame.record)) points += some->points.size();
  EXPECT_EQ(points, 1000U);
  EXPECT_EQ(reader.lost_bytes(), 0U);
}

TEST(SpoolWriter, KilledInTheMiddleLeavesAReadablePrefix) {
  const TempFolder folder;
  const auto path = folder / "a.spool";
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    SpoolWriter writer(path, header_of("run"));
    const auto loss = writer.metric("loss");
    for (int step = 0; step < 1000; ++step) writer.log(loss, step, step);
    writer.flush();
    [[maybe_unused]] const auto told = ::write(ready[1], "x", 1);
    for (int step = 1000;; ++step) writer.log(loss, step, step);
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  SpoolReader reader(path);
  std::int64_t next = 0;
  for (const Frame& frame : frames_of(reader)) {
    const auto* some = std::get_if<Points>(&frame.record);
    if (some == nullptr) continue;
    for (const Point& point : some->points) ASSERT_EQ(point.step, next++);
  }
  EXPECT_GE(next, 1000);
  EXPECT_EQ(reader.lost_bytes(), 0U);
}

}  // namespace
}  // namespace ablate
