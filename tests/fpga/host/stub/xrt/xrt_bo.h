// As much of XRT as the driver uses, over the model of the accelerator.
#pragma once
#include <cstring>
#include <vector>

#include "pipe.hpp"
#include "xrt_device.h"
enum xclBOSyncDirection { XCL_BO_SYNC_BO_TO_DEVICE, XCL_BO_SYNC_BO_FROM_DEVICE };
namespace xrt {
class bo {
 public:
  enum class flags { normal };
  bo(const device &, std::size_t size, flags, unsigned) : address_(pipe::allocate(size, 4096)), host_(size) {}
  std::uint64_t address() const { return address_; }
  void write(const void *data, std::size_t size, std::size_t at) { std::memcpy(host_.data() + at, data, size); }
  void read(void *data, std::size_t size, std::size_t at) { std::memcpy(data, host_.data() + at, size); }
  void sync(xclBOSyncDirection way, std::size_t size, std::size_t at) {
    if (way == XCL_BO_SYNC_BO_TO_DEVICE)
      pipe::store(address_ + at, host_.data() + at, size);
    else
      pipe::load(address_ + at, host_.data() + at, size);
  }

 private:
  std::uint64_t address_;
  std::vector<std::uint8_t> host_;
};
}  // namespace xrt
