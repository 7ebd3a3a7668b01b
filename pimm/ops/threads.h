// Distribution of tasks among Paddle's threads.

// GNU's OpenMP hangs in a process that was forked after its threads were used, so such a process uses one thread.
std::atomic<bool> used_threads{false}, work_alone{false};
const int fork_handler = pthread_atfork(nullptr, nullptr, [] { work_alone = used_threads.load(); });

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int max_threads() {
#ifdef _OPENMP
  return work_alone ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Returns one thread for each `worth` of the work, at most one a task: waking a thread takes microseconds.
int worthwhile_threads(int64_t tasks, int64_t work, int64_t worth) {
  return int(std::max<int64_t>(1, std::min({1 + work / worth, tasks, int64_t(max_threads())})));
}

// Calls run(task, thread) for every task on this number of threads, which are numbered from 0.
template <class Run>
void for_each_task(int64_t tasks, int threads, Run run) {
  std::atomic<int64_t> next_task{0};
  std::atomic<int> next_thread{0};
  const auto work = [&] {
    const int thread = next_thread++;
    for (int64_t task; (task = next_task++) < tasks;) run(task, thread);
  };
  if (threads == 1) return work();
  used_threads = true;
#pragma omp parallel num_threads(threads)
  work();
}
