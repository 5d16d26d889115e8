#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace rapt::inline RAPT_ABI {

MappedFile::MappedFile(const std::filesystem::path& path) : name_(path.string()) {
  auto why = [] { return std::generic_category().message(errno); };
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // without O_NONBLOCK, a pipe would wait for ever
  check<DataError>(fd >= 0, "{}: can't open the file: {}", name_, why());
  struct stat status {};
  void* start = nullptr;
  std::string problem;
  if (::fstat(fd, &status) != 0) {
    problem = "can't read its size: " + why();
  } else if (!S_ISREG(status.st_mode)) {
    problem = S_ISDIR(status.st_mode) ? "expected a file, found a folder" : "expected a regular file";
  } else if (status.st_size > 0) {
    start = ::mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (start == MAP_FAILED) problem = "can't map the file into memory: " + why();
  }
  ::close(fd);
  check<DataError>(problem.empty(), "{}: {}", name_, problem);
  bytes_ = {static_cast<const std::byte*>(start), size_t(status.st_size)};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  uintptr_t page = uintptr_t(::sysconf(_SC_PAGESIZE));
  uintptr_t begin = reinterpret_cast<uintptr_t>(part.data()) / page * page;  // the map begins on a page
  uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size());
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // clean pages: nothing to lose
}

}  // namespace rapt::inline RAPT_ABI
