#include "methods/channel_similarity.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

using Reduce = SimilarityForm::Reduce;
using Weight = SimilarityForm::Weight;

at::Tensor vectors(std::initializer_list<double> numbers, std::int64_t width) {
  return at::tensor(std::vector<double>(numbers), at::kDouble).view({1, width, -1});
}

at::Tensor weights_of(const at::Tensor& rows) {
  return similarity_weights(likeness(cosines_of_vectors(rows), Reduce::Mean), Weight::Normalised);
}

// Two rows alike and one across: s = (1/2, 1/2, 0), weights (3/4, 3/4, 3/2), by hand.
TEST(ChannelSimilarity, OfThreeRowsIsTheGolden) {
  const at::Tensor rows = vectors({1, 0, 1, 0, 0, 1}, 3);
  const at::Tensor s = likeness(cosines_of_vectors(rows), Reduce::Mean);
  EXPECT_TRUE(at::allclose(s, at::tensor({.5, .5, 0.}, at::kDouble).view({1, 3}), 0, 1e-15));
  EXPECT_TRUE(at::allclose(weights_of(rows), at::tensor({.75, .75, 1.5}, at::kDouble).view({1, 3}),
                           0, 1e-15));
}

TEST(ChannelSimilarity, HasItsOtherForms) {
  const at::Tensor cosines = cosines_of_vectors(vectors({1, 0, -1, 0, 3, 4}, 3));
  const at::Tensor s = likeness(cosines, Reduce::Mean);
  EXPECT_TRUE(at::allclose(s.flatten(), at::tensor({-.2, -.8, 0.}, at::kDouble), 0, 1e-15));
  EXPECT_TRUE(at::allclose(likeness(cosines, Reduce::MeanAbsolute).flatten(),
                           at::tensor({.8, .8, .6}, at::kDouble), 0, 1e-15));
  EXPECT_TRUE(at::allclose(likeness(cosines, Reduce::Largest).flatten(),
                           at::tensor({.6, -.6, .6}, at::kDouble), 0, 1e-15));
  EXPECT_TRUE(at::allclose(similarity_weights(s, Weight::Plain), 1.0 - s, 0, 0));
  EXPECT_TRUE(at::allclose(similarity_weights(s, Weight::Exponential), at::exp(-s), 0, 0));
}

at::Tensor wavy_rows() { return (at::arange(2 * 6 * 9, at::kDouble) * 0.83).sin().view({2, 6, 9}); }

TEST(ChannelSimilarity, DoesNotSeeTheLengthOfRows) {
  const at::Tensor scale = at::tensor({.1, 3., 1., 7., .5, 2.}, at::kDouble).view({1, 6, 1});
  EXPECT_TRUE(at::allclose(weights_of(wavy_rows() * scale), weights_of(wavy_rows()), 0, 1e-13));
}

TEST(ChannelSimilarity, WeightsHaveMeanOneBeforeTheyAreClipped) {
  const at::Tensor s = likeness(cosines_of_vectors(wavy_rows()), Reduce::Mean);
  const at::Tensor rest = 1.0 - s;
  const at::Tensor plain = rest / rest.mean(1, true);
  EXPECT_TRUE(at::allclose(plain.mean(1), at::ones({2}, at::kDouble), 0, 1e-14));
  EXPECT_TRUE(at::allclose(similarity_weights(s, Weight::Normalised), plain.clamp(2.0 / 3.0, 1.5),
                           0, 1e-14));
}

TEST(ChannelSimilarity, ADuplicatedPairIsTheEasiestToReplace) {
  at::Tensor rows = wavy_rows();
  rows[1][4] = rows[1][2];
  const at::Tensor w =
      similarity_weights(likeness(cosines_of_vectors(rows), Reduce::Largest), Weight::Plain)[1];
  for (const int twin : {2, 4}) {
    EXPECT_NEAR(w[twin].item<double>(), 0.0, 1e-14);
    for (const int other : {0, 1, 3, 5}) {
      EXPECT_LT(w[twin].item<double>(), w[other].item<double>());
    }
  }
}

TEST(ChannelSimilarity, OfGramMatricesIsThatOfTheVectors) {
  const at::Tensor rows = wavy_rows();
  EXPECT_TRUE(at::allclose(cosines_of_gram(at::bmm(rows, rows.transpose(1, 2))),
                           cosines_of_vectors(rows), 0, 1e-13));
}

// cos(q_i, q_j) cos(k_i, k_j) is the Frobenius cosine of the maps q_i k_i^T and q_j k_j^T.
TEST(ChannelSimilarity, OfQueriesAndKeysIsThatOfTheirMaps) {
  const at::Tensor q = wavy_rows(), k = wavy_rows().cos() + 0.3;
  const at::Tensor product = cosines_of_vectors(q) * cosines_of_vectors(k);
  for (int head = 0; head < 2; ++head) {
    for (int i = 0; i < 6; ++i) {
      for (int j = 0; j < 6; ++j) {
        const at::Tensor a = at::outer(q[head][i], k[head][i]),
                         b = at::outer(q[head][j], k[head][j]);
        const double cosine = ((a * b).sum() / (a.norm() * b.norm())).item<double>();
        EXPECT_NEAR(product[head][i][j].item<double>(), cosine, 1e-13);
      }
    }
  }
}

TEST(ChannelSimilarity, IsDefinedForDeadAndSingleChannels) {
  const at::Tensor s = likeness(cosines_of_vectors(vectors({0, 0, 1, 1}, 2)), Reduce::Mean);
  EXPECT_TRUE(at::equal(s, at::zeros({1, 2}, at::kDouble)));
  EXPECT_TRUE(at::equal(likeness(cosines_of_vectors(vectors({1, 1}, 1)), Reduce::Mean),
                        at::zeros({1, 1}, at::kDouble)));
  const at::Tensor twins = weights_of(vectors({1, 1, 1, 1}, 2));
  EXPECT_TRUE(at::equal(twins, at::ones({1, 2}, at::kDouble))) << "all alike: no preference";
}

}  // namespace
}  // namespace ablate
