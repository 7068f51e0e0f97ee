# Test executables: one per mirrored folder, because each link against LibTorch costs more than a file.
#
# Labels by suite name: *Long* gets `long`, *Gpu* gets `gpu`, all others `quick`.

# ablate_discover(<target> <label> <filter>)
function(ablate_discover target label filter)
  # ABLATE_BIN: folder of the programs; ABLATE_TEST_BIN: of the test executables and fakes.
  string(CONCAT environment "OMP_NUM_THREADS=1;ABLATE_BIN=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}"
    ";ABLATE_TEST_BIN=${CMAKE_BINARY_DIR}/tests")
  gtest_discover_tests(${target}
    TEST_FILTER "${filter}"
    TEST_LIST ${target}_${label}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 120
    PROPERTIES LABELS ${label} TIMEOUT 900
      ENVIRONMENT "${environment}")
endfunction()

# ablate_test_folder(<folder> [TORCH] DEPENDS <target>...)
# Builds tests/<folder>/*_test.cpp (and helpers beside them) into test_<folder>; files *_mpi_test.cpp into
# test_<folder>_mpi, which runs under mpirun at 1, 2 and 4 ranks.
function(ablate_test_folder folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "DEPENDS")
  set(dir ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cpp)
  set(mpi_sources ${sources})
  list(FILTER sources EXCLUDE REGEX "_mpi_test\\.cpp$")
  list(FILTER mpi_sources INCLUDE REGEX "_mpi_test\\.cpp$")
  if(arg_TORCH)
    set(torch TORCH)
    set(support ablate_test_support_torch)
  else()
    set(torch "")
    set(support ablate_test_support)
  endif()
  if(sources)
    ablate_add_executable(test_${folder} ${torch} SOURCES ${sources}
      DEPENDS ${support} ${arg_DEPENDS} GTest::gtest_main)
    set_target_properties(test_${folder} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    ablate_discover(test_${folder} quick "-*Long*.*:*Gpu*.*")
    ablate_discover(test_${folder} long "*Long*.*")
    ablate_discover(test_${folder} gpu "*Gpu*.*")
  endif()
  if(mpi_sources)
    ablate_mpi_tests(test_${folder}_mpi "${mpi_sources}" "${support};${arg_DEPENDS}")
  endif()
endfunction()

function(ablate_mpi_tests target sources depends)
  ablate_add_executable(${target} TORCH
    SOURCES ${sources} ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cpp
    DEPENDS ${depends} MPI::MPI_CXX GTest::gtest)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  foreach(ranks 1 2 4)
    add_test(NAME ${target}.${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe -n ${ranks} $<TARGET_FILE:${target}>
      WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${target}.${ranks} PROPERTIES LABELS quick TIMEOUT 300 PROCESSORS ${ranks}
      ENVIRONMENT "OMP_NUM_THREADS=1;OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_mpi_yield_when_idle=1")
  endforeach()
endfunction()
