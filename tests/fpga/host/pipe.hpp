// Questions to the model of the accelerator, over standard output and input: one line each way.

#ifndef PIPE_HPP
#define PIPE_HPP

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace pipe {

template <typename... Words>
std::string ask(const Words &...words) {
  std::ostringstream line;
  line.precision(17);
  ((line << words << ' '), ...);
  std::cout << line.str() << std::endl;
  std::string answer;
  std::getline(std::cin, answer);
  return answer;
}

inline std::string hex(const void *data, std::size_t size) {
  static const char digits[] = "0123456789abcdef";
  std::string text = ":";
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint8_t byte = static_cast<const std::uint8_t *>(data)[i];
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

inline void load(std::uint64_t address, void *data, std::size_t size) {
  const std::string text = ask("load", address, size);
  for (std::size_t i = 0; i < size; ++i)
    static_cast<std::uint8_t *>(data)[i] = static_cast<std::uint8_t>(std::stoul(text.substr(2 * i, 2), nullptr, 16));
}

inline void store(std::uint64_t address, const void *data, std::size_t size) { ask("store", address, hex(data, size)); }

inline std::uint32_t read(std::uint32_t offset) { return static_cast<std::uint32_t>(std::stoul(ask("read", offset))); }

inline void write(std::uint32_t offset, std::uint32_t value) { ask("write", offset, value); }

inline std::uint64_t allocate(std::size_t size, std::size_t alignment) {
  return std::stoull(ask("allocate", size, alignment));
}

}  // namespace pipe

#endif  // PIPE_HPP
