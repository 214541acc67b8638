// Times llama.cpp on a GGUF file: prompts of random tokens, then one token after the other. Nothing is sampled.
//
//   llama_runner MODEL.gguf --backends FOLDER [--threads N] [--prompt N] [--tokens N] [--repeats N]
//
// Prints one JSON object: load_ms, rss_base_mb, rss_peak_mb, prefill_ms of each repeat, decode_ms of each token. One repeat before them warms up.
// FOLDER holds the libraries `libggml-cpu-*`, of which the one for this processor is taken.
#include "ggml-backend.h"
#include "llama.h"
#include <time.h>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

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
  fprintf(stderr, "llama_runner: %s\n", what.c_str());
  exit(3);
}

static void log(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static void print(const char* name, const std::vector<double>& values) {
  printf(", \"%s\": [", name);
  for (size_t i = 0; i < values.size(); i++) printf("%s%.4f", i ? ", " : "", values[i]);
  printf("]");
}

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: llama_runner MODEL.gguf --backends FOLDER [OPTIONS]");
  int threads = 1, prompt = 64, tokens = 16, repeats = 1;
  std::string backends;
  for (int i = 2; i + 1 < argc; i += 2) {
    std::string key = argv[i], value = argv[i + 1];
    if (key == "--backends") backends = value;
    else if (key == "--threads") threads = atoi(value.c_str());
    else if (key == "--prompt") prompt = atoi(value.c_str());
    else if (key == "--tokens") tokens = atoi(value.c_str());
    else if (key == "--repeats") repeats = atoi(value.c_str());
    else fail("unknown option `" + key + "`");
  }
  llama_log_set(log, nullptr);
  llama_backend_init();
  ggml_backend_load_all_from_path(backends.c_str());

  double base = memory("VmRSS:"), begun = now();
  auto model_options = llama_model_default_params();
  model_options.n_gpu_layers = 0;
  auto* model = llama_model_load_from_file(argv[1], model_options);
  if (model == nullptr) fail("the model cannot be loaded");
  auto options = llama_context_default_params();
  options.n_ctx = prompt + tokens + 32;
  options.n_batch = options.n_ubatch = prompt > 32 ? prompt : 32;
  options.n_threads = options.n_threads_batch = threads;
  options.no_perf = true;
  auto* context = llama_init_from_model(model, options);
  if (context == nullptr) fail("there is no context");
  double load = now() - begun;

  int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  auto run = [&](llama_token* some, int count) {
    double start = now();
    if (llama_decode(context, llama_batch_get_one(some, count))) fail("a run fails");
    llama_synchronize(context);
    return now() - start;
  };
  std::vector<double> prefill, decode;
  for (int repeat = 0; repeat <= repeats; repeat++) {
    llama_memory_clear(llama_get_memory(context), true);
    std::vector<llama_token> words(prompt);
    for (int i = 0; i < prompt; i++) words[i] = (i * 7919 + repeat) % vocabulary;
    double took = run(words.data(), prompt);
    if (repeat > 0) prefill.push_back(took);
    for (int i = 0; i < tokens; i++) {
      llama_token word = static_cast<llama_token>((i * 104729LL + 11) % vocabulary);
      took = run(&word, 1);
      if (repeat > 0) decode.push_back(took);
    }
  }
  printf("{\"load_ms\": %.3f, \"rss_base_mb\": %.1f, \"rss_peak_mb\": %.1f", load, base, memory("VmHWM:"));
  print("prefill_ms", prefill);
  print("decode_ms", decode);
  printf("}\n");
  fflush(stdout);
  // Its backends are unloaded in an order that crashes some builds.
  _Exit(0);
}
