#pragma once

namespace ablate {

/// Output of `git describe --always --dirty`, or "unknown". The generated definition, which changes
/// with every commit, is linked into the programs only; everything else gets a weak default, so
/// that a commit does not relink every test.
const char* build_revision();

}  // namespace ablate
