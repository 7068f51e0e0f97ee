// What one core can decode at most, beside what our parts make of it, in turns on the same files:
// JPEGs below a folder, kept in memory; every image's box is drawn as RandomResizedCrop draws it.
// usage: decode_bench FOLDER [ROUNDS [SECONDS]]   one JSON line
//   bare      libjpeg-turbo alone: header, skip and crop to the box's blocks, rows into one buffer
//   part      PartDecoder: the box to the pixel, equal to the whole image's
//   resized   and resampled to 224 x 224
//   whole     and augmented and normalised as DeiT is trained
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>

#include "datasets/part_decoder.h"
#include "datasets/transforms.h"
#include "runner/core/params.h"

namespace {

using namespace ablate;
using Bytes = std::vector<std::uint8_t>;

constexpr int kSide = 224;
const Normalization kImageNet{{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}};

std::vector<Bytes> read_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".JPEG" || extension == ".jpg" || extension == ".jpeg") {
      paths.push_back(entry.path());
    }
  }
  std::ranges::sort(paths);
  std::vector<Bytes> files;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (files.empty()) throw std::runtime_error(folder.string() + ": no JPEG below it");
  return files;
}

/// libjpeg's errors end the program, as is its default.
class BareDecoder {
 public:
  BareDecoder() {
    info_.err = jpeg_std_error(&errors_);
    jpeg_create_decompress(&info_);
  }
  ~BareDecoder() { jpeg_destroy_decompress(&info_); }
  BareDecoder(const BareDecoder&) = delete;
  BareDecoder& operator=(const BareDecoder&) = delete;

  void operator()(const Bytes& file, const TrainTransform& transform, const AugmentKey& key) {
    jpeg_mem_src(&info_, file.data(), static_cast<unsigned long>(file.size()));
    jpeg_read_header(&info_, TRUE);
    const Box box =
        transform
            .plan({static_cast<int>(info_.image_width), static_cast<int>(info_.image_height)}, key)
            .source;
    info_.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info_);
    auto left = static_cast<JDIMENSION>(box.left), width = static_cast<JDIMENSION>(box.width);
    if (width < info_.output_width) jpeg_crop_scanline(&info_, &left, &width);
    const std::size_t stride = 3 * static_cast<std::size_t>(info_.output_width);
    pixels_.resize(std::max(pixels_.size(), stride * static_cast<std::size_t>(box.height)));
    if (box.top > 0) jpeg_skip_scanlines(&info_, static_cast<JDIMENSION>(box.top));
    const auto end = static_cast<JDIMENSION>(box.top + box.height);
    std::uint8_t* row = pixels_.data();
    while (info_.output_scanline < end) {
      const JDIMENSION rows = jpeg_read_scanlines(&info_, &row, 1);
      row += rows * stride;
    }
    jpeg_abort_decompress(&info_);
  }

 private:
  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  Bytes pixels_;
};

AugmentRecipe deit_recipe() {
  const Value table = parse_toml("", "bench");
  Params params(table, "augmentation");
  return read_augmentation("deit", params, kSide);
}

using Work = std::function<void(std::size_t file, const AugmentKey& key)>;

/// Images per second: whole passes over the files until the time is over.
double rate(std::size_t files, double seconds, const Work& work) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double elapsed = 0;
  std::uint64_t done = 0;
  while (elapsed < seconds) {
    for (std::size_t i = 0; i < files; ++i) {
      work(i, {1, sample_key(done / files % 1000, i)});
      ++done;
    }
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return static_cast<double>(done) / elapsed;
}

int bench(const std::filesystem::path& folder, int rounds, double seconds) {
  const std::vector<Bytes> files = read_files(folder);
  const TrainTransform transform(deit_recipe(), kImageNet);
  BareDecoder bare;
  PartDecoder decoder;
  SampleMemory memory;
  std::vector<float> chw(3 * kSide * kSide);
  const auto read_part = [&](std::size_t i, const AugmentKey& key) {
    const CropPlan plan = transform.plan(decoder.open({.bytes = files[i], .name = "file"}), key);
    decoder.read(plan.source, memory.part);
    return plan;
  };
  const std::vector<std::pair<const char*, Work>> works{
      {"bare", [&](std::size_t i, const AugmentKey& key) { bare(files[i], transform, key); }},
      {"part", read_part},
      {"resized",
       [&](std::size_t i, const AugmentKey& key) {
         memory.resizer(*read_part(i, key).resized, memory.part, 0, 0, memory.crop);
       }},
      {"whole", [&](std::size_t i, const AugmentKey& key) {
         const CropPlan plan = read_part(i, key);
         transform(memory.part, plan, key, memory, chw.data());
       }}};
  std::map<std::string, double> best;
  for (int round = 0; round < rounds; ++round) {
    for (const auto& [name, work] : works) {
      best[name] = std::max(best[name], rate(files.size(), seconds, work));
    }
  }
  std::cout << "{\"files\": " << files.size();
  for (const auto& [name, work] : works) std::cout << ", \"" << name << "\": " << best[name];
  std::cout << "}" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: decode_bench FOLDER [ROUNDS [SECONDS]]\n";
    return 2;
  }
  try {
    return bench(argv[1], argc > 2 ? std::stoi(argv[2]) : 5, argc > 3 ? std::stod(argv[3]) : 1);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
