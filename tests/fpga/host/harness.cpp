// The C++ driver on the model of the accelerator: harness <model folder> <images> <interrupt> <timeout> <watchdog>
// <task>.

#include <memory>

#include "intaglio.hpp"
#include "pipe.hpp"

namespace {

class PipeBus : public intaglio::Bus {
 public:
  explicit PipeBus(bool interrupt) : interrupt_(interrupt) {}

  std::uint32_t read(std::uint32_t offset) override { return pipe::read(offset); }
  void write(std::uint32_t offset, std::uint32_t value) override { pipe::write(offset, value); }
  bool interrupt() const override { return interrupt_; }
  Seconds now() override { return Seconds(std::stod(pipe::ask("now"))); }
  void wait(Seconds limit) override { pipe::ask("wait", limit.count(), interrupt_); }

  std::unique_ptr<intaglio::Buffer> allocate(std::size_t size, std::size_t alignment) override {
    return std::make_unique<Memory>(pipe::allocate(size, alignment));
  }

 private:
  struct Memory : intaglio::Buffer {
    using Buffer::Buffer;
    void write(const void *data, std::size_t size) override { pipe::store(address(), data, size); }
    void read(void *data, std::size_t size) override { pipe::load(address(), data, size); }
  };

  bool interrupt_;
};

std::unique_ptr<intaglio::Bus> open_bus(bool interrupt) {
#ifdef INTAGLIO_XRT
  (void)interrupt;
  return std::make_unique<intaglio::XrtBus>("accelerator.xclbin", "accelerator");
#else
  return std::make_unique<PipeBus>(interrupt);
#endif
}

std::vector<intaglio::Bytes> split(const intaglio::Bytes &data, std::size_t size) {
  std::vector<intaglio::Bytes> images;
  for (auto at = data.begin(); at != data.end(); at += static_cast<std::ptrdiff_t>(size))
    images.emplace_back(at, at + static_cast<std::ptrdiff_t>(size));
  return images;
}

void run(char **argv) {
  const std::unique_ptr<intaglio::Bus> bus = open_bus(std::string(argv[3]) == "1");
  intaglio::Accelerator accelerator(*bus, argv[1], intaglio::Bus::Seconds(std::stod(argv[4])),
                                    static_cast<std::uint32_t>(std::stoul(argv[5])));
  const auto images = split(intaglio::read_file(argv[2]), accelerator.program().input_bytes);
  const auto task = static_cast<std::uint32_t>(std::stoul(argv[6]));
  for (const intaglio::Bytes &result : accelerator.run(images, task)) {
    pipe::ask("result", pipe::hex(result.data(), result.size()));
    for (const auto &[index, value] : intaglio::best<std::int8_t>(result, result.size(), 3))
      pipe::ask("best", index, int{value});
  }
  for (const auto &[name, value] : accelerator.counters()) pipe::ask("counter", name, value);
}

// An exception, and on lines of their own those that led to it.
void print(const std::exception &error) {
  std::cerr << error.what() << std::endl;
  try {
    std::rethrow_if_nested(error);
  } catch (const std::exception &cause) {
    print(cause);
  }
}

}  // namespace

int main(int, char **argv) {
  try {
    run(argv);
  } catch (const std::exception &error) {
    print(error);
    return 1;
  }
  return 0;
}
