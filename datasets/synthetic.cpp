#include <algorithm>
#include <cmath>
#include <numbers>

#include "datasets/dataset.h"
#include "runner/core/hash.h"
#include "runner/core/params.h"
#include "runner/core/random.h"

namespace ablate::datasets::synthetic {
namespace {

/// Sizes and difficulty; every sample is a function of these and its index.
struct Settings {
  std::int64_t train_size, test_size, classes;
  int image_size;
  double noise;
  double distraction;
};

/// A plane wave in one direction with a colour: what a class looks like, up to position.
struct Wave {
  double fx, fy;  ///< cycles per image side
  std::array<double, 3> amplitude;
};

constexpr int kWavesPerClass = 3;
constexpr double kContrast = 40.0;  // grey levels of a wave's mean amplitude

/// Generated classification: a class is a texture (a sum of coloured plane waves). A sample shows
/// its class's texture at a random position under a fainter texture of another class and noise, so
/// that no single pixel tells the class, yet a small network learns it in a few epochs.
class Synthetic final : public Dataset {
 public:
  /// `first_stream` separates the splits: no sample occurs in two of them.
  Synthetic(const Settings& settings, std::int64_t size, std::uint64_t first_stream)
      : settings_(settings), size_(size), first_stream_(first_stream) {
    facts_ = {.classes = settings.classes,
              .image_size = settings.image_size,
              .normalization = {{0.5F, 0.5F, 0.5F}, {0.25F, 0.25F, 0.25F}}};
    for (std::int64_t label = 0; label < settings.classes; ++label) {
      textures_.push_back(draw_texture(label));
    }
  }

  std::int64_t size() const override { return size_; }
  std::int64_t label(std::int64_t index) const override { return index % settings_.classes; }
  const DatasetFacts& facts() const override { return facts_; }

  void load(std::int64_t index, Image& image) const override {
    RandomStream random(0, Purpose::SyntheticData,
                        first_stream_ + static_cast<std::uint64_t>(index));
    const int side = settings_.image_size;
    std::vector<double> canvas(static_cast<std::size_t>(side) * side * 3, 127.5);
    const auto own = static_cast<std::size_t>(label(index));
    const auto other = (own + 1 + random.below(static_cast<std::uint32_t>(settings_.classes - 1))) %
                       textures_.size();
    paint(textures_[own], 1.0, random, canvas);
    paint(textures_[other], settings_.distraction, random, canvas);
    image.reshape(side, side);
    for (std::size_t i = 0; i < canvas.size(); ++i) {
      const double value = canvas[i] + settings_.noise * random.normal();
      image.pixels[i] = static_cast<std::uint8_t>(std::clamp(value + 0.5, 0.0, 255.0));
    }
  }

  std::string fingerprint() const override {
    Image image;
    load(0, image);
    return hash128_hex(cat(size_, " ", settings_.classes, " ", settings_.noise, " ",
                           settings_.distraction,
                           std::string(image.pixels.begin(), image.pixels.end())));
  }

 private:
  using Texture = std::array<Wave, kWavesPerClass>;

  static Texture draw_texture(std::int64_t label) {
    RandomStream random(0, Purpose::SyntheticData, ~static_cast<std::uint64_t>(label));
    Texture texture;
    for (Wave& wave : texture) {
      const double frequency = random.uniform(1.0, 4.0);
      const double direction = random.uniform(0.0, std::numbers::pi);
      wave.fx = frequency * std::cos(direction);
      wave.fy = frequency * std::sin(direction);
      for (double& amplitude : wave.amplitude) amplitude = kContrast * random.uniform(-1.0, 1.0);
    }
    return texture;
  }

  void paint(const Texture& texture, double strength, RandomStream& random,
             std::vector<double>& canvas) const {
    const auto side = static_cast<std::size_t>(settings_.image_size);
    const double shift_x = random.uniform(0.0, 1.0), shift_y = random.uniform(0.0, 1.0);
    for (const Wave& wave : texture) {
      // sin(a + b) = sin a cos b + cos a sin b: a sine for each column and row, none for a pixel.
      const Turns columns = turns_along(wave.fx, shift_x), rows = turns_along(wave.fy, shift_y);
      for (std::size_t y = 0; y < side; ++y) {
        for (std::size_t x = 0; x < side; ++x) {
          const double height =
              strength * (columns.sin[x] * rows.cos[y] + columns.cos[x] * rows.sin[y]);
          double* pixel = &canvas[(y * side + x) * 3];
          for (std::size_t channel = 0; channel < 3; ++channel) {
            pixel[channel] += height * wave.amplitude[channel];
          }
        }
      }
    }
  }

  struct Turns {
    std::vector<double> sin, cos;
  };

  /// Sine and cosine of a wave of `frequency` cycles at each place along one side.
  Turns turns_along(double frequency, double shift) const {
    Turns turns;
    for (int i = 0; i < settings_.image_size; ++i) {
      const double place = static_cast<double>(i) / settings_.image_size + shift;
      turns.sin.push_back(std::sin(2.0 * std::numbers::pi * frequency * place));
      turns.cos.push_back(std::cos(2.0 * std::numbers::pi * frequency * place));
    }
    return turns;
  }

  Settings settings_;
  std::int64_t size_;
  std::uint64_t first_stream_;
  DatasetFacts facts_;
  std::vector<Texture> textures_;
};

DatasetOpener configure(Params& params) {
  constexpr std::int64_t kMany = std::int64_t{1} << 40;
  Settings settings;
  settings.train_size = params.integer("train_size", 2048, 1, kMany, "training samples");
  settings.test_size = params.integer("test_size", 512, 1, kMany, "test samples");
  settings.classes = params.integer("classes", 10, 2, 100'000, "number of classes");
  settings.image_size = static_cast<int>(
      params.integer("image_size", 32, 4, 4096, "side of the square images in pixels"));
  settings.noise =
      params.number("noise", 24.0, 0.0, 255.0, "deviation of the noise in grey levels");
  settings.distraction = params.number("distraction", 0.6, 0.0, 1.0,
                                       "strength of another class's texture in each image");
  return [settings](const std::filesystem::path&) {
    constexpr std::uint64_t kTestStream = std::uint64_t{1} << 48;
    return DatasetSplits{
        .train = std::make_shared<Synthetic>(settings, settings.train_size, 0),
        .holdout = {},
        .test = std::make_shared<Synthetic>(settings, settings.test_size, kTestStream)};
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "synthetic",
     .summary = "generated textures: any size and class count, learnable but not trivial",
     .semantics = 1,
     .needs_root = false,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::synthetic
