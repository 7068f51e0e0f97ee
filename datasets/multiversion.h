#pragma once

// Marks a function whose loops are compiled twice, for baseline x86-64 and for AVX2, the right one
// being picked when the program is loaded. Only for integer loops: AVX2 targets may contract
// floating-point expressions, which would change results. Sanitizers do not get along with the
// start-up hook behind it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ABLATE_MULTIVERSION __attribute__((target_clones("avx2", "default")))
#else
#define ABLATE_MULTIVERSION
#endif
