/* Runs CUDA kernels on a CPU, so that their indices and sums can be tested where there is no GPU.
 *
 * Included before everything else by a C++ compiler (-x c++ -include), it takes the place of
 * launch.cuh: a launch runs block after block, each thread of a block as a coroutine that changes
 * places at barriers and shuffles. The order of the threads can be chosen: results that depend on
 * it show a missing barrier. Grids that a device refuses are refused here, too.
 *
 * This knows nothing of what hardware adds: memory order, divergence within a warp, caches, limits
 * of registers, and what nvcc makes of the sources.
 */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "abi.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

/* The runtime's only other part that the sources ask for (library.cu). */
extern "C" inline const char *cudaGetErrorString(cudaError_t) { return "emulated"; }

namespace emulator {

constexpr int WARP = 32;
constexpr size_t STACK = 1 << 17;
enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
    uint64_t given;
};

inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline std::vector<int> order;
inline int current;
inline uint3 block_index;
inline int64_t last_blocks; /* run only this many, at the end of a grid; 0: all */
inline int64_t grid;        /* blocks of the latest launch */

[[noreturn]] inline void fail(const char *why) {
    std::fprintf(stderr, "cuda_emulator: %s\n", why);
    std::abort();
}

inline void wait(State state) {
    Thread &self = threads[current];
    self.state = state;
    swapcontext(&self.context, &scheduler);
}

inline void enter() {
    body();
    wait(DONE);
}

inline uint3 thread_index() { return {static_cast<unsigned>(current), 0, 0}; }

/* All threads of the warp give, then all take. A thread that has returned does not come. */
template <class T>
T shuffle_xor(unsigned mask, T value, int step) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "one register or two");
    if (mask != 0xffffffffu) fail("a shuffle among part of a warp");
    std::memcpy(&threads[current].given, &value, sizeof value);
    wait(AT_SHUFFLE);
    std::memcpy(&value, &threads[current ^ step].given, sizeof value);
    wait(AT_SHUFFLE);
    return value;
}

inline bool all_in(size_t first, size_t last, State state) {
    return std::all_of(threads.begin() + first, threads.begin() + last,
                       [&](const Thread &thread) { return thread.state == state; });
}

inline void release(size_t first, size_t last, State state) {
    if (!all_in(first, last, state)) return;
    for (size_t i = first; i < last; ++i) threads[i].state = READY;
}

inline void run_block() {
    for (Thread &thread : threads) {
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = STACK;
        makecontext(&thread.context, enter, 0);
        thread.state = READY;
    }
    while (!all_in(0, threads.size(), DONE)) {
        bool progress = false;
        for (int i : order) {
            if (threads[i].state != READY) continue;
            progress = true;
            current = i;
            swapcontext(&scheduler, &threads[i].context);
        }
        if (!progress) fail("threads wait for others that do not come");
        release(0, threads.size(), AT_BARRIER);
        for (size_t i = 0; i < threads.size(); i += WARP) release(i, i + WARP, AT_SHUFFLE);
    }
}

inline void prepare(int count) {
    if (threads.size() == static_cast<size_t>(count)) return;
    threads = std::vector<Thread>(count);
    for (Thread &thread : threads) thread.stack.reset(new char[STACK]);
    order.resize(count);
    std::iota(order.begin(), order.end(), 0);
}

}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index)
#define __syncthreads() emulator::wait(emulator::AT_BARRIER)
#define __shfl_xor_sync emulator::shuffle_xor
#define __ldg(address) (*(address))

/* In place of launch.cuh, whose guard this is. */
#define KERNELS_CUDA_LAUNCH_CUH

namespace kernels {

constexpr int THREADS = 256;

template <class P>
struct Exactly {
    using type = P;
};

template <class... P>
int32_t launch(void (*kernel)(P...), int64_t blocks, void *stream,
               typename Exactly<P>::type... arguments) {
    if (blocks == 0) return KERNELS_OK;
    if (blocks < 0 || blocks > INT32_MAX) return KERNELS_UNSUPPORTED;
    if (stream != reinterpret_cast<void *>(uintptr_t(42))) emulator::fail("not the given stream");
    emulator::prepare(THREADS);
    emulator::body = [&] { kernel(arguments...); };
    emulator::grid = blocks;
    const int64_t most = emulator::last_blocks;
    for (int64_t block = most ? std::max<int64_t>(blocks - most, 0) : 0; block < blocks; ++block) {
        emulator::block_index = {static_cast<unsigned>(block), 0, 0};
        emulator::run_block();
    }
    return KERNELS_OK;
}

}  // namespace kernels

/* The order of threads: 0 forwards, 1 backwards, else shuffled with this seed. */
KERNELS_EXPORT inline __attribute__((used)) void emulator_order(int32_t seed) {
    emulator::prepare(kernels::THREADS);
    std::vector<int> &order = emulator::order;
    std::iota(order.begin(), order.end(), 0);
    if (seed == 1) std::reverse(order.begin(), order.end());
    if (seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
}

/* Runs only the last blocks of each grid, for images that are too large to run over; 0: all. */
KERNELS_EXPORT inline __attribute__((used)) void emulator_last_blocks(int64_t count) {
    emulator::last_blocks = count;
}

/* How many blocks the latest launch had. */
KERNELS_EXPORT inline __attribute__((used)) int64_t emulator_blocks(void) {
    return emulator::grid;
}
