# Tests: one executable per mirrored folder, because each link against LibTorch costs more than a file,
# and one process per executable and label, because each process that loads LibTorch spends half a second
# on it (with one process per test that would be the larger part of the quick tests).
#
# Every entry leaves build/<preset>/test_results/<entry>.xml (GoogleTest's own), which scripts/test counts.
# Labels by suite name: *Long* gets `long`, *Gpu* gets `gpu`, all others `quick`.

set(ABLATE_TEST_RESULTS ${CMAKE_BINARY_DIR}/test_results)
set(ABLATE_FILTER_quick "-*Long*.*:*Gpu*.*")
set(ABLATE_FILTER_long "*Long*.*")
set(ABLATE_FILTER_gpu "*Gpu*.*")

# ablate_test_entry(<name> <label> <minutes> <command>... [ENVIRONMENT <text>...] [PROCESSORS <n>])
function(ablate_test_entry name label minutes)
  cmake_parse_arguments(PARSE_ARGV 3 arg "" "PROCESSORS" "ENVIRONMENT")
  add_test(NAME ${name} COMMAND ${arg_UNPARSED_ARGUMENTS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  math(EXPR seconds "${minutes} * 60")
  if(NOT arg_PROCESSORS)
    set(arg_PROCESSORS 1)
  endif()
  # ABLATE_BIN: folder of the programs; ABLATE_TEST_BIN: of test executables and stand-ins.
  set(environment
    OMP_NUM_THREADS=1
    GTEST_OUTPUT=xml:${ABLATE_TEST_RESULTS}/${name}.xml
    ABLATE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
    ABLATE_TEST_BIN=${CMAKE_BINARY_DIR}/tests
    ${arg_ENVIRONMENT})
  set_tests_properties(${name} PROPERTIES
    LABELS ${label} TIMEOUT ${seconds} PROCESSORS ${arg_PROCESSORS} ENVIRONMENT "${environment}")
endfunction()

# Whether the sources name a suite of that label (every folder has quick ones).
function(ablate_has_label out label sources)
  set(${out} OFF PARENT_SCOPE)
  set(macros "TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P|INSTANTIATE_[A-Z_]+")
  set(word_long Long)
  set(word_gpu Gpu)
  foreach(source IN LISTS sources)
    file(STRINGS ${source} hits REGEX "^(${macros})\\([A-Za-z0-9_]*${word_${label}}")
    if(hits)
      set(${out} ON PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

function(ablate_register_folder target is_torch sources)
  foreach(label quick long gpu)
    ablate_has_label(has ${label} "${sources}")
    if(NOT has AND NOT label STREQUAL "quick")
      continue()
    endif()
    set(minutes 10)
    if(label STREQUAL "long")
      set(minutes 30)
    endif()
    # Two halves, so that the largest folders do not keep the second core waiting.
    if(is_torch AND label STREQUAL "quick")
      foreach(shard 0 1)
        ablate_test_entry(${target}.${label}.${shard} ${label} ${minutes}
          $<TARGET_FILE:${target}> --gtest_filter=${ABLATE_FILTER_${label}}
          ENVIRONMENT GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=${shard})
      endforeach()
    else()
      ablate_test_entry(${target}.${label} ${label} ${minutes}
        $<TARGET_FILE:${target}> --gtest_filter=${ABLATE_FILTER_${label}})
    endif()
  endforeach()
endfunction()

# ablate_test_folder(<folder> [TORCH] DEPENDS <target>...)
# Builds tests/<folder>/*_test.cpp (and helpers beside them) into test_<folder>; files *_mpi_test.cpp into
# test_<folder>_mpi, which runs under mpirun at 1, 2 and 4 ranks.
function(ablate_test_folder folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "DEPENDS")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  set(mpi_sources ${sources})
  list(FILTER sources EXCLUDE REGEX "_mpi_test\\.cpp$")
  list(FILTER mpi_sources INCLUDE REGEX "_mpi_test\\.cpp$")
  set(torch "")
  set(support ablate_test_support)
  if(arg_TORCH)
    set(torch TORCH)
    set(support ablate_test_support_torch)
  endif()
  if(sources)
    ablate_add_executable(test_${folder} ${torch} SOURCES ${sources}
      DEPENDS ${support} ${arg_DEPENDS} GTest::gtest_main)
    set_target_properties(test_${folder} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    ablate_compile_lightly(test_${folder})
    ablate_register_folder(test_${folder} ${arg_TORCH} "${sources}")
  endif()
  if(mpi_sources)
    ablate_mpi_tests(test_${folder}_mpi "${mpi_sources}" "${support};${arg_DEPENDS}")
  endif()
endfunction()

function(ablate_mpi_tests target sources depends)
  set(main ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cpp)
  set_source_files_properties(${main} PROPERTIES
    SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON)
  ablate_add_executable(${target} TORCH
    SOURCES ${sources} ${main}
    DEPENDS ${depends} MPI::MPI_CXX GTest::gtest)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  ablate_compile_lightly(${target})
  foreach(ranks 1 2 4)
    ablate_test_entry(${target}.${ranks} quick 5
      ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none -n ${ranks} $<TARGET_FILE:${target}>
      PROCESSORS ${ranks}
      ENVIRONMENT
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        OMPI_MCA_mpi_yield_when_idle=1
        OMPI_MCA_btl_vader_single_copy_mechanism=none)
  endforeach()
endfunction()
