// Jobs on a few threads.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// A helper thread costs some 30 us to start and to wait for: each shall find work for ten times as long.
inline int64_t worthwhile(int64_t threads, int64_t coordinate_steps) {
  const int64_t most = coordinate_steps / 1500;
  return threads < most ? threads : most;
}

// Each of `jobs` once, on at most `threads` threads; which thread takes which job is left to chance. A thread has
// `bytes` of memory of its own. False when no thread could have them.
template <typename Do>
bool in_parallel(int64_t jobs, int64_t threads, size_t bytes, const Do& run) {
  std::atomic<int64_t> next{0};
  auto work = [&] {
    void* memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory) return;  // others may do all of the work
    for (int64_t job; (job = next.fetch_add(1)) < jobs;) run(job, memory);
    free(memory);
  };
  std::vector<std::thread> helpers;
  try {
    while (static_cast<int64_t>(helpers.size()) + 1 < threads && static_cast<int64_t>(helpers.size()) + 1 < jobs)
      helpers.emplace_back(work);
  } catch (const std::system_error&) {  // the system gives no more threads: those that stand do all of the work
  } catch (const std::bad_alloc&) {
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  return next.load() >= jobs;
}

}  // namespace
