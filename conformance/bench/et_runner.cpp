// Times a program in the ExecuTorch runtime of the executorch wheel, without Python in the process.
//
//   et_runner MODEL.pte --inputs a.bin,b.bin --threads N [--warmup N] [--secs S] [--outputs PREFIX]
//
// Prints one JSON object: what it linked, threads, load_ms (file to a method that can run), first_ms, times_ms, and the resident memory of the
// process before loading and at most (rss_base_mb, rss_peak_mb; 0 where there is no /proc). With --outputs it runs once and writes PREFIX0.bin,
// PREFIX1.bin, ...
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>
#include <executorch/extension/tensor/tensor_ptr_maker.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <time.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// The wheel has this class in its library and not in its headers.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  void _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using namespace executorch;
using extension::Module;

// Shorter runs than this are timed many at a time, so that the clock costs nothing.
constexpr double LEAST_MS = 0.2;

static double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

// In MB, of this process.
static double memory(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return atof(line.c_str() + key.size()) / 1024;
  }
  return 0;
}

[[noreturn]] static void fail(const std::string& what) {
  fprintf(stderr, "et_runner: %s\n", what.c_str());
  exit(3);
}

static std::vector<uint8_t> read(const std::string& path, size_t size) {
  std::vector<uint8_t> bytes(size);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  if (static_cast<size_t>(file.gcount()) != size) fail("`" + path + "` is shorter than the input");
  return bytes;
}

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: et_runner MODEL.pte [OPTIONS]");
  std::string inputs, outputs;
  int threads = 1, warmup = 5;
  double secs = 1;
  for (int i = 2; i + 1 < argc; i += 2) {
    std::string key = argv[i], value = argv[i + 1];
    if (key == "--inputs") inputs = value;
    else if (key == "--outputs") outputs = value;
    else if (key == "--threads") threads = atoi(value.c_str());
    else if (key == "--warmup") warmup = atoi(value.c_str());
    else if (key == "--secs") secs = atof(value.c_str());
    else fail("unknown option `" + key + "`");
  }
  auto* pool = extension::threadpool::get_threadpool();
  if (pool == nullptr) fail("no thread pool");
  pool->_unsafe_reset_threadpool(threads);
  if (static_cast<int>(pool->get_thread_count()) != threads) fail("the thread pool has another size");

  double base = memory("VmRSS:"), opened = now();
  Module module(argv[1], Module::LoadMode::Mmap);
  if (module.load_method("forward") != runtime::Error::Ok) fail("`forward` cannot be loaded");
  double load = now() - opened;
  auto meta = module.method_meta("forward");
  std::vector<std::string> files;
  std::stringstream list(inputs);
  for (std::string file; std::getline(list, file, ',');) files.push_back(file);
  if (files.size() != meta->num_inputs()) fail("another number of inputs than the program has");
  std::vector<extension::TensorPtr> tensors;
  std::vector<runtime::EValue> values;
  for (size_t i = 0; i < files.size(); i++) {
    auto info = meta->input_tensor_meta(i);
    std::vector<aten::SizesType> sizes(info->sizes().begin(), info->sizes().end());
    std::vector<aten::DimOrderType> order(info->dim_order().begin(), info->dim_order().end());
    tensors.push_back(extension::make_tensor_ptr(sizes, read(files[i], info->nbytes()), order, {}, info->scalar_type()));
    values.push_back(tensors.back());
  }
  auto run = [&] {
    auto result = module.execute("forward", values);
    if (!result.ok()) fail("error " + std::to_string(static_cast<int>(result.error())) + " in a run");
    return result;
  };

  double started = now();
  auto first = run();
  double first_ms = now() - started;
  if (!outputs.empty()) {
    for (size_t i = 0; i < first->size(); i++) {
      auto tensor = (*first)[i].toTensor();
      std::ofstream file(outputs + std::to_string(i) + ".bin", std::ios::binary);
      file.write(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
      if (!file) fail("an output cannot be written");
    }
    return 0;
  }
  double begun = now();
  int warm = 0;
  do run();
  while (++warm < warmup && now() - begun < secs * 1e3);
  double once = (now() - begun) / warm;
  int batch = once < LEAST_MS ? static_cast<int>(LEAST_MS / std::max(once, 1e-4)) + 1 : 1;
  std::vector<double> times;
  begun = now();
  while (times.empty() || now() - begun < secs * 1e3) {
    double start = now();
    for (int i = 0; i < batch; i++) run();
    times.push_back((now() - start) / batch);
  }
  printf("{\"threads\": %d, \"kernels\": %zu, \"batch\": %d, \"load_ms\": %.4f, \"first_ms\": %.4f, \"rss_base_mb\": %.1f, \"rss_peak_mb\": %.1f, ", threads,
         runtime::get_registered_kernels().size(), batch, load, first_ms, base, memory("VmHWM:"));
  printf("\"times_ms\": [");
  for (size_t i = 0; i < times.size(); i++) printf("%s%.6f", i ? ", " : "", times[i]);
  printf("]}\n");
}
