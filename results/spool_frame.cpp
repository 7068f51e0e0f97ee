#include "results/spool_frame.h"

#include <bit>
#include <cstring>
#include <type_traits>

#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

static_assert(std::endian::native == std::endian::little,
              "frames are written by copying memory: a big-endian host needs byte swaps here");

// Numbers of record types in the file: never renumber, only append.
enum Type : std::uint16_t {
  kHeader = 1,
  kMetricDef = 2,
  kPoints = 3,
  kEvent = 4,
  kSampleBits = 5,
  kFacts = 6,
  kCheckpoint = 7,
  kBench = 8,
  kFinalValue = 9,
  kOutcome = 10,
  kSeal = 11,
};

class Writer {
 public:
  template <typename T>
  Writer& put(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& put(const std::string& text) {
    put(static_cast<std::uint32_t>(text.size()));
    out_ += text;
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

/// Takes fields off the front of a payload; `ok` turns false, and stays so, on running short.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  Fields& get(T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    if (!has(sizeof value)) return *this;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return *this;
  }
  Fields& get(bool& value) {
    std::uint8_t byte = 0;
    get(byte);
    value = byte != 0;
    return *this;
  }
  Fields& get(std::string& text) {
    std::uint32_t size = 0;
    get(size);
    if (!has(size)) return *this;
    text = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return *this;
  }
  /// An enumerator in [0, last].
  template <typename E>
  Fields& get_enum(E& value, E last) {
    get(value);
    ok_ = ok_ && value <= last;
    return *this;
  }
  std::string_view rest() const { return bytes_; }
  bool ok() const { return ok_; }

 private:
  bool has(std::size_t size) { return ok_ = ok_ && bytes_.size() >= size; }

  std::string_view bytes_;
  bool ok_ = true;
};

std::string encode_points(const std::vector<Point>& points) {
  std::string out(points.size() * kPointBytes, '\0');
  char* at = out.data();
  for (const Point& point : points) {
    std::memcpy(at, &point.metric, 4);
    std::memcpy(at + 4, &point.step, 8);
    std::memcpy(at + 12, &point.value, 8);
    at += kPointBytes;
  }
  return out;
}

bool decode_points(std::string_view bytes, std::vector<Point>& points) {
  if (bytes.size() % kPointBytes != 0) return false;
  points.resize(bytes.size() / kPointBytes);
  const char* at = bytes.data();
  for (Point& point : points) {
    std::memcpy(&point.metric, at, 4);
    std::memcpy(&point.step, at + 4, 8);
    std::memcpy(&point.value, at + 12, 8);
    at += kPointBytes;
  }
  return true;
}

struct Encoder {
  Payload operator()(const SpoolHeader& r) const {
    Writer w;
    w.put(std::uint16_t(r.schema_version)).put(r.spool_uid).put(r.run_uid);
    w.put(std::int32_t(r.attempt)).put(std::int32_t(r.rank)).put(r.first_step).put(r.start_us);
    return {kHeader, w.take()};
  }
  Payload operator()(const MetricDef& r) const {
    Writer w;
    w.put(r.id).put(r.name).put(r.unit).put(r.better).put(r.kind).put(r.final_rule);
    w.put(std::uint8_t(r.per_rank));
    return {kMetricDef, w.take()};
  }
  Payload operator()(const Points& r) const { return {kPoints, encode_points(r.points)}; }
  Payload operator()(const Event& r) const {
    return {kEvent, Writer().put(r.step).put(r.t_us).put(r.kind).put(r.body).take()};
  }
  Payload operator()(const SampleBits& r) const {
    return {kSampleBits, Writer().put(r.kind).put(r.step).put(r.n).put(r.bits).take()};
  }
  Payload operator()(const Facts& r) const {
    return {kFacts, Writer().put(r.kind).put(r.json).take()};
  }
  Payload operator()(const CheckpointNote& r) const {
    Writer w;
    w.put(r.step).put(r.path).put(r.bytes).put(r.manifest_sha256).put(r.structure_hash);
    w.put(std::uint8_t(r.deployable));
    return {kCheckpoint, w.take()};
  }
  Payload operator()(const BenchNote& r) const { return {kBench, Writer().put(r.json).take()}; }
  Payload operator()(const FinalValue& r) const {
    return {kFinalValue, Writer().put(r.metric).put(r.step).put(r.value).take()};
  }
  Payload operator()(const Outcome& r) const {
    Writer w;
    w.put(r.state).put(r.cause).put(r.detail).put(r.last_step).put(r.images_seen).put(r.end_us);
    w.put(std::int32_t(r.exit_code));
    return {kOutcome, w.take()};
  }
  Payload operator()(const Seal& r) const { return {kSeal, Writer().put(r.points).take()}; }
  Payload operator()(const UnknownRecord& r) const {
    check_failed("a record of known type", cat("type ", r.type));
  }
};

bool decode(Fields f, SpoolHeader& r) {
  std::uint16_t version = 0;
  std::int32_t attempt = 0;
  std::int32_t rank = 0;
  f.get(version).get(r.spool_uid).get(r.run_uid).get(attempt).get(rank);
  f.get(r.first_step).get(r.start_us);
  r.schema_version = version;
  r.attempt = attempt;
  r.rank = rank;
  return f.ok();
}
bool decode(Fields f, MetricDef& r) {
  f.get(r.id).get(r.name).get(r.unit).get(r.better).get_enum(r.kind, MetricKind::Timing);
  f.get_enum(r.final_rule, FinalRule::MeanLastK).get(r.per_rank);
  return f.ok() && r.better >= Better::Lower && r.better <= Better::Higher;
}
bool decode(Fields f, Points& r) { return decode_points(f.rest(), r.points); }
bool decode(Fields f, Event& r) { return f.get(r.step).get(r.t_us).get(r.kind).get(r.body).ok(); }
bool decode(Fields f, SampleBits& r) { return f.get(r.kind).get(r.step).get(r.n).get(r.bits).ok(); }
bool decode(Fields f, Facts& r) { return f.get_enum(r.kind, FactKind::Lineage).get(r.json).ok(); }
bool decode(Fields f, CheckpointNote& r) {
  f.get(r.step).get(r.path).get(r.bytes).get(r.manifest_sha256).get(r.structure_hash);
  return f.get(r.deployable).ok();
}
bool decode(Fields f, BenchNote& r) { return f.get(r.json).ok(); }
bool decode(Fields f, FinalValue& r) { return f.get(r.metric).get(r.step).get(r.value).ok(); }
bool decode(Fields f, Outcome& r) {
  std::int32_t exit_code = 0;
  f.get_enum(r.state, OutcomeState::Transient).get(r.cause).get(r.detail).get(r.last_step);
  f.get(r.images_seen).get(r.end_us).get(exit_code);
  r.exit_code = exit_code;
  return f.ok();
}
bool decode(Fields f, Seal& r) { return f.get(r.points).ok(); }

template <typename T>
bool decode_as(std::string_view payload, Record& record) {
  return decode(Fields(payload), record.emplace<T>());
}

bool decode_record(std::uint16_t type, std::string_view payload, Record& record) {
  switch (type) {
    case kHeader:
      return decode_as<SpoolHeader>(payload, record);
    case kMetricDef:
      return decode_as<MetricDef>(payload, record);
    case kPoints:
      return decode_as<Points>(payload, record);
    case kEvent:
      return decode_as<Event>(payload, record);
    case kSampleBits:
      return decode_as<SampleBits>(payload, record);
    case kFacts:
      return decode_as<Facts>(payload, record);
    case kCheckpoint:
      return decode_as<CheckpointNote>(payload, record);
    case kBench:
      return decode_as<BenchNote>(payload, record);
    case kFinalValue:
      return decode_as<FinalValue>(payload, record);
    case kOutcome:
      return decode_as<Outcome>(payload, record);
    case kSeal:
      return decode_as<Seal>(payload, record);
    default:
      record = UnknownRecord{type};
      return true;
  }
}

template <typename T>
T load(std::string_view bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

Payload encode(const Record& record) { return std::visit(Encoder{}, record); }

void append_frame(std::string& out, std::uint32_t sequence, const Payload& payload) {
  if (payload.bytes.size() > kMaxPayload) {
    throw Error(cat("a spool record of ", payload.bytes.size(), " bytes exceeds the limit of ",
                    kMaxPayload, " bytes"));
  }
  const std::size_t start = out.size();
  Writer head;
  head.put(kFrameMagic).put(static_cast<std::uint32_t>(payload.bytes.size())).put(sequence);
  head.put(payload.type).put(std::uint16_t{0});
  out += head.take();
  out += payload.bytes;
  const std::uint32_t checksum = checksum32(std::string_view(out).substr(start));
  out.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

std::size_t claimed_size(std::string_view bytes) {
  if (bytes.size() < kFrameHead || load<std::uint32_t>(bytes, 0) != kFrameMagic) return 0;
  const auto length = load<std::uint32_t>(bytes, 4);
  return length > kMaxPayload ? 0 : length + kFrameOverhead;
}

bool parse_frame(std::string_view bytes, Frame& frame) {
  const std::size_t size = claimed_size(bytes);
  if (size == 0 || bytes.size() < size) return false;
  const auto checksum = load<std::uint32_t>(bytes, size - 4);
  if (checksum32(bytes.substr(0, size - 4)) != checksum) return false;
  const std::string_view payload = bytes.substr(kFrameHead, size - kFrameOverhead);
  if (!decode_record(load<std::uint16_t>(bytes, 12), payload, frame.record)) return false;
  frame.sequence = load<std::uint32_t>(bytes, 8);
  frame.checksum = checksum;
  frame.size = size;
  return true;
}

}  // namespace ablate
