# What `cmake --install` and `cpack -G DEB` put where.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(RAPT_LIBRARIES rapt rapt_f64)
if(RAPT_SHARED)
  list(APPEND RAPT_LIBRARIES rapt_shared rapt_f64_shared)
endif()
install(TARGETS ${RAPT_LIBRARIES} EXPORT rapt)
foreach(level IN LISTS RAPT_LEVELS)
  install(TARGETS rapt_${level} LIBRARY NAMELINK_SKIP DESTINATION ${CMAKE_INSTALL_LIBDIR}/glibc-hwcaps/x86-64-${level})
endforeach()
if(RAPT_PROGRAM)
  install(TARGETS rapt_program)
endif()

# --strip takes the debug information out of programs and shared libraries only; static ones have most of it.
foreach(name IN ITEMS rapt rapt_f64)
  install(CODE "if(CMAKE_INSTALL_DO_STRIP)
    execute_process(COMMAND ${CMAKE_STRIP} --strip-debug \$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/lib${name}.a)
  endif()")
endforeach()

# The headers as they lie in the tree: they include each other by relative paths. Those of the program stay at home, and
# so does the one that needs the JSON library.
foreach(folder IN ITEMS core autograd nn optim data watch train)
  if(IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
    install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/rapt FILES_MATCHING PATTERN "*.h"
      PATTERN cli EXCLUDE PATTERN json.h EXCLUDE)
  endif()
endforeach()
install(FILES rapt.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/rapt)

# find_package(rapt)
set(RAPT_CMAKE_FOLDER ${CMAKE_INSTALL_LIBDIR}/cmake/rapt)
install(EXPORT rapt NAMESPACE rapt:: FILE rapt-targets.cmake DESTINATION ${RAPT_CMAKE_FOLDER})
configure_package_config_file(cmake/rapt-config.cmake.in rapt-config.cmake INSTALL_DESTINATION ${RAPT_CMAKE_FOLDER})
write_basic_package_version_file(rapt-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/rapt-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/rapt-config-version.cmake
  DESTINATION ${RAPT_CMAKE_FOLDER})

# pkg-config. A static library alone brings its own dependencies along.
file(RELATIVE_PATH PREFIX_FROM_HERE /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
get_filename_component(CBLAS_NAME ${CBLAS_LIBRARY} NAME_WE)
string(REGEX REPLACE "^lib" "-l" CBLAS_FLAG "${CBLAS_NAME}")
foreach(NAME IN ITEMS rapt rapt_f64)
  set(CFLAGS "")
  if(NAME STREQUAL rapt_f64)
    set(CFLAGS " -DRAPT_DOUBLE")
  endif()
  set(LIBS_PRIVATE "${CBLAS_FLAG} ${OpenMP_CXX_FLAGS}")
  if(RAPT_ONEDNN AND NAME STREQUAL rapt)
    string(APPEND LIBS_PRIVATE " -ldnnl")
  endif()
  set(LIBS "")
  if(NOT RAPT_SHARED)
    set(LIBS " ${LIBS_PRIVATE}")
  endif()
  configure_file(cmake/rapt.pc.in ${NAME}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

# cpack -G DEB. Configure with the preset `package` for one that runs on any machine.
set(CPACK_PACKAGE_NAME rapt)
set(CPACK_PACKAGE_VENDOR rapt)
set(CPACK_PACKAGE_CONTACT "the rapt authors <rapt@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION "Trains small GPTs on text without Python: a program, and a C++20 library of tensors,
gradients, modules, attention variants and optimizers.")
if(RAPT_NATIVE)
  string(APPEND CPACK_PACKAGE_DESCRIPTION "
This package was built for the machine that built it (RAPT_NATIVE) and may not run on others.")
endif()
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_CURRENT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Any BLAS would satisfy shlibdeps; this build of OpenBLAS shares its threads with rapt.
set(CPACK_DEBIAN_PACKAGE_DEPENDS libopenblas0-openmp)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libfmt-dev, libopenblas-openmp-dev, libdnnl-dev, g++")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/rapt RENAME copyright)
include(CPack)
