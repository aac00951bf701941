// As much of XRT as the driver uses, over the model of the accelerator.
#pragma once
#include "pipe.hpp"
#include "xrt/xrt_device.h"
namespace xrt {
struct ip {
  ip(const device &, const uuid &, const std::string &) {}
  std::uint32_t read_register(std::uint32_t offset) const { return pipe::read(offset); }
  void write_register(std::uint32_t offset, std::uint32_t value) { pipe::write(offset, value); }
};
}  // namespace xrt
