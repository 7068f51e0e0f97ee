#include <array>

#include "datasets/dataset.h"
#include "runner/core/hash.h"
#include "runner/core/mapped_file.h"
#include "runner/core/params.h"

namespace ablate::datasets::cifar {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32;
constexpr std::size_t kPlane = kSide * kSide;
constexpr std::size_t kPixels = 3 * kPlane;

/// Layout of one published binary version.
struct Format {
  std::size_t label_bytes;  ///< the last of them is the label used
  std::int64_t classes;
  const char* directory;
  std::vector<const char*> train_files, test_files;
  Normalization normalization;

  std::size_t record() const { return label_bytes + kPixels; }
};

/// Records of one or several mapped files: labels, then planes R, G, B, each row-major.
class Cifar final : public Dataset {
 public:
  Cifar(const Format& format, const std::vector<fs::path>& files)
      : record_(format.record()), label_offset_(format.label_bytes - 1) {
    facts_ = {
        .classes = format.classes, .image_size = kSide, .normalization = format.normalization};
    for (const fs::path& file : files) map_file(file);
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(records_.size()); }

  std::int64_t label(std::int64_t index) const override {
    return static_cast<std::uint8_t>(records_[static_cast<std::size_t>(index)][label_offset_]);
  }

  void load(std::int64_t index, Image& image) const override {
    image.reshape(kSide, kSide);
    const char* planes = records_[static_cast<std::size_t>(index)] + label_offset_ + 1;
    for (std::size_t pixel = 0; pixel < kPlane; ++pixel) {
      for (std::size_t channel = 0; channel < 3; ++channel) {
        image.pixels[3 * pixel + channel] =
            static_cast<std::uint8_t>(planes[channel * kPlane + pixel]);
      }
    }
  }

  std::string fingerprint() const override {
    std::string hashes;
    for (const MappedFile& file : files_) hashes += hash128_hex(file.bytes());
    return hash128_hex(hashes);
  }

  const DatasetFacts& facts() const override { return facts_; }

 private:
  void map_file(const fs::path& path) {
    const MappedFile& file = files_.emplace_back(path);
    const std::string_view bytes = file.bytes();
    if (bytes.empty() || bytes.size() % record_ != 0) {
      throw SpecError(cat(path.string(), ": ", bytes.size(), " bytes are no whole number of ",
                          record_, "-byte records; expected the binary version of the data set"));
    }
    for (std::size_t at = 0; at < bytes.size(); at += record_) {
      records_.push_back(bytes.data() + at);
      const std::int64_t label = this->label(size() - 1);
      if (label >= facts_.classes) {
        throw SpecError(cat(path.string(), ": record ", at / record_, " has label ", label,
                            "; labels are 0 to ", facts_.classes - 1));
      }
    }
  }

  std::size_t record_, label_offset_;
  DatasetFacts facts_;
  std::vector<MappedFile> files_;
  std::vector<const char*> records_;
};

std::vector<fs::path> find_files(const fs::path& root, const Format& format,
                                 const std::vector<const char*>& names) {
  const fs::path directory = fs::exists(root / format.directory) ? root / format.directory : root;
  std::vector<fs::path> files;
  for (const char* name : names) {
    files.push_back(directory / name);
    if (!fs::is_regular_file(files.back())) {
      throw SpecError(cat("no file ", files.back().string(), "; expected ", join(names),
                          " of the binary version in ", root.string(), " or its folder ",
                          format.directory));
    }
  }
  return files;
}

const Format& cifar10() {
  static const Format format{
      .label_bytes = 1,
      .classes = 10,
      .directory = "cifar-10-batches-bin",
      .train_files = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                      "data_batch_4.bin", "data_batch_5.bin"},
      .test_files = {"test_batch.bin"},
      .normalization = {{0.4914F, 0.4822F, 0.4465F}, {0.2470F, 0.2435F, 0.2616F}}};
  return format;
}

/// Two label bytes: coarse, then fine; the fine one is used.
const Format& cifar100() {
  static const Format format{
      .label_bytes = 2,
      .classes = 100,
      .directory = "cifar-100-binary",
      .train_files = {"train.bin"},
      .test_files = {"test.bin"},
      .normalization = {{0.5071F, 0.4865F, 0.4409F}, {0.2673F, 0.2564F, 0.2762F}}};
  return format;
}

template <const Format& (*format)()>
DatasetOpener configure(Params&) {
  return [](const fs::path& root) {
    const auto open = [&](const std::vector<const char*>& names) {
      return std::make_shared<Cifar>(format(), find_files(root, format(), names));
    };
    return DatasetSplits{
        .train = open(format().train_files), .holdout = {}, .test = open(format().test_files)};
  };
}

const Registry<DatasetInfo>::Add added_cifar10{
    {.name = "cifar10",
     .summary = "CIFAR-10, binary version: 50,000 + 10,000 images of 32 x 32, 10 classes",
     .semantics = 1,
     .needs_root = true,
     .configure = configure<cifar10>}};

const Registry<DatasetInfo>::Add added_cifar100{
    {.name = "cifar100",
     .summary = "CIFAR-100, binary version: 50,000 + 10,000 images of 32 x 32, 100 fine classes",
     .semantics = 1,
     .needs_root = true,
     .configure = configure<cifar100>}};

}  // namespace
}  // namespace ablate::datasets::cifar
