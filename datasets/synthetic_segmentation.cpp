#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "datasets/dataset.h"
#include "runner/core/hash.h"
#include "runner/core/params.h"
#include "runner/core/random.h"

namespace ablate::datasets::synthetic_segmentation {
namespace {

/// Sizes and difficulty; every sample is a function of these and its index.
struct Settings {
  std::int64_t train_size, test_size, classes;
  int image_size, shapes;
  double noise;
  bool ragged;
};

/// What a class looks like, up to position: a plane wave over a colour.
struct Texture {
  std::array<double, 3> color, amplitude;
  double fx, fy;  ///< radians a pixel
};

enum class Outline { Disc, Rectangle, Triangle };
constexpr std::uint32_t kOutlines = 3;

/// One shape on the canvas. Lengths in pixels.
struct Shape {
  Outline outline;
  double x, y, radius, aspect, turn;
  std::uint8_t label;
  double phase;

  bool covers(double px, double py) const {
    const double dx = px - x, dy = py - y;
    const double along = (dx * std::cos(turn) + dy * std::sin(turn)) / radius;
    const double across = (dy * std::cos(turn) - dx * std::sin(turn)) / (radius * aspect);
    switch (outline) {
      case Outline::Disc:
        return along * along + across * across <= 1;
      case Outline::Rectangle:
        return std::abs(along) <= 0.85 && std::abs(across) <= 0.85;
      case Outline::Triangle:
        return across >= -0.6 && std::abs(along) <= (1.2 - across) * 0.6;
    }
    return false;
  }
};

/// Generated segmentation: overlapping discs, rectangles and triangles on a background, class 0.
/// Each class has a texture, a coloured wave, and may have any outline: where a pixel belongs shows
/// in its neighbourhood, hardly in itself. Later shapes hide earlier ones.
class SyntheticSegmentation final : public Dataset {
 public:
  /// `first_stream` separates the splits: no sample occurs in two of them.
  SyntheticSegmentation(const Settings& settings, std::int64_t size, std::uint64_t first_stream)
      : settings_(settings), size_(size), first_stream_(first_stream) {
    facts_ = {.classes = settings.classes,
              .image_size = settings.ragged ? 0 : settings.image_size,
              .normalization = {{0.5F, 0.5F, 0.5F}, {0.25F, 0.25F, 0.25F}},
              .dense = true,
              .class_names = {}};
    for (std::int64_t label = 0; label < settings.classes; ++label) {
      textures_.push_back(draw_texture(label));
    }
  }

  std::int64_t size() const override { return size_; }
  std::int64_t label(std::int64_t) const override { return 0; }
  const DatasetFacts& facts() const override { return facts_; }

  void load(std::int64_t index, Image& image) const override {
    const Scene scene = draw_scene(index);
    RandomStream random = stream(index, kNoise);
    image.reshape(scene.width, scene.height);
    std::uint8_t* pixel = image.pixels.data();
    for (int y = 0; y < scene.height; ++y) {
      for (int x = 0; x < scene.width; ++x, pixel += Image::kChannels) {
        const Shape& top = scene.at(x, y);
        const Texture& texture = textures_[top.label];
        const double wave = std::sin(texture.fx * x + texture.fy * y + top.phase);
        for (std::size_t c = 0; c < Image::kChannels; ++c) {
          const double value =
              texture.color[c] + texture.amplitude[c] * wave + settings_.noise * random.normal();
          pixel[c] = static_cast<std::uint8_t>(std::clamp(value + 0.5, 0.0, 255.0));
        }
      }
    }
  }

  void load_labels(std::int64_t index, LabelMap& labels) const override {
    const Scene scene = draw_scene(index);
    labels.reshape(scene.width, scene.height);
    for (int y = 0; y < scene.height; ++y) {
      for (int x = 0; x < scene.width; ++x) labels.row(y)[x] = scene.at(x, y).label;
    }
  }

  std::string fingerprint() const override {
    Image image;
    load(0, image);
    return hash128_hex(cat(size_, " ", settings_.classes, " ", settings_.noise, " ",
                           settings_.shapes, " ", settings_.ragged, " ",
                           std::string(image.pixels.begin(), image.pixels.end())));
  }

 private:
  /// Streams of one sample.
  enum Stream : std::uint32_t { kScene = 0, kNoise = 1 };

  struct Scene {
    int width, height;
    std::vector<Shape> shapes;  // the background first

    /// The uppermost shape at a pixel.
    const Shape& at(int x, int y) const {
      const auto hit = std::find_if(shapes.rbegin(), shapes.rend() - 1,
                                    [&](const Shape& shape) { return shape.covers(x, y); });
      return *hit;
    }
  };

  RandomStream stream(std::int64_t index, Stream which) const {
    return {0, Purpose::SyntheticData, first_stream_ + static_cast<std::uint64_t>(index), which};
  }

  /// Directions of the waves turn by the golden angle, so that classes whose colours happen to be
  /// alike still differ.
  Texture draw_texture(std::int64_t label) const {
    RandomStream random(0, Purpose::SyntheticData, ~static_cast<std::uint64_t>(label));
    const double pixels = random.uniform(4.0, 9.0);  // of one wave
    const double direction = std::numbers::pi * (static_cast<double>(label) * 0.618034);
    Texture texture{.color = {}, .amplitude = {}, .fx = 0, .fy = 0};
    texture.fx = 2 * std::numbers::pi / pixels * std::cos(direction);
    texture.fy = 2 * std::numbers::pi / pixels * std::sin(direction);
    for (std::size_t c = 0; c < Image::kChannels; ++c) {
      texture.color[c] = random.uniform(70.0, 185.0);
      texture.amplitude[c] = random.uniform(15.0, 50.0) * (random.chance(0.5) ? 1 : -1);
    }
    return texture;
  }

  Scene draw_scene(std::int64_t index) const {
    RandomStream random = stream(index, kScene);
    const auto side = [&] {
      const double factor = settings_.ragged ? random.uniform(0.75, 1.25) : 1.0;
      return static_cast<int>(std::lround(settings_.image_size * factor));
    };
    Scene scene{.width = side(), .height = side(), .shapes = {}};
    scene.shapes.push_back({.outline = Outline::Rectangle,
                            .x = 0,
                            .y = 0,
                            .radius = 1,
                            .aspect = 1,
                            .turn = 0,
                            .label = 0,
                            .phase = random.uniform(0, 2 * std::numbers::pi)});
    for (int i = 0; i < settings_.shapes; ++i) scene.shapes.push_back(draw_shape(scene, random));
    return scene;
  }

  Shape draw_shape(const Scene& scene, RandomStream& random) const {
    const auto others = static_cast<std::uint32_t>(settings_.classes - 1);
    Shape shape{};
    shape.outline = static_cast<Outline>(random.below(kOutlines));
    shape.x = random.uniform(0.0, scene.width);
    shape.y = random.uniform(0.0, scene.height);
    shape.radius = settings_.image_size * random.uniform(0.16, 0.34);
    shape.aspect = random.uniform(0.6, 1.0);
    shape.turn = random.uniform(0.0, 2 * std::numbers::pi);
    shape.label = static_cast<std::uint8_t>(1 + random.below(others));
    shape.phase = random.uniform(0.0, 2 * std::numbers::pi);
    return shape;
  }

  Settings settings_;
  std::int64_t size_;
  std::uint64_t first_stream_;
  DatasetFacts facts_;
  std::vector<Texture> textures_;
};

DatasetOpener configure(Params& params) {
  constexpr std::int64_t kMany = std::int64_t{1} << 40;
  Settings settings{};
  settings.train_size = params.integer("train_size", 1024, 1, kMany, "training samples");
  settings.test_size = params.integer("test_size", 256, 1, kMany, "test samples");
  settings.classes = params.integer("classes", 6, 2, 255, "classes, the background among them");
  settings.image_size = static_cast<int>(
      params.integer("image_size", 64, 8, 4096, "side of the square images in pixels"));
  settings.shapes =
      static_cast<int>(params.integer("shapes", 4, 1, 100, "shapes on the background"));
  settings.noise =
      params.number("noise", 12.0, 0.0, 255.0, "deviation of the noise in grey levels");
  settings.ragged = params.boolean(
      "ragged", false, "sides of 3/4 to 5/4 of image_size, each image its own, as of photographs");
  return [settings](const std::filesystem::path&) {
    constexpr std::uint64_t kTestStream = std::uint64_t{1} << 48;
    return DatasetSplits{
        .train = std::make_shared<SyntheticSegmentation>(settings, settings.train_size, 0),
        .holdout = {},
        .test = std::make_shared<SyntheticSegmentation>(settings, settings.test_size, kTestStream)};
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "synthetic_segmentation",
     .summary = "generated textured shapes on a background, a label for each pixel: any size",
     .semantics = 1,
     .needs_root = false,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::synthetic_segmentation
