# Faster tools when they are there: mold to link, ccache to compile.

find_program(ABLATE_MOLD mold)
if(ABLATE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

find_program(ABLATE_CCACHE ccache)
if(ABLATE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ABLATE_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ABLATE_CCACHE})
  if(ABLATE_PCH)
    # Without it ccache cannot see through a GCC precompiled header.
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()
