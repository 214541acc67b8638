// What the machine can do at most: the denominators of the table. Prints one JSON object.
//
//   cc -O2 -pthread limits.c -o limits && ./limits THREADS [MIB]
//
// f32_gflops: multiply-adds in registers, two operations each. i8_gops: products of bytes summed to 32 bits, in the fastest exact way that the
// processor has. read_gbs: 10^9 bytes a second read from MIB (512) of memory, all threads together. Each is the median of a few repeats of about
// 0.1 s; thread N is on processor N of those that it may use. The widest instructions of the processor are taken at run time.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Twelve independent chains hide the latency of every unit there is. They begin differently, or the compiler would make one of them.
#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define CHAINS 12
#define REPEATS 5

typedef struct {
  const char *name;
  int lanes;                    // multiply-adds of one instruction or idiom
  void (*work)(size_t rounds);  // `rounds` times twelve of these
} kernel;

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma"))) static void f32_avx2(size_t rounds) {
  __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-7f);
#define DECLARE(i) __m256 r##i = _mm256_set1_ps(i);
#define STEP(i) r##i = _mm256_fmadd_ps(r##i, a, b);
#define KEEP(i) __asm__ volatile("" ::"x"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+x"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

__attribute__((target("avx512f"))) static void f32_avx512(size_t rounds) {
  __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-7f);
#define DECLARE(i) __m512 r##i = _mm512_set1_ps(i);
#define STEP(i) r##i = _mm512_fmadd_ps(r##i, a, b);
#define KEEP(i) __asm__ volatile("" ::"v"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+v"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

// Unsigned by signed bytes to pairs of 16 bits, these to 32 bits, and a sum. Exact while the unsigned ones have 7 bits.
__attribute__((target("avx2"))) static void i8_avx2(size_t rounds) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2), one = _mm256_set1_epi16(1);
#define DECLARE(i) __m256i r##i = _mm256_set1_epi32(i);
#define STEP(i)                                   \
  {                                               \
    __m256i p = _mm256_maddubs_epi16(a, b);       \
    __asm__ volatile("" : "+x"(p));               \
    r##i = _mm256_add_epi32(r##i, _mm256_madd_epi16(p, one)); \
  }
#define KEEP(i) __asm__ volatile("" ::"x"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+x"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

__attribute__((target("avx512f,avx512vnni"))) static void i8_vnni(size_t rounds) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
#define DECLARE(i) __m512i r##i = _mm512_set1_epi32(i);
#define STEP(i) r##i = _mm512_dpbusd_epi32(r##i, a, b);
#define KEEP(i) __asm__ volatile("" ::"v"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+v"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

static kernel f32_kernel(void) {
  if (__builtin_cpu_supports("avx512f")) return (kernel){"avx512f", 16, f32_avx512};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return (kernel){"avx2+fma", 8, f32_avx2};
  fprintf(stderr, "limits: the processor has no AVX2 with FMA\n");
  exit(2);
}

static kernel i8_kernel(void) {
  if (__builtin_cpu_supports("avx512vnni")) return (kernel){"avx512vnni", 64, i8_vnni};
  return (kernel){"avx2", 32, i8_avx2};
}

#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

static void f32_neon(size_t rounds) {
  float32x4_t a = vdupq_n_f32(0.999f), b = vdupq_n_f32(1e-7f);
#define DECLARE(i) float32x4_t r##i = vdupq_n_f32(i);
#define STEP(i) r##i = vfmaq_f32(r##i, a, b);
#define KEEP(i) __asm__ volatile("" ::"w"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+w"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

__attribute__((target("arch=armv8.2-a+dotprod"))) static void i8_dot(size_t rounds) {
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(2);
#define DECLARE(i) int32x4_t r##i = vdupq_n_s32(i);
#define STEP(i) r##i = vdotq_s32(r##i, a, b);
#define KEEP(i) __asm__ volatile("" ::"w"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+w"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

// Eight products to 16 bits and their sums to 32 bits.
static void i8_neon(size_t rounds) {
  int8x8_t a = vdup_n_s8(3), b = vdup_n_s8(2);
#define DECLARE(i) int32x4_t r##i = vdupq_n_s32(i);
#define STEP(i) r##i = vpadalq_s16(r##i, vmull_s8(a, b));
#define KEEP(i) __asm__ volatile("" ::"w"(r##i));
  TWELVE(DECLARE)
  while (rounds--) { TWELVE(STEP) __asm__ volatile("" : "+w"(a)); }
  TWELVE(KEEP)
#undef DECLARE
#undef STEP
#undef KEEP
}

static kernel f32_kernel(void) { return (kernel){"neon", 4, f32_neon}; }
static kernel i8_kernel(void) {
  if (getauxval(AT_HWCAP) & (1 << 20)) return (kernel){"dotprod", 16, i8_dot};
  return (kernel){"neon", 8, i8_neon};
}
#else
#error "x86-64 and AArch64 only"
#endif

// Four streams a quarter apart, asked for ahead: one alone leaves some processors waiting for its latency.
typedef uint64_t wide __attribute__((vector_size(32)));
#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
static uint64_t read_all(const uint8_t *bytes, size_t size) {
  size_t quarter = size / 4 / sizeof(wide);
#define DECLARE(s) const wide *from##s = (const wide *)bytes + s * quarter; wide sum##s = {0};
#define FETCH(s) __builtin_prefetch(from##s + i + 32, 0, 0);
#define STEP(s) sum##s += from##s[i] + from##s[i + 1];
#define FOUR(X) X(0) X(1) X(2) X(3)
  FOUR(DECLARE)
  for (size_t i = 0; i < quarter; i += 2) {
    FOUR(FETCH)
    FOUR(STEP)
  }
  wide sum = sum0 + sum1 + sum2 + sum3;
  return sum[0] + sum[1] + sum[2] + sum[3];
#undef DECLARE
#undef FETCH
#undef STEP
}

typedef struct {
  pthread_t thread;
  int processor;
  void (*work)(size_t);
  size_t rounds;
  const uint8_t *bytes;
  size_t size;
  uint64_t sum;
  double begin, end;
} part;

static pthread_barrier_t together;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *run_part(void *argument) {
  part *p = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(p->processor, &set);
  sched_setaffinity(0, sizeof set, &set);
  pthread_barrier_wait(&together);
  p->begin = now();
  if (p->work) p->work(p->rounds);
  else p->sum = read_all(p->bytes, p->size);
  p->end = now();
  return NULL;
}

// Seconds from the first that begins to the last that ends.
static double run_all(part *parts, int threads) {
  pthread_barrier_init(&together, NULL, threads);
  for (int i = 0; i < threads; i++) pthread_create(&parts[i].thread, NULL, run_part, &parts[i]);
  for (int i = 0; i < threads; i++) pthread_join(parts[i].thread, NULL);
  pthread_barrier_destroy(&together);
  double begin = parts[0].begin, end = parts[0].end;
  for (int i = 1; i < threads; i++) {
    if (parts[i].begin < begin) begin = parts[i].begin;
    if (parts[i].end > end) end = parts[i].end;
  }
  return end - begin;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median_seconds(part *parts, int threads) {
  double seconds[REPEATS];
  for (int r = 0; r < REPEATS; r++) seconds[r] = run_all(parts, threads);
  qsort(seconds, REPEATS, sizeof *seconds, ascending);
  return seconds[REPEATS / 2];
}

static double arithmetic(kernel k, part *parts, int threads) {
  double begin = now();
  size_t rounds = 1000000;
  k.work(rounds);
  rounds = rounds * (0.1 / (now() - begin)) + 1;
  for (int i = 0; i < threads; i++) parts[i].work = k.work, parts[i].rounds = rounds;
  return 2e-9 * k.lanes * CHAINS * rounds * threads / median_seconds(parts, threads);
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1;
  size_t size = (size_t)(argc > 2 ? atoi(argv[2]) : 512) << 20;
  if (threads < 1 || threads > 1024 || size == 0) {
    fprintf(stderr, "usage: limits THREADS [MIB]\n");
    return 2;
  }
  cpu_set_t mine;
  sched_getaffinity(0, sizeof mine, &mine);
  part *parts = calloc(threads, sizeof *parts);
  int processor = -1;
  for (int i = 0; i < threads; i++) {
    for (int tried = 0; tried < CPU_SETSIZE; tried++) {
      processor = (processor + 1) % CPU_SETSIZE;
      if (CPU_ISSET(processor, &mine)) break;
    }
    parts[i].processor = processor;
  }
  kernel f32 = f32_kernel(), i8 = i8_kernel();
  double f32_rate = arithmetic(f32, parts, threads), i8_rate = arithmetic(i8, parts, threads);
  size_t each = size / threads / 1024 * 1024;
  for (int i = 0; i < threads; i++) {
    uint8_t *bytes = aligned_alloc(4096, (each + 8191) / 4096 * 4096);
    if (!bytes) return 2;
    memset(bytes, 1, each);
    parts[i].work = NULL, parts[i].bytes = bytes, parts[i].size = each;
  }
  double read_rate = 1e-9 * each * threads / median_seconds(parts, threads);
  printf("{\"threads\": %d, \"f32_gflops\": %.2f, \"f32_by\": \"%s\", \"i8_gops\": %.2f, \"i8_by\": \"%s\", \"read_gbs\": %.2f}\n", threads,
         f32_rate, f32.name, i8_rate, i8.name, read_rate);
  return 0;
}
