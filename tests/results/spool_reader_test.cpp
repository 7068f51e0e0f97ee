#include "results/spool_reader.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "results/spool_frame.h"
#include "runner/core/text.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

constexpr std::uint32_t kAppendedFrames = 200'000;

/// Appends events, several whole frames a write, as fast as it can.
void append_events(const std::filesystem::path& file, std::atomic<bool>& done) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT, 0644);
  for (std::uint32_t sequence = 0; sequence < kAppendedFrames;) {
    std::string bytes;
    const std::uint32_t end = std::min(sequence + 1 + sequence % 3, kAppendedFrames);
    for (; sequence < end; ++sequence) {
      append_frame(bytes, sequence, encode(Event{sequence, 0, "kind", "{}"}));
    }
    EXPECT_EQ(::write(descriptor, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  ::close(descriptor);
  done = true;
}

// At the end of the file a reader looks twice, for more bytes and for a frame behind damaged ones:
// what is appended in between is neither.
TEST(SpoolReaderRace, AReaderAtTheEndOfAGrowingFileMissesNothing) {
  const test::TempFolder folder;
  const auto file = folder / "a.spool";
  std::atomic<bool> done = false;
  std::thread writer(append_events, file, std::ref(done));
  while (!std::filesystem::exists(file)) std::this_thread::yield();
  SpoolReader reader(file);
  std::uint32_t expected = 0;
  bool in_order = true;
  for (bool last = false; !last;) {
    last = done;
    while (const auto frame = reader.next()) in_order = in_order && frame->sequence == expected++;
  }
  writer.join();
  EXPECT_TRUE(in_order);
  EXPECT_EQ(expected, kAppendedFrames);
  EXPECT_EQ(reader.lost_bytes(), 0U);
}

}  // namespace
}  // namespace ablate
