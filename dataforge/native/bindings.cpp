#include <nanobind/nanobind.h>
namespace nb = nanobind;
NB_MODULE(_native, m) { m.doc() = "dataforge's CPU code in C++"; }
