#pragma once

/// Marks functions that kernels and host code share.
#ifdef __CUDACC__
#define ABLATE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ABLATE_HOST_DEVICE inline
#endif
