#pragma once
/// The version of rapt. CMake reads it from here.

#define RAPT_VERSION_MAJOR 0
#define RAPT_VERSION_MINOR 1
#define RAPT_VERSION_PATCH 0
#define RAPT_VERSION "0.1.0"
/// To compare: 0.1.0 is 100, 1.2.3 is 10203.
#define RAPT_VERSION_NUMBER (RAPT_VERSION_MAJOR * 10000 + RAPT_VERSION_MINOR * 100 + RAPT_VERSION_PATCH)
